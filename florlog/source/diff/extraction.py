"""Undoes edits that only gave a name to a value that recorded code computes.

To log what a recorded statement computes and drops, people first give it a name:

    clip_grad_norm_(parameters, 1.0)         norm = clip_grad_norm_(parameters, 1.0)

    loss = cross_entropy(model(x), y)        logits = model(x)
                                             run.log(spread=logits.std())
                                             loss = cross_entropy(logits, y)

This is *extract variable* (Fowler, "Refactoring", 2nd ed., section 6.3): the program computes the same in the same
order, so it is no change.  `put_back` undoes it in the new tree if the resulting statement is in the old tree.  The
comparison then finds only the added log statements.

The name must not occur in the old file, so that no recorded code can see it.  The order of computation must stay the
same: whatever the recorded statement computes before the value must be named as well, and in the same order, or must
only read a variable or the function that is called.  The value must be computed whenever the statement is.  No
recorded statement may stand between the name and its use.
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass

from florlog.source.names.syntax import blocks, children, walk

_SIMPLE_STATEMENTS = (ast.Expr, ast.Assign, ast.AugAssign, ast.AnnAssign, ast.Return)


@dataclass(frozen=True)
class Named:
    """A recorded value that has a name now, and the line that gives the name.

    ``statement`` is compared in place of the statement that uses the name.  If no statement uses it, it is compared in
    place of the one that gives it.
    """

    name: str
    line: int
    statement: ast.stmt


def names_in(tree: ast.AST) -> set[str]:
    """The variables and parameters that a tree mentions."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            found.add(node.id)
        elif isinstance(node, ast.arg):
            found.add(node.arg)
        elif isinstance(node, (ast.Global, ast.Nonlocal)):
            found.update(node.names)
    return found


def put_back(old: ast.Module, new: ast.Module, left: Container[int] = ()) -> list[Named]:
    """Change ``new`` in place so that values of ``old`` that were given names have none again; returns the names.

    Names that are given at the lines ``left`` stay.
    """
    fresh = names_in(new) - names_in(old)
    if not fresh:
        return []
    recorded = {ast.dump(node) for node in ast.walk(old) if isinstance(node, ast.stmt)}
    return [
        named
        for owner in list(ast.walk(new))
        if not isinstance(owner, ast.ClassDef)  # there a name is an attribute, which other code sees
        for _, block in blocks(owner)
        for named in _Block(block, fresh, recorded, left).undone()
    ]


class _Block:
    """A block of the new tree."""

    def __init__(
        self, statements: list[ast.AST], fresh: set[str], recorded: set[str], left: Container[int]
    ) -> None:
        self._statements = statements
        self._fresh = fresh
        self._recorded = recorded
        self._left = left
        self._pending: dict[str, ast.Assign] = {}  # names given since the last recorded statement

    def undone(self) -> Iterator[Named]:
        for statement in self._statements[:]:
            name = _naming(statement)
            if name in self._fresh and isinstance(statement, ast.Assign):
                dropped = ast.copy_location(ast.Expr(statement.value), statement)
                if statement.lineno in self._left:
                    self._pending.clear()
                elif (found := self._original(dropped)) is not None:
                    yield Named(name, statement.lineno, found[0])
                    yield from self._take(statement, *found)
                else:
                    self._pending.pop(name, None)
                    self._pending[name] = statement
            elif self._is_recorded(statement):
                self._pending.clear()
            elif (found := self._original(statement)) is not None:
                yield from self._take(statement, *found)

    def _is_recorded(self, statement: ast.AST) -> bool:
        """Whether the old file has the statement or one of those inside it."""
        parts = (node for node in ast.walk(statement) if isinstance(node, ast.stmt))
        return any(ast.dump(node) in self._recorded for node in parts)

    def _original(self, statement: ast.AST) -> tuple[ast.stmt, list[str]] | None:
        """The recorded statement that this one was made from, and the names of its values."""
        if not isinstance(statement, _SIMPLE_STATEMENTS):
            return None
        filling = _Filling(self._pending)
        filled = filling.visit(copy.deepcopy(statement))
        if ast.dump(filled) not in self._recorded or not filling.in_order(filled):
            return None
        return filled, filling.used

    def _take(self, statement: ast.AST, original: ast.stmt, used: list[str]) -> Iterator[Named]:
        self._statements[self._statements.index(statement)] = original
        for name in used:
            self._statements.remove(self._pending[name])
            yield Named(name, self._pending[name].lineno, original)
        self._pending.clear()


