"""Arithmetic and logic in which a value may be unknown, over scalars and over masked arrays.

Unknown is None as a scalar and a masked element of an array.  It propagates like NULL in SQL; so does a division by
zero.
"""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
FUNCTIONS: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {  # of a scalar, of an array
    "abs": (abs, np.abs),
    "isfinite": (math.isfinite, np.isfinite),
    "isinf": (math.isinf, np.isinf),
    "isnan": (math.isnan, np.isnan),
}


class OneByOne(Exception):  # noqa: N818 - not an error
    """Arrays cannot do this: it must be evaluated row by row."""


@dataclass(frozen=True, slots=True)
class Span:
    """Integers from ``start`` in steps of ``step``, below ``stop`` unless that is None."""

    start: int
    stop: int | None
    step: int

    def holds(self, value: Any) -> Any:
        """Whether a value, or each of an array, is one of them."""
        offset = calculate(ast.Sub(), value, self.start)
        inside = (offset >= 0) & (calculate(ast.Mod(), offset, self.step) == 0)
        return inside if self.stop is None else inside & (value < self.stop)


def calculate(op: ast.operator, a: Any, b: Any) -> Any:
    """The result of an operator.  Raises `OneByOne`, and whatever Python's operator raises for such operands."""
    if a is None or b is None:
        return None
    if not isinstance(a, np.ma.MaskedArray) and not isinstance(b, np.ma.MaskedArray):
        try:
            return BINARY[type(op)](a, b)
        except ZeroDivisionError:
            return None
    if isinstance(op, ast.Mult) and _largest(a) * _largest(b) > 2**62:
        raise OneByOne  # Python's integers are unbounded, those of an array are not
    # np.ma's own operators are not used: its division masks results that are not finite, and small divisors.
    left, right = _numbers(a), _numbers(b)
    unknown = np.ma.getmaskarray(np.ma.asarray(a)) | np.ma.getmaskarray(np.ma.asarray(b))
    if isinstance(op, (ast.Div, ast.FloorDiv, ast.Mod)):
        unknown = unknown | (right == 0)
        right = np.where(right == 0, 1, right)
    return np.ma.MaskedArray(BINARY[type(op)](left, right), unknown)


def _numbers(value: Any) -> Any:
    """An operand's data; truths count as 0 and 1."""
    data = np.asarray(np.ma.getdata(value))
    return data.astype(np.int64) if data.dtype == np.bool_ else data


def _largest(value: Any) -> int:
    held = np.ma.asarray(value)
    return int(abs(held).max() or 0) if held.dtype.kind in "iu" and held.count() else 0


def truth_array(value: Any) -> Any:
    """An array as truths, as Python sees its numbers."""
    return value if value.dtype == np.bool_ else value != 0


def truths(value: Any) -> tuple[Any, Any]:
    """Where a condition is true (arbitrary where it is unknown), and where it is known."""
    if isinstance(value, np.ma.MaskedArray):
        return np.ma.getdata(truth_array(value)), ~np.ma.getmaskarray(value)
    return (False, False) if value is None else (bool(value), True)


def connect(both: bool, parts: list[Any]) -> Any:
    """The conjunction (``both``) or the disjunction of three-valued truths."""
    decided: Any = False  # by one part alone: false in a conjunction, true in a disjunction
    known: Any = True
    for held, sure in map(truths, parts):
        decided = decided | (sure & (held != both))
        known = known & sure
    if not isinstance(decided, np.ndarray) and not isinstance(known, np.ndarray):
        return (not both) if decided else both if known else None
    return np.ma.MaskedArray(decided != both, ~(decided | known))
