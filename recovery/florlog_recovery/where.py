"""Conditions that select iterations: ``epoch in (3, 7) and step % 50 == 0 and loss > 2``.

The text is parsed with `ast` and evaluated by this module: it is never compiled or passed to
``eval``, and only the operators below exist.  Names are those of loops and logged values.  If a name has no value in
an iteration, a comparison with it is unknown, as is a division by zero; unknown propagates like NULL in SQL.
Only iterations for which the condition is true are selected.

``step in [10:20]`` means ``step in range(10, 20)``; either end may be open (`_sliced`).

The value of a name may be a scalar, or a masked array with an element for each iteration: so a million iterations
take one evaluation.
"""

from __future__ import annotations

import ast
import io
import math
import operator
import tokenize
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt


class WhereError(ValueError):
    """The condition cannot be used; the message says which part and what is possible."""


_COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
_BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
_FUNCTIONS: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {  # of a scalar, of an array
    "abs": (abs, np.ma.abs),
    "isfinite": (math.isfinite, np.isfinite),
    "isinf": (math.isinf, np.isinf),
    "isnan": (math.isnan, np.isnan),
}
REDUCTIONS = frozenset({"norm", "min", "max", "mean"})
"""Functions of ``state[...]`` alone."""

_SPAN_MAX_ARGUMENTS = {"range": 3, "slice": 3}


class _Scalars(Exception):  # noqa: N818 - not an error
    """Arrays cannot do this: it must be evaluated row by row."""


@dataclass(frozen=True, slots=True)
class _Span:
    """Integers from ``start`` in steps of ``step``, below ``stop`` unless that is None."""

    start: int
    stop: int | None
    step: int

    def holds(self, value: Any) -> Any:
        offset = _binary(ast.Sub(), value, self.start)
        inside = (offset >= 0) & (_binary(ast.Mod(), offset, self.step) == 0)
        return inside if self.stop is None else inside & (value < self.stop)


class Elements(Protocol):
    """The numbers that ``state['model.weight']`` stands for."""

    def single(self) -> Any:
        """The number, if there is just one; raises ValueError otherwise."""

    def reduce(self, function: str) -> Any:
        """A function of all of them."""


def state_name(key: str) -> str:
    """The name under which the values of a condition have the `Elements` of ``state[key]``."""
    return f"state[{key!r}]"


