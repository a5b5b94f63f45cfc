"""Which attributes hold data alone, by what a program gives them: what is called by their name is something else.

The commonest class of trainings has ``self.sum += value * n``, and the commonest call of a tensor is ``x.sum()``.
Attributes are known by name only, so without this a meter of times would take its label from the clock to each
``sum()`` of a tensor.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator

from florlog.source.names.syntax import COMPREHENSIONS

_DATA_BUILTINS = {
    "abs",
    "bool",
    "dict",
    "float",
    "int",
    "len",
    "list",
    "range",
    "round",
    "set",
    "str",
    "sum",
    "tuple",
}
"""Builtins whose result cannot be called."""


def data_fields(trees: Iterable[ast.AST]) -> frozenset[str]:
    """The attributes that all assignments of a program give numbers, texts or containers."""
    data: set[str] = set()
    other: set[str] = set()
    for tree in trees:
        for name, value in _given(tree):
            (data if value is not None and _is_data(value) else other).add(name)
    return frozenset(data - other)


def _given(tree: ast.AST) -> Iterator[tuple[str, ast.expr | None]]:
    """The attributes that a tree binds, and what to; None: something that its text does not show."""
    assigned: set[ast.AST] = set()
    for node in ast.walk(tree):
        match node:
            case ast.Assign(targets=targets, value=value):
                found = [target for target in targets if isinstance(target, ast.Attribute)]
            case ast.AnnAssign(target=ast.Attribute() as target, value=ast.expr() as value):
                found = [target]
            case ast.AugAssign(target=ast.Attribute() as target):
                # A sum is data whatever is added; of a callable there is none.
                found, value = [target], ast.Constant(0)
            case _:
                continue
        assigned.update(found)
        yield from ((target.attr, value) for target in found)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and node not in assigned:
            yield node.attr, None


def _is_data(value: ast.expr) -> bool:
    match value:
        case ast.Constant():
            return value.value is not None
        case ast.BinOp() | ast.UnaryOp() | ast.Compare() | ast.JoinedStr():
            return True
        case ast.List() | ast.Tuple() | ast.Set() | ast.Dict():
            return True
        case ast.Call(func=ast.Name(id=name)):
            return name in _DATA_BUILTINS
        case ast.IfExp(body=body, orelse=orelse):
            return _is_data(body) and _is_data(orelse)
    return isinstance(value, COMPREHENSIONS)
