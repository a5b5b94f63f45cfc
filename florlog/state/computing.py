"""Whether what gives the items of a loop only computes: from its own attributes and from generators that are state.

It is read from the code that would run: the methods of a data set, the program's functions that they name, and what the
object's attributes hold that is called.  What cannot be followed, such as a method of an object in a local variable
that no known kind of data has, counts as reading something from outside.
"""

from __future__ import annotations

import builtins
import dis
import random
import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping, ValuesView
from contextlib import suppress
from types import BuiltinMethodType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch

from florlog.source.names.outside import (
    CLOCK_METHODS,
    COMPUTING_LIBRARIES,
    READING_METHODS,
    SEEDED,
    outside,
    public_name,
)
from florlog.source.skip.marks import MUTATORS
from florlog.state.codes import codes_in
from florlog.state.user_code import is_user_class, is_user_file

_DATA: tuple[type, ...] = (
    torch.Tensor, torch.Generator, torch.Size, np.ndarray, np.generic, np.random.Generator, np.random.RandomState,
    random.Random, str, bytes, bytearray, int, float, complex, list, tuple, dict, set, frozenset, deque, range, slice,
)  # fmt: skip
_METHODS = frozenset(name for kind in _DATA for name in dir(kind)) - {
    "seed",
    "initial_seed",
    "tofile",
    "dump",
}
"""What objects of these kinds do by themselves; but for generators that are given a seed by the system."""
_READING = READING_METHODS | CLOCK_METHODS | {"imread", "memmap"}
"""Attributes by which something is read, whatever they belong to."""
_CHANGING = frozenset(
    {
        "STORE_ATTR",
        "DELETE_ATTR",
        "STORE_GLOBAL",
        "DELETE_GLOBAL",
        "STORE_SUBSCR",
        "STORE_SLICE",
        "DELETE_SUBSCR",
    }
)
_IGNORED = ("PRECALL", "PUSH_NULL", "CACHE")


def computes(owner: Any, methods: tuple[str, ...], *, steady: bool = False) -> bool:
    """Whether these methods of an object of the program's own class only compute; False if it has none of them.

    ``steady``: and change nothing that outlives a call.
    """
    held = [vars(base).get(name) for base in type(owner).__mro__ if is_user_class(base) for name in methods]
    functions = [function for function in held if function is not None]
    return bool(functions) and _Reading(owner, steady=steady).computes(*functions)


def function_computes(function: Any, *, steady: bool = False) -> bool:
    """The same of a function, or of another object that is called."""
    return _Reading(None, steady=steady).computes(function)


class _Reading:
    """Follows code from some functions on; ``owner``: the object whose methods they are."""

    def __init__(self, owner: Any, *, steady: bool) -> None:
        self._owner = owner
        self._steady = steady
        self._pending: list[Any] = []
        self._seen: set[int] = set()

    def computes(self, *called: Any) -> bool:
        """Whether all of these only compute."""
        self._pending += called
        while self._pending:
            held = self._pending.pop()
            if id(held) not in self._seen:
                self._seen.add(id(held))
                if not self._is_harmless(held):
                    return False
        return True

    def _is_harmless(self, held: Any) -> bool:
        """Whether what is called only computes, apart from what this adds to what is looked at."""
        if isinstance(held, (staticmethod, classmethod, MethodType)):
            held = held.__func__
        if isinstance(held, property):
            held = held.fget
        if isinstance(held, FunctionType) and is_user_file(held.__code__.co_filename):
            self._pending += [value for value in _closed_over(held) if callable(value)]
            return all(self._code_computes(code, held.__globals__) for code in codes_in(held.__code__))
        if isinstance(held, BuiltinMethodType) and isinstance(held.__self__, _DATA):
            return held.__name__ in _METHODS
        if isinstance(held, type) or hasattr(held, "__name__"):
            return _is_of_computing_library(held) and not outside(public_name(_name_of(held)))
        return self._is_harmless_object(held)

    def _is_harmless_object(self, held: Any) -> bool:
        """The same of an object with ``__call__``, such as a transform, and of what it is made of."""
        kind: Any = type(held)
        if is_user_class(kind):
            return computes(held, ("__call__", "forward"), steady=self._steady)
        if not _is_of_computing_library(kind):
            return False
        for value in getattr(held, "__dict__", {}).values():
            inside = value.values() if isinstance(value, Mapping) else value
            parts = inside if isinstance(inside, (list, tuple, ValuesView)) else [value]
            self._pending += [part for part in parts if callable(part)]
        return True

    def _code_computes(self, code: CodeType, names: Mapping[str, Any]) -> bool:
        at = ""  # the dotted name of what was loaded last, as far as it is a library's
        steps = [step for step in dis.get_instructions(code) if step.opname not in _IGNORED]
        for step, following in zip(steps, [*steps[1:], None], strict=True):
            if self._steady and step.opname in _CHANGING:
                return False
            if step.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
                held = names.get(step.argval, getattr(builtins, step.argval, None))
                if isinstance(held, ModuleType):
                    if not _is_of_computing_library(held):
                        return False
                    at = held.__name__
                else:
                    at = _name_of(held) if callable(held) and hasattr(held, "__name__") else ""
                    if callable(held):
                        self._pending.append(held)
            elif step.opname in ("LOAD_ATTR", "LOAD_METHOD", "LOAD_SUPER_ATTR"):
                called = step.opname == "LOAD_METHOD" or (
                    sys.version_info >= (3, 12) and bool((step.arg or 0) & 1)
                )
                if not at and not self._attribute_computes(step.argval, called=called):
                    return False
                at = at and f"{at}.{step.argval}"
            else:
                at = ""
            unseeded = following is not None and following.opname == "CALL" and following.arg == 0
            if at and (outside(public_name(at)) or (unseeded and public_name(at) in SEEDED)):
                return False
        return True

    def _attribute_computes(self, name: str, *, called: bool) -> bool:
        """An attribute of some object is read: the owner's own is followed."""
        if name in _READING or (self._steady and called and name in MUTATORS):
            return False
        own = getattr(self._owner, "__dict__", {}).get(name)
        if own is None:
            classes = (base for base in type(self._owner).__mro__ if is_user_class(base))
            own = next((vars(base)[name] for base in classes if name in vars(base)), None)
        if callable(own) or isinstance(own, (staticmethod, classmethod, property)):
            self._pending.append(own)
            return True
        return not called or name in _METHODS or self._has_no_other(own, name)

    def _has_no_other(self, own: Any, name: str) -> bool:
        """Whether a name that is called is the owner's own, which is None there: the call is not executed."""
        return own is None and name in getattr(self._owner, "__dict__", {})


def _closed_over(function: FunctionType) -> Iterator[Any]:
    """What the function's free variables hold; a class's own name for itself aside."""
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        with suppress(ValueError):  # it has no value yet
            if name != "__class__":
                yield cell.cell_contents


def _name_of(held: Callable[..., Any]) -> str:
    return f"{held.__module__ or 'builtins'}.{held.__name__}"


def _is_of_computing_library(held: Any) -> bool:
    module = (
        held.__name__ if isinstance(held, ModuleType) else getattr(held, "__module__", None) or "builtins"
    )
    return module.partition(".")[0] in COMPUTING_LIBRARIES | {"builtins"}