class Condition:
    """A parsed condition over the names ``loops`` and ``logged``, and with ``state`` over ``state['model.weight']``.

    Raises `WhereError` for anything that it does not know.
    """

    def __init__(
        self, text: str, loops: Collection[str], logged: Collection[str] = (), *, state: bool = False
    ) -> None:
        self.text = text
        self._state = state
        try:
            self._tree = ast.parse(_sliced(text.strip()), mode="eval").body
        except (SyntaxError, ValueError, RecursionError, MemoryError, tokenize.TokenError) as error:
            raise WhereError(f"cannot read the condition {text!r}: {error}") from None
        called: set[ast.expr] = {node.func for node in ast.walk(self._tree) if isinstance(node, ast.Call)}
        terms = [node for node in ast.walk(self._tree) if isinstance(node, ast.Subscript) and state]
        called.update(node.value for node in terms)
        self.keys = frozenset(self._key(node) for node in terms)  # of state[...]
        self.names = frozenset(
            node.id for node in ast.walk(self._tree) if isinstance(node, ast.Name) and node not in called
        )
        for name in sorted(self.names - set(loops) - set(logged)):
            known = "; ".join(
                f"{what}: {', '.join(sorted(names))}"
                for what, names in (("loops", loops), ("logged values", logged))
                if names
            )
            raise WhereError(
                f"no loop or logged value is called {name!r}; the run has {known or 'neither loops nor values'}"
            )
        self._check(self._tree)

    def __call__(self, values: Mapping[str, Any]) -> bool:
        """Whether the condition holds for the values of the names; unknown counts as no.

        Raises `WhereError` if the values do not fit the condition.
        """
        try:
            truth = self._value(self._tree, values)
            return truth is not None and bool(truth)
        except (TypeError, OverflowError, ValueError) as error:
            raise self._failed(error) from None

    def select(self, values: Mapping[str, Any], size: int) -> npt.NDArray[np.bool_]:
        """For which of ``size`` iterations the condition holds, as an array of ``size`` bools.

        A value is a scalar, None for unknown, or a masked array with an element for each iteration.  Raises
        `WhereError` if the values do not fit the condition.
        """
        try:
            return self._select(values, size)
        except _Scalars:
            rows = {  # a masked element is None
                name: value.tolist() for name, value in values.items() if isinstance(value, np.ma.MaskedArray)
            }
            found = (
                self({**values, **{name: row[index] for name, row in rows.items()}}) for index in range(size)
            )
            return np.fromiter(found, dtype=np.bool_, count=size)
        except (TypeError, OverflowError, ValueError) as error:
            raise self._failed(error) from None

    def _select(self, values: Mapping[str, Any], size: int) -> npt.NDArray[np.bool_]:
        if any(getattr(value, "dtype", None) == np.dtype(object) for value in values.values()):
            raise _Scalars
        with np.errstate(all="ignore"):
            truth = self._value(self._tree, values)
        if isinstance(truth, np.ma.MaskedArray):
            held, known = _truths(truth)
            return np.asarray(held & known, dtype=np.bool_)
        return np.full(size, truth is not None and bool(truth))

    def _failed(self, error: Exception) -> WhereError:
        return WhereError(f"the condition {self.text!r} cannot be evaluated: {error}")

    def _check(self, node: ast.expr) -> None:
        match node:
            case ast.Name():
                pass
            case ast.Constant(value=value) if isinstance(value, (int, float, str)):
                pass
            case (
                ast.BoolOp(values=parts) | ast.Tuple(elts=parts) | ast.List(elts=parts) | ast.Set(elts=parts)
            ):
                for part in parts:
                    self._check(part)
            case ast.UnaryOp(op=ast.Not() | ast.USub(), operand=operand):
                self._check(operand)
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
                self._check(left)
                self._check(right)
            case ast.Compare(left=left, ops=ops, comparators=comparators):
                self._check(left)
                for compare, right in zip(ops, comparators, strict=True):
                    if isinstance(compare, (ast.In, ast.NotIn)):
                        self._check_container(right)
                    elif type(compare) in _COMPARE:
                        self._check(right)
                    else:
                        raise self._forbidden(node)
            case ast.Call(func=ast.Name(id=name), args=[argument], keywords=[]) if name in _FUNCTIONS:
                self._check(argument)
            case ast.Call(func=ast.Name(id=name), args=[ast.Subscript() as argument], keywords=[]) if (
                name in REDUCTIONS and self._state
            ):
                self._check(argument)
            case ast.Subscript() if self._state:
                pass  # its key has been read
            case _:
                raise self._forbidden(node)

    def _key(self, node: ast.Subscript) -> str:
        match node:
            case ast.Subscript(value=ast.Name(id="state"), slice=ast.Constant(value=str(key))):
                return key
        raise self._forbidden(node)

    def terms(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The values of the condition's names, and of its functions of states: text -> value."""
        found: dict[str, Any] = {}
        pending = [self._tree]
        while pending:
            node = pending.pop(0)
            match node:
                case ast.Name() | ast.Subscript() | ast.Call(args=[ast.Subscript()]):
                    found[ast.unparse(node)] = self._value(node, values)
                case _:
                    pending.extend(
                        child for child in ast.iter_child_nodes(node) if isinstance(child, ast.expr)
                    )
        return {name: value for name, value in found.items() if name not in _FUNCTIONS}

    def _check_container(self, node: ast.expr) -> None:
        match node:
            case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]) if name in _SPAN_MAX_ARGUMENTS:
                if not 1 <= len(arguments) <= _SPAN_MAX_ARGUMENTS[name]:
                    raise WhereError(f"{name} takes one to three numbers: {ast.unparse(node)!r}")
                for argument in arguments:
                    if not (isinstance(argument, ast.Constant) and argument.value is None):
                        self._check(argument)
            case ast.Tuple() | ast.List() | ast.Set():
                self._check(node)
            case ast.Constant(value=str()):
                pass
            case _:
                raise WhereError(
                    f"{ast.unparse(node)!r} cannot come after 'in': use (3, 7), range(10, 20) or [10:20]"
                )

    def _more(self) -> str:
        if not self._state:
            return ""
        return f", state['model.weight'], and {', '.join(sorted(REDUCTIONS))} of that"

    def _forbidden(self, node: ast.expr) -> WhereError:
        return WhereError(
            f"{ast.unparse(node)!r} is not allowed in a condition: use names of loops and logged values, numbers, "
            f"comparisons, + - * / // %, in, and, or, not, {', '.join(sorted(_FUNCTIONS))}{self._more()}"
        )

    def _value(self, node: ast.expr, values: Mapping[str, Any]) -> Any:
        match node:
            case ast.Name(id=name):
                return values.get(name)
            case ast.Constant(value=value):
                return value
            case ast.BoolOp(op=op, values=parts):
                return _connect(isinstance(op, ast.And), [self._value(part, values) for part in parts])
            case ast.UnaryOp(op=op, operand=operand):
                value = self._value(operand, values)
                if value is None:
                    return None
                if isinstance(op, ast.USub):
                    return _binary(ast.Sub(), 0, value)
                return ~_truth_array(value) if isinstance(value, np.ma.MaskedArray) else not value
            case ast.BinOp(left=left, op=op, right=right):
                return _binary(op, self._value(left, values), self._value(right, values))
            case ast.Subscript():
                held: Elements | None = values.get(state_name(self._key(node)))
                return None if held is None else held.single()
            case ast.Call(func=ast.Name(id=name), args=[ast.Subscript() as argument]):
                held = values.get(state_name(self._key(argument)))
                return None if held is None else held.reduce(name)
            case ast.Call(func=ast.Name(id=name), args=[argument]):
                value = self._value(argument, values)
                if value is None:
                    return None
                return _FUNCTIONS[name][isinstance(value, np.ma.MaskedArray)](value)
            case ast.Compare(left=left, ops=ops, comparators=comparators):
                return self._compare(left, ops, comparators, values)
        raise AssertionError(node)

    def _compare(
        self, left: ast.expr, ops: list[ast.cmpop], right: list[ast.expr], values: Mapping[str, Any]
    ) -> Any:
        a, parts = self._value(left, values), []
        for op, node in zip(ops, right, strict=True):
            if isinstance(op, (ast.In, ast.NotIn)):
                held = None if a is None else self._contains(node, a, values)
                if isinstance(op, ast.NotIn) and held is not None:
                    held = ~held if isinstance(held, np.ma.MaskedArray) else not held
                parts.append(held)
                continue
            b = self._value(node, values)
            parts.append(None if a is None or b is None else _COMPARE[type(op)](a, b))
            a = b
        return parts[0] if len(parts) == 1 else _connect(True, parts)

    def _contains(self, node: ast.expr, value: Any, values: Mapping[str, Any]) -> Any:
        match node:
            case ast.Call(func=ast.Name(id=name), args=arguments):
                return self._span(name, [self._value(a, values) for a in arguments]).holds(value)
            case ast.Constant(value=str(text)):
                if isinstance(value, np.ma.MaskedArray):
                    raise _Scalars
                return value in text
            case ast.Tuple(elts=parts) | ast.List(elts=parts) | ast.Set(elts=parts):
                items = [self._value(part, values) for part in parts]
                equal = [None if item is None else value == item for item in items]
                return _connect(False, equal) if equal else False
        raise AssertionError(node)

    def _span(self, name: str, numbers: list[Any]) -> _Span:
        if any(isinstance(number, np.ma.MaskedArray) for number in numbers):
            raise _Scalars
        if any(number is not None and not isinstance(number, int) for number in numbers):
            raise WhereError(f"{name} in the condition {self.text!r} takes whole numbers")
        start, stop, step = (
            (0, numbers[0], 1) if len(numbers) == 1 else (*numbers, 1) if len(numbers) == 2 else numbers
        )
        if (step is not None and step < 1) or min(start or 0, stop or 0) < 0:
            raise WhereError(
                f"{name} in the condition {self.text!r} counts upwards from 0: --last N selects the last ones"
            )
        return _Span(start or 0, stop, 1 if step is None else step)


