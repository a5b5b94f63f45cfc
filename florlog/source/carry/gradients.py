"""Whether gradients are computed anew before anything reads them, at a boundary of a loop.

After ``optimizer.step()`` the gradients are a quarter of a dense Adam state, and in most programs nothing reads them
any more: the next step begins with ``zero_grad()``.  Here the code that runs next is looked at in its order, through
functions of the program by their bare names, for what comes first on each way:

    `Use.CLEARED`   ``zero_grad()``, or ``.grad`` set to None
    `Use.READ`      a ``.grad`` is read or set, ``backward()`` adds to it, an optimizer's step or a clipping reads it
    `Use.NONE`      neither

This is a guess, and a wrong one is never silent: a gradient that was left out raises where it is read
(`florlog.state.left_out`).
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import Enum
from typing import NamedTuple

from florlog.source.names.syntax import FUNCTIONS, LOOPS, SourceError, last_word, parse, walk


class Use(Enum):
    """What comes first of a gradient on a way through code."""

    NONE = "none"
    CLEARED = "cleared"
    READ = "read"


class First(NamedTuple):
    """What comes first in code, and whether it surely comes: a loop may have no iteration."""

    use: Use
    surely: bool = True


_READERS = frozenset(
    {"backward", "unscale_", "clip_grad_norm_", "clip_grad_value_", "clip_grad_norm", "all_reduce"}
)
"""Methods and functions that read gradients, or add to them."""
_STEPPING_OTHERS = ("sched", "lr", "env", "prof", "ema", "bar")
"""In the names of what has a ``step`` that reads no gradient."""
_MAX_DEPTH = 12
"""Of calls that are followed."""
_SCOPES = (*FUNCTIONS, ast.Lambda, ast.ClassDef)

Stack = Sequence[tuple[str, str, int]]
"""Source positions from a loop outwards: file, qualified name, line."""


def cleared_before_read(texts: Mapping[str, str], stack: Stack, *, end: bool) -> bool:
    """Whether gradients at a boundary of a loop are cleared before anything reads them, as far as the code shows.

    ``texts``: the program's files with their texts; ``stack``: where the loop stands, and the calls around it, from the
    innermost outwards; ``end``: whether the boundary is behind the loop, and not before its next iteration.

    False as well where several objects clear gradients: each has its own.  And where they may not clear them: within
    Accelerate's ``accumulate`` they do so in the last batch of a group alone.
    """
    try:
        program = _Program({file: parse(text, file) for file, text in texts.items()})
    except SourceError:
        return False
    clears = len(program.clearing) == 1 and not program.accumulates
    return clears and program.ahead(stack, end=end) is Use.CLEARED


class _Program:
    def __init__(self, trees: Mapping[str, ast.Module]) -> None:
        self._trees = trees
        self._functions: dict[str, list[ast.AST]] = {}
        self.clearing: set[str] = set()
        """What gradients are cleared through, as text."""
        self.accumulates = False
        for tree in trees.values():
            for node in walk(tree):
                if isinstance(node, FUNCTIONS):
                    self._functions.setdefault(node.name, []).append(node)
                elif isinstance(node, ast.ClassDef):
                    made = [
                        part for part in node.body if isinstance(part, FUNCTIONS) and part.name == "__init__"
                    ]
                    self._functions.setdefault(node.name, []).extend(made)
                elif isinstance(node, ast.Call) and last_word(node.func) == "zero_grad":
                    self.clearing.add(".".join(ast.unparse(node.func).split(".")[-2:]))
                elif isinstance(node, ast.Call) and last_word(node.func) == "accumulate":
                    self.accumulates |= isinstance(node.func, ast.Attribute)
                elif _is_cleared_by_hand(node):
                    self.clearing.add("=")
        self._known: dict[ast.AST, First] = {}

    def ahead(self, stack: Stack, *, end: bool) -> Use:
        """What comes first after a boundary of the loop at the top of a stack."""
        outwards: list[First] = []  # of what follows, one after the other
        for number, (file, qualname, line) in enumerate(stack):
            tree = self._trees.get(file)
            way = [] if tree is None else _way_to(tree, qualname, line, loop=number == 0)
            if not way:
                return Use.READ
            if number == 0 and not end:
                outwards.append(First(self._of_loop(way[-1]).use, surely=False))
            for around, inner in zip(way[-2::-1], way[:0:-1], strict=True):
                outwards.append(self.of_block(_behind(around, inner)))
                if isinstance(around, LOOPS):
                    outwards.append(First(self._of_loop(around).use, surely=False))
        return _sequence(outwards).use

    def _of_loop(self, loop: ast.AST) -> First:
        """What comes first in a further iteration of a loop, from its test on."""
        header = [self.of_expression(loop.test)] if isinstance(loop, ast.While) else []
        return _sequence([*header, self.of_block(getattr(loop, "body", []))])

    def of_block(self, block: Iterable[ast.AST], depth: int = 0) -> First:
        """What comes first in a block of statements."""
        return _sequence(self._of_statement(statement, depth) for statement in block)

    def _of_statement(self, statement: ast.AST, depth: int) -> First:
        if isinstance(statement, _SCOPES):
            return First(Use.NONE)
        if _is_cleared_by_hand(statement):
            return First(Use.CLEARED)
        blocks = list(_blocks(statement))
        inside = {id(part) for block in blocks for part in block}
        header = [child for child in ast.iter_child_nodes(statement) if id(child) not in inside]
        return _sequence(
            [*(self.of_expression(part, depth) for part in header), self._of_blocks(statement, depth)]
        )

    def _of_blocks(self, statement: ast.AST, depth: int) -> First:
        """What comes first in the blocks of a statement, of which some may run."""
        ways = [self.of_block(block, depth) for block in _blocks(statement)]
        if any(way.use is Use.READ for way in ways):
            return First(Use.READ)
        surely = isinstance(statement, ast.With | ast.AsyncWith) or _runs_over_parameters(statement)
        surely = surely or (isinstance(statement, ast.If) and len(ways) == 2)
        surely = surely and all(way == First(Use.CLEARED) for way in ways)
        return First(Use.CLEARED if any(way.use is Use.CLEARED for way in ways) else Use.NONE, surely)

    def of_expression(self, expression: ast.AST, depth: int = 0) -> First:
        """What comes first in an expression, or in a statement without blocks, in the order of evaluation."""
        if isinstance(expression, _SCOPES):
            return First(Use.NONE)
        parts = [self.of_expression(child, depth) for child in ast.iter_child_nodes(expression)]
        if isinstance(expression, ast.Attribute) and expression.attr == "grad":
            module = isinstance(expression.value, ast.Name) and expression.value.id in (
                "autograd",
                "torch",
                "jax",
            )
            parts.append(First(Use.NONE if module else Use.READ))
        elif isinstance(expression, ast.Call):
            parts.append(self._of_call(expression, depth))
        return _sequence(parts)

    def _of_call(self, call: ast.Call, depth: int) -> First:
        name = last_word(call.func)
        if name == "zero_grad":
            kept = [*call.args, *(word.value for word in call.keywords)]
            kept_zero = any(getattr(value, "value", None) is not True for value in kept)
            return First(Use.READ if kept_zero else Use.CLEARED)
        if name in _READERS:
            return First(Use.READ)
        if name == "step" and isinstance(call.func, ast.Attribute):
            owner = ast.unparse(call.func.value).split(".")[-1].lower()
            if any(word in owner for word in _STEPPING_OTHERS):
                return First(Use.NONE)
            if owner != "self" or name not in self._functions:
                return First(Use.READ)
        if name == "getattr" and any(
            isinstance(part, ast.Constant) and part.value == "grad" for part in call.args
        ):
            return First(Use.READ)
        ways = [self._of_function(function, depth) for function in self._functions.get(name, ())]
        if any(way.use is Use.READ for way in ways):
            return First(Use.READ)
        cleared = any(way.use is Use.CLEARED for way in ways)
        return First(Use.CLEARED if cleared else Use.NONE, all(way == First(Use.CLEARED) for way in ways))

    def _of_function(self, function: ast.AST, depth: int) -> First:
        if function not in self._known:
            if depth == _MAX_DEPTH:
                return First(Use.READ)
            self._known[function] = First(Use.NONE)  # of a call of itself
            self._known[function] = self.of_block(getattr(function, "body", []), depth + 1)
        return self._known[function]


def _sequence(parts: Iterable[First]) -> First:
    """What comes first in parts that run one after the other."""
    perhaps = False
    for part in parts:
        if part.use is Use.READ or (part.use is Use.CLEARED and part.surely):
            return part
        perhaps = perhaps or part.use is Use.CLEARED
    return First(Use.CLEARED if perhaps else Use.NONE, surely=not perhaps)


def _is_cleared_by_hand(node: ast.AST) -> bool:
    """Whether a statement is ``p.grad = None``."""
    if (
        not isinstance(node, ast.Assign)
        or not isinstance(node.value, ast.Constant)
        or node.value.value is not None
    ):
        return False
    return all(isinstance(target, ast.Attribute) and target.attr == "grad" for target in node.targets)


def _runs_over_parameters(loop: ast.AST) -> bool:
    """Whether a loop surely has an iteration for each parameter, by the name of what it runs over."""
    over = ast.unparse(loop.iter) if isinstance(loop, ast.For) else ""
    return "param" in over


def _blocks(node: ast.AST) -> Iterator[list[ast.stmt]]:
    for field in ("body", "orelse", "finalbody"):
        if block := getattr(node, field, None):
            yield block
    for part in (*getattr(node, "handlers", ()), *getattr(node, "cases", ())):
        yield part.body


def _behind(around: ast.AST, inner: ast.AST) -> list[ast.AST]:
    """The statements that come behind one in the statement around it."""
    block: list[ast.stmt] = next((block for block in _blocks(around) if inner in block), [])
    found: list[ast.AST] = [*block[block.index(inner) + 1 :]] if isinstance(inner, ast.stmt) and block else []
    if isinstance(around, ast.Try | ast.TryStar) and block is not around.finalbody:
        found += [*(around.orelse if block is around.body else ()), *around.finalbody]
    return found


def _way_to(tree: ast.Module, qualname: str, line: int, *, loop: bool) -> list[ast.AST]:
    """The nested statements of a function that lead to the one at a line: a loop, or any; empty if it is not there."""
    function: ast.AST = tree
    if qualname != "<module>":
        name = qualname.split(".")[-1]
        functions = [
            node
            for node in walk(tree)
            if isinstance(node, FUNCTIONS)
            and node.name == name
            and node.lineno <= line <= (node.end_lineno or 0)
        ]
        if not functions:
            return []
        function = max(functions, key=lambda node: getattr(node, "lineno", 0))
    way = [function]
    while True:
        inner = next(
            (
                part
                for block in _blocks(way[-1])
                for part in block
                if part.lineno <= line <= (part.end_lineno or part.lineno)
            ),
            None,
        )
        if inner is None or isinstance(inner, _SCOPES):
            break
        way.append(inner)
        if inner.lineno == line and (not loop or isinstance(inner, LOOPS)):
            break
    if loop and not isinstance(way[-1], LOOPS):
        return []
    return way if len(way) > 1 else []
