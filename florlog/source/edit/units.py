"""An added statement as a unit of data flow: which names it reads, and which it binds or may change.

By them a replay carries what one added statement read from outside over to those that use its results.
"""

from __future__ import annotations

import ast
from typing import TypeAlias

from florlog.source.names.calls import shown_values
from florlog.source.names.syntax import walk

Names: TypeAlias = tuple[str, ...]
"""Names, and ``.x`` for attributes."""
Unit: TypeAlias = tuple[int, int, Names, Names, tuple[tuple[str, Names], ...]]
"""First line, last line, the names that are read, and those that are bound or may be changed.

At last, of a statement that only tells values: the name of each, and what its code reads.
"""


def unit(statement: ast.stmt) -> Unit:
    """The unit of a statement with all that is below it."""
    reads: set[str] = set()
    binds: set[str] = set()
    for node in walk(statement):
        if isinstance(node, ast.Name):
            (reads if isinstance(node.ctx, ast.Load) else binds).add(node.id)
        elif isinstance(node, ast.Attribute):
            (reads if isinstance(node.ctx, ast.Load) else binds).add(f".{node.attr}")
        elif isinstance(node, ast.Subscript) and not isinstance(node.ctx, ast.Load):
            binds |= _held_by(node)
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            binds |= _given(node.value)
        if isinstance(node, ast.AugAssign):
            reads |= _held_by(node.target)
    return (
        statement.lineno,
        statement.end_lineno or statement.lineno,
        tuple(sorted(reads)),
        tuple(sorted(binds)),
        tuple((name, _read_by(code)) for name, code in _told(statement)),
    )


def _told(statement: ast.stmt) -> list[tuple[str, ast.expr]]:
    is_call = isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call)
    return shown_values(statement.value) if is_call else []  # type: ignore[attr-defined]


def _read_by(code: ast.expr) -> Names:
    found = {node.id for node in walk(code) if isinstance(node, ast.Name)}
    return tuple(sorted(found | {f".{node.attr}" for node in walk(code) if isinstance(node, ast.Attribute)}))


def _given(call: ast.Call) -> set[str]:
    """What a call whose result is dropped may change: its object and its arguments; a log call changes nothing."""
    if isinstance(call.func, ast.Attribute) and call.func.attr in ("log", "said"):
        return set()
    parts: list[ast.expr] = [*call.args, *(keyword.value for keyword in call.keywords)]
    if isinstance(call.func, ast.Attribute):
        parts.append(call.func.value)
    return set().union(*map(_held_by, parts))


def _held_by(node: ast.expr) -> set[str]:
    """The name or attribute that holds what an expression like ``name[0]`` or ``self.name`` is part of."""
    while isinstance(node, (ast.Subscript, ast.Starred, ast.Call)):
        node = node.func if isinstance(node, ast.Call) else node.value
    if isinstance(node, ast.Name):
        return {node.id}
    return {f".{node.attr}", *_held_by(node.value)} if isinstance(node, ast.Attribute) else set()