def _binary(op: ast.operator, a: Any, b: Any) -> Any:
    if a is None or b is None:
        return None
    if not isinstance(a, np.ma.MaskedArray) and not isinstance(b, np.ma.MaskedArray):
        try:
            return _BINARY[type(op)](a, b)
        except ZeroDivisionError:
            return None
    if isinstance(op, ast.Mult) and _largest(a) * _largest(b) > 2**62:
        raise _Scalars  # Python's integers are unbounded, those of an array are not
    # np.ma's own operators are not used: its division masks results that are not finite, and small divisors.
    left, right = _numbers(a), _numbers(b)
    unknown = np.ma.getmaskarray(np.ma.asarray(a)) | np.ma.getmaskarray(np.ma.asarray(b))
    if isinstance(op, (ast.Div, ast.FloorDiv, ast.Mod)):
        unknown = unknown | (right == 0)
        right = np.where(right == 0, 1, right)
    return np.ma.MaskedArray(_BINARY[type(op)](left, right), unknown)


def _numbers(value: Any) -> Any:
    """An operand's data; truths count as 0 and 1."""
    data = np.asarray(np.ma.getdata(value))
    return data.astype(np.int64) if data.dtype == np.bool_ else data


def _largest(value: Any) -> int:
    held = np.ma.asarray(value)
    return int(abs(held).max() or 0) if held.dtype.kind in "iu" and held.count() else 0


