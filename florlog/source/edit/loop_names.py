"""What a recorded loop is called: a name that a condition can use, and that means what the reader expects.

- A ``for`` is called after its target: ``for epoch in ...``, ``for i, batch in enumerate(loader)``.
- A ``while`` is called after the counter that its test reads (``while step < total``), else after a counter of its
  body (``n += 1``).
- A loop without such a name is called after what its ``range`` counts (``range(num_epochs)`` is ``epoch``) or what its
  test compares; else a ``for`` is ``step`` or ``iteration``, a ``while`` is ``loop``.

A name is an identifier.  In a condition a loop's name stands for the number of its iteration, before a logged value of
that name.  So only a loop's own target or counter may give it the name of a value that the program logs.  No two loops
of a nest in one function get the same name.
"""

from __future__ import annotations

import ast
import keyword
import re
from collections.abc import Collection, Iterable, Iterator
from typing import TypeAlias

from florlog.source.names.syntax import FUNCTIONS, LOOPS, last_word, own_nodes

LoopStatement: TypeAlias = ast.For | ast.AsyncFor | ast.While

_PLAIN = ("step", "iteration", "loop")
_COUNTED = re.compile(
    r"(?:(?:num|n|max|total|nb)_?)?([a-z_]*[a-z])s(?:_per_\w+)?"
)  # num_epochs, steps_per_epoch


def loop_names(
    tree: ast.AST, loops: Collection[LoopStatement], logged: Collection[str]
) -> dict[LoopStatement, str]:
    """The names of loops of a module; ``logged``: the names of the values that the program logs."""
    found: dict[LoopStatement, str] = {}
    for nest in _nests(tree, loops, []):
        loop = nest[-1]
        taken = {found[outer] for outer in nest[:-1]}
        inner = {
            name
            for node in ast.walk(loop)
            if isinstance(node, LOOPS) and node is not loop and node in loops
            for name in _own_names(node)[:1]
        }
        own = [name for name in _own_names(loop) if name not in taken]
        free = (name for name in _other_names(loop) if name not in taken | inner and name not in logged)
        found[loop] = own[0] if own else next(free)
    return found


def _nests(
    node: ast.AST, loops: Collection[LoopStatement], around: list[LoopStatement]
) -> Iterator[list[LoopStatement]]:
    """Each loop with those around it in its function, outermost first, itself last; an outer loop comes first."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, LOOPS) and child in loops:
            nest = [*around, child]
            yield nest
            yield from _nests(child, loops, nest)
        else:
            outside = isinstance(child, (*FUNCTIONS, ast.Lambda, ast.ClassDef))
            yield from _nests(child, loops, [] if outside else around)


def _own_names(loop: LoopStatement) -> list[str]:
    """The names that the program itself has for what a loop counts, the best first."""
    if isinstance(loop, ast.While):
        counters = _counters(loop)
        return [*(name for name in _read(loop.test) if name in counters), *_assigned(loop.test), *counters]
    name = _target_name(loop.target, loop.iter)
    return [name] if name else []


def _target_name(target: ast.expr, items: ast.expr) -> str:
    if isinstance(target, (ast.Tuple, ast.List)):
        return _target_name(target.elts[0], ast.Constant(0)) if target.elts and _counts(items) else ""
    name = target.id if isinstance(target, ast.Name) else getattr(target, "attr", "")
    return str(name) if name.strip("_") else ""


def _counts(items: ast.expr) -> bool:
    """Whether the first part of each item is a number: ``enumerate(...)``, also inside ``tqdm(...)``."""
    while True:
        if isinstance(items, ast.NamedExpr):
            items = items.value
        elif isinstance(items, ast.Call) and items.args:
            if last_word(items.func) == "enumerate":
                return True
            if last_word(items.func) == "zip":
                first = items.args[0]
                return isinstance(first, ast.Call) and last_word(first.func) in ("range", "count")
            items = items.args[0]
        else:
            return False


def _counters(loop: ast.While) -> list[str]:
    """The names that each pass of a loop counts up by 1, in the order of the text."""
    return [
        name
        for node in _each_pass(loop.body)
        if isinstance(node, (ast.AugAssign, ast.Assign)) and (name := _counted(node))
    ]


def _counted(node: ast.AugAssign | ast.Assign) -> str:
    """The name that a statement counts up by 1, "" if it does not: ``n += 1``, ``self.n = self.n + 1``."""
    target: ast.expr
    if isinstance(node, ast.AugAssign):
        target, added, op = node.target, node.value, node.op
    elif isinstance(node.value, ast.BinOp) and len(node.targets) == 1:
        target, added, op = node.targets[0], node.value.right, node.value.op
        if ast.unparse(target) != ast.unparse(node.value.left):
            return ""
    else:
        return ""
    counts = isinstance(op, ast.Add) and isinstance(added, ast.Constant) and added.value == 1
    return last_word(target) if counts and last_word(target).strip("_") else ""


def _each_pass(body: Iterable[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements that each pass of a loop comes to, unless it ends early."""
    for statement in body:
        yield statement
        if isinstance(statement, (ast.With, ast.AsyncWith, ast.Try)):
            yield from _each_pass(statement.body)


def _read(test: ast.expr) -> Iterator[str]:
    return (name for node in ast.walk(test) if (name := last_word(node)))


def _assigned(test: ast.expr) -> Iterator[str]:
    """What a test assigns: ``while (batch := fetch()) is not None``."""
    return (node.target.id for node in own_nodes([test]) if isinstance(node, ast.NamedExpr))


def _other_names(loop: LoopStatement) -> Iterator[str]:
    """Names for a loop that has none of its own; without end."""
    if isinstance(loop, ast.While):
        for node in ast.walk(loop.test):
            match node:
                case ast.Compare(left=left, ops=[ast.Lt() | ast.LtE() | ast.NotEq(), *_]):
                    if (name := last_word(left)).strip("_"):
                        yield name
    else:
        for node in ast.walk(loop.iter):
            if isinstance(node, ast.Call) and last_word(node.func) == "range" and len(node.args) in (1, 2):
                word = _singular(last_word(node.args[-1]).lower())
                if word and not keyword.iskeyword(word):
                    yield word
    yield from _PLAIN[2:] if isinstance(loop, ast.While) else _PLAIN
    number = 1
    while True:
        number += 1
        yield f"{_PLAIN[-1]}_{number}"


def _singular(counted: str) -> str:
    """What a number of things counts: ``epoch`` of ``num_epochs``; "" if its name does not tell."""
    match = _COUNTED.fullmatch(counted)
    word = match[1].rpartition("_")[2] if match else ""
    if word.endswith("ie"):
        return f"{word[:-2]}y"
    return word[:-1] if word.endswith(("che", "she", "xe", "sse")) else word