def _naming(statement: ast.AST) -> str:
    """The name, if a statement does nothing except give one name to a value; else ""."""
    if isinstance(statement, ast.Assign) and len(statement.targets) == 1:
        target = statement.targets[0]
        return target.id if isinstance(target, ast.Name) else ""
    return ""


class _Filling(ast.NodeTransformer):
    """Replaces names by the values that they were given."""

    def __init__(self, named: Mapping[str, ast.Assign]) -> None:
        self._named = named
        self._order = list(named)
        self._before = len(named)  # how many of them have a value where the visited node stands
        self._owners: dict[ast.AST, int] = {}  # the number of the value that a node was part of
        self.used: list[str] = []

    def visit_Name(self, node: ast.Name) -> ast.AST:
        if (
            node.id not in self._order[: self._before]
            or not isinstance(node.ctx, ast.Load)
            or node.id in self.used
        ):
            return node  # used twice: the value is computed once now, but was computed more often before
        self.used.append(node.id)
        before, self._before = self._before, self._order.index(node.id)
        made: ast.AST = self.visit(copy.deepcopy(self._named[node.id].value))
        for part in walk(made):
            self._owners.setdefault(part, self._before)
        self._before = before
        return made

    def in_order(self, statement: ast.stmt) -> bool:
        """Whether the values are computed first, in the order in which they were named, and always."""
        rest = len(self._order)
        last = 0
        for node in walk(statement):
            own = self._owners.get(node, rest)
            for part in _conditional_parts(node):
                if any(self._owners.get(inner, rest) != own for inner in walk(part)):
                    return False
        for node in _computed(statement):
            owner = self._owners.get(node, rest)
            if owner < last:
                return False
            last = owner
        return True


def _conditional_parts(node: ast.AST) -> list[ast.AST]:
    """The parts of an expression that may be evaluated never, later, or more than once."""
    match node:
        case ast.IfExp():
            return [node.body, node.orelse]
        case ast.BoolOp():
            return list(node.values[1:])
        case ast.Compare():
            return list(node.comparators[1:])
        case ast.Lambda() | ast.ListComp() | ast.SetComp() | ast.DictComp() | ast.GeneratorExp():
            return children(node)
    return []


def _computed(node: ast.AST, called: bool = False) -> Iterator[ast.AST]:
    """What a statement or expression does except read variables, in the order in which it is done.

    The order is that of the language reference (section 6.16).  ``called``: the node is the function of a call.
    """
    match node:
        case ast.Name() | ast.Constant():
            return
        case ast.Attribute():
            yield from _computed(node.value, called)
            if not called:
                yield node
        case ast.Call():
            yield from _computed(node.func, True)
            for argument in (*node.args, *node.keywords):
                yield from _computed(argument)
            yield node
        case ast.Assign():
            yield from _computed(node.value)
            for target in node.targets:
                yield from _computed(target)
        case ast.AnnAssign() if node.value is not None:
            yield from _computed(node.value)
            yield from _computed(node.target)
        case ast.Dict():
            for key, value in zip(node.keys, node.values, strict=True):
                if key is not None:
                    yield from _computed(key)
                yield from _computed(value)
        case ast.Tuple() | ast.List() | ast.Expr() | ast.Return() | ast.keyword():
            for part in children(node):
                yield from _computed(part)
        case _:
            for part in children(node):
                yield from _computed(part)
            yield node