def _truth_array(value: Any) -> Any:
    return value if value.dtype == np.bool_ else value != 0


def _truths(value: Any) -> tuple[Any, Any]:
    """Where a condition is true (arbitrary where it is unknown), and where it is known."""
    if isinstance(value, np.ma.MaskedArray):
        return np.ma.getdata(_truth_array(value)), ~np.ma.getmaskarray(value)
    return (False, False) if value is None else (bool(value), True)


def _connect(both: bool, parts: list[Any]) -> Any:
    """The conjunction (``both``) or the disjunction of three-valued truths."""
    truths = [_truths(part) for part in parts]
    decided: Any = False  # by one part alone: false in a conjunction, true in a disjunction
    known: Any = True
    for held, sure in truths:
        decided = decided | (sure & (held != both))
        known = known & sure
    if not isinstance(decided, np.ndarray) and not isinstance(known, np.ndarray):
        return (not both) if decided else both if known else None
    return np.ma.MaskedArray(decided != both, ~(decided | known))


def _sliced(text: str) -> str:
    """The text with ``in [a:b:c]`` written as ``in slice(a, b, c)``."""
    tokens = list(tokenize.generate_tokens(io.StringIO(text).readline))
    cuts: list[tuple[int, int, str]] = []
    for position, token in enumerate(tokens[:-1]):
        if token.string != "in" or tokens[position + 1].string != "[":
            continue
        opened, depth, parts, colon = tokens[position + 1], 0, [""], False
        for inner in tokens[position + 1 :]:
            depth += (inner.string in "([{") - (inner.string in ")]}") if inner.type == tokenize.OP else 0
            if depth == 0:
                if colon:
                    numbers = ", ".join(part.strip() or "None" for part in parts)
                    cuts.append((opened.start[1], inner.end[1], f"slice({numbers})"))
                break
            if depth == 1 and inner.string == ":":
                colon = True
                parts.append("")
            elif inner is not opened:
                parts[-1] += inner.string + " "
    for start, stop, replacement in reversed(cuts):
        text = text[:start] + replacement + text[stop:]
    return text
