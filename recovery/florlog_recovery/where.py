"""Conditions that select iterations: ``epoch in (3, 7) and step % 50 == 0``.

The text is parsed with `ast` and evaluated by this module alone: it is never compiled or passed to
``eval``, and only the operators below exist.  Names are loop names.  A name that an iteration's address
does not have makes a comparison unknown, and unknown propagates as SQL's NULL does; only iterations for
which the condition is true are selected.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Collection, Mapping
from typing import Any


class WhereError(ValueError):
    """The condition cannot be used; the message says which part and what is possible."""


_COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: lambda a, b: a in b,
    ast.NotIn: lambda a, b: a not in b,
}
_BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}


class Condition:
    """A parsed condition over the names ``names``.  Raises `WhereError` for anything it does not know."""

    def __init__(self, text: str, names: Collection[str]) -> None:
        self.text = text
        try:
            self._tree = ast.parse(text.strip(), mode="eval").body
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            raise WhereError(f"cannot read the condition {text!r}: {error}") from None
        self.names = frozenset(node.id for node in ast.walk(self._tree) if isinstance(node, ast.Name))
        self._check(self._tree, frozenset(names))

    def __call__(self, values: Mapping[str, Any]) -> bool:
        """Whether the condition holds; unknown counts as no."""
        try:
            return bool(self._value(self._tree, values))
        except (TypeError, ZeroDivisionError, OverflowError) as error:
            raise WhereError(f"the condition {self.text!r} cannot be evaluated: {error}") from None

    def _check(self, node: ast.expr, names: frozenset[str]) -> None:
        match node:
            case ast.Name(id=name):
                if name not in names:
                    known = ", ".join(sorted(names)) or "none"
                    raise WhereError(f"no loop is called {name!r}; the run's loops are: {known}")
            case ast.Constant(value=value) if isinstance(value, (int, float, str)):
                pass
            case (
                ast.BoolOp(values=parts) | ast.Tuple(elts=parts) | ast.List(elts=parts) | ast.Set(elts=parts)
            ):
                for part in parts:
                    self._check(part, names)
            case ast.UnaryOp(op=ast.Not() | ast.USub(), operand=operand):
                self._check(operand, names)
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
                self._check(left, names)
                self._check(right, names)
            case ast.Compare(left=left, ops=ops, comparators=right) if all(
                type(op) in _COMPARE for op in ops
            ):
                self._check(left, names)
                for part in right:
                    self._check(part, names)
            case _:
                raise WhereError(
                    f"{ast.unparse(node)!r} is not allowed in a condition: use loop names, numbers, "
                    "comparisons, + - * / // %, in, and, or, not"
                )

    def _value(self, node: ast.expr, values: Mapping[str, Any]) -> Any:
        match node:
            case ast.Name(id=name):
                return values.get(name)
            case ast.Constant(value=value):
                return value
            case ast.Tuple(elts=parts) | ast.List(elts=parts) | ast.Set(elts=parts):
                return [self._value(part, values) for part in parts]
            case ast.BoolOp(op=op, values=parts):
                return self._connect(isinstance(op, ast.And), [self._value(part, values) for part in parts])
            case ast.UnaryOp(op=op, operand=operand):
                value = self._value(operand, values)
                if value is None:
                    return None
                return (not value) if isinstance(op, ast.Not) else -value
            case ast.BinOp(left=left, op=op, right=right):
                a, b = self._value(left, values), self._value(right, values)
                return None if a is None or b is None else _BINARY[type(op)](a, b)
            case ast.Compare(left=left, ops=ops, comparators=comparators):
                return self._compare(left, ops, comparators, values)
        raise AssertionError(node)

    @staticmethod
    def _connect(both: bool, parts: list[Any]) -> bool | None:
        truths = [None if part is None else bool(part) for part in parts]
        if both:
            return False if False in truths else None if None in truths else True
        return True if True in truths else None if None in truths else False

    def _compare(
        self, left: ast.expr, ops: list[ast.cmpop], right: list[ast.expr], values: Mapping[str, Any]
    ) -> bool | None:
        a = self._value(left, values)
        for op, node in zip(ops, right, strict=True):
            b = self._value(node, values)
            if a is None or b is None:
                return None
            if not _COMPARE[type(op)](a, b):
                return False
            a = b
        return True
