"""Conditions that select iterations: ``epoch in (3, 7) and step % 50 == 0 and loss > 2``.

The text is parsed (`florlog_recovery.condition_syntax`) and evaluated by this module: it is never compiled or passed
to ``eval``, and only the operators of `florlog_recovery.three_valued` exist.  Names are those of loops and logged
values.  If a name has no value in an iteration, a comparison with it is unknown.  Only iterations for which the
condition is true are selected.

The value of a name may be a scalar, or a masked array with an element for each iteration: so a million iterations
take one evaluation.
"""

from __future__ import annotations

import ast
from collections.abc import Collection, Mapping
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from florlog_recovery.condition_syntax import WhereError, check, key_of, read
from florlog_recovery.three_valued import (
    COMPARE,
    FUNCTIONS,
    OneByOne,
    Span,
    calculate,
    connect,
    truth_array,
    truths,
)


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
        self._tree = read(text)
        called: set[ast.expr] = {node.func for node in ast.walk(self._tree) if isinstance(node, ast.Call)}
        terms = [node for node in ast.walk(self._tree) if isinstance(node, ast.Subscript) and state]
        called.update(node.value for node in terms)
        self.keys = frozenset(key_of(node) for node in terms)  # of state[...]
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
        check(self._tree, state=state)

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
        except OneByOne:
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
            raise OneByOne
        with np.errstate(all="ignore"):
            truth = self._value(self._tree, values)
        if isinstance(truth, np.ma.MaskedArray):
            held, known = truths(truth)
            return np.asarray(held & known, dtype=np.bool_)
        return np.full(size, truth is not None and bool(truth))

    def _failed(self, error: Exception) -> WhereError:
        return WhereError(f"the condition {self.text!r} cannot be evaluated: {error}")

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
        return {name: value for name, value in found.items() if name not in FUNCTIONS}

    def _value(self, node: ast.expr, values: Mapping[str, Any]) -> Any:
        match node:
            case ast.Name(id=name):
                return values.get(name)
            case ast.Constant(value=value):
                return value
            case ast.BoolOp(op=op, values=parts):
                return connect(isinstance(op, ast.And), [self._value(part, values) for part in parts])
            case ast.UnaryOp(op=op, operand=operand):
                value = self._value(operand, values)
                if value is None:
                    return None
                if isinstance(op, ast.USub):
                    return calculate(ast.Sub(), 0, value)
                return ~truth_array(value) if isinstance(value, np.ma.MaskedArray) else not value
            case ast.BinOp(left=left, op=op, right=right):
                return calculate(op, self._value(left, values), self._value(right, values))
            case ast.Subscript():
                held: Elements | None = values.get(state_name(key_of(node)))
                return None if held is None else held.single()
            case ast.Call(func=ast.Name(id=name), args=[ast.Subscript() as argument]):
                held = values.get(state_name(key_of(argument)))
                return None if held is None else held.reduce(name)
            case ast.Call(func=ast.Name(id=name), args=[argument]):
                value = self._value(argument, values)
                if value is None:
                    return None
                return FUNCTIONS[name][isinstance(value, np.ma.MaskedArray)](value)
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
            parts.append(None if a is None or b is None else COMPARE[type(op)](a, b))
            a = b
        return parts[0] if len(parts) == 1 else connect(True, parts)

    def _contains(self, node: ast.expr, value: Any, values: Mapping[str, Any]) -> Any:
        match node:
            case ast.Call(func=ast.Name(id=name), args=arguments):
                return self._span(name, [self._value(a, values) for a in arguments]).holds(value)
            case ast.Constant(value=str(text)):
                if isinstance(value, np.ma.MaskedArray):
                    raise OneByOne
                return value in text
            case ast.Tuple(elts=parts) | ast.List(elts=parts) | ast.Set(elts=parts):
                items = [self._value(part, values) for part in parts]
                equal = [None if item is None else value == item for item in items]
                return connect(False, equal) if equal else False
        raise AssertionError(node)

    def _span(self, name: str, numbers: list[Any]) -> Span:
        if any(isinstance(number, np.ma.MaskedArray) for number in numbers):
            raise OneByOne
        if any(number is not None and not isinstance(number, int) for number in numbers):
            raise WhereError(f"{name} in the condition {self.text!r} takes whole numbers")
        start, stop, step = (
            (0, numbers[0], 1) if len(numbers) == 1 else (*numbers, 1) if len(numbers) == 2 else numbers
        )
        if (step is not None and step < 1) or min(start or 0, stop or 0) < 0:
            raise WhereError(
                f"{name} in the condition {self.text!r} counts upwards from 0: --last N selects the last ones"
            )
        return Span(start or 0, stop, 1 if step is None else step)
