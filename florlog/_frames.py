"""Loop-carried variables: what a loop's body changes in its function and a later iteration reads.

Tracked objects are only a part of the state; ``best = max(best, accuracy)`` lives in a local variable.
When an image is taken, the names that source analysis finds to be carried at that place
(`florlog.source.carried_names`) are captured if they are plain values, containers of them, tensors or
arrays; when it is restored they are put back into the running frame, as a debugger would.  Other objects
are left as the replayed code made them; if they matter, fingerprints tell.
"""

from __future__ import annotations

import ctypes
import linecache
import sys
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping
from types import CodeType, FrameType
from typing import Any

import numpy as np
import torch

from ._inplace import put_back
from .source.liveness import carried_names

_PLAIN = (type(None), bool, int, float, complex, str, bytes)
_LIMIT = 100_000


def frame_of(code: CodeType) -> FrameType | None:
    """The innermost running frame of a code object."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code is not code:
        frame = frame.f_back
    return frame


def call_stack(frame: FrameType, outermost: CodeType | None) -> tuple[tuple[str, str, int], ...]:
    """Source positions from ``frame`` outwards, up to the frame that runs ``outermost``."""
    stack = []
    current: FrameType | None = frame
    while current is not None:
        code = current.f_code
        stack.append((code.co_filename, code.co_qualname, current.f_lineno))
        if code is outermost:
            break
        if outermost is None and code.co_name == "<module>":
            break
        current = current.f_back
    return tuple(stack)


class Carried:
    """Finds, captures and restores the carried variables of running frames."""

    def __init__(self) -> None:
        self._names: dict[tuple[CodeType, int], frozenset[str]] = {}

    def _carried(self, code: CodeType, line: int) -> frozenset[str]:
        key = (code, line)
        if key not in self._names:
            text = "".join(linecache.getlines(code.co_filename))
            self._names[key] = carried_names(text, code.co_qualname, code.co_firstlineno, line)
        return self._names[key]

    def capture(
        self, places: Mapping[CodeType, int | None], tracked: Collection[int], storages: Collection[int]
    ) -> dict[str, dict[str, Any]]:
        """The carried variables by frame; ``places`` are code objects and the lines they stand at.

        None stands for the line that the frame executes.

        Objects whose id is in ``tracked``, and tensors that share memory with ``storages``, are tracked
        elsewhere and left out.
        """
        found: dict[str, dict[str, Any]] = {}
        for code, line in places.items():
            frame = frame_of(code)
            if frame is None:
                continue
            names = self._carried(code, frame.f_lineno if line is None else line)
            variables = frame.f_locals
            held = {}
            for name in sorted(names):
                if name not in variables or id(variables[name]) in tracked:
                    continue
                value = variables[name]
                if _capturable(value, storages):
                    held[name] = value
            found[f"locals {code.co_qualname}"] = held
        return found

    @staticmethod
    def restore(places: Iterable[CodeType], saved: dict[str, dict[str, Any]]) -> None:
        """Put captured variables back into the running frames."""
        for code in places:
            frame = frame_of(code)
            values = saved.get(f"locals {code.co_qualname}")
            if frame is not None and values:
                _write(frame, values)


def _write(frame: FrameType, values: dict[str, Any]) -> None:
    variables = frame.f_locals
    for name, value in values.items():
        variables[name] = put_back(variables.get(name), value)
    if sys.version_info < (3, 13):
        # Before PEP 667 a frame's f_locals is a copy, written back by this call (pdb does the same).
        ctypes.pythonapi.PyFrame_LocalsToFast(ctypes.py_object(frame), ctypes.c_int(0))


def _leaves(value: Any, budget: list[int]) -> Iterator[Any]:
    budget[0] -= 1
    if budget[0] < 0:
        yield object()  # too large to capture: not a plain value
        return
    if isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from _leaves(item, budget)
    elif isinstance(value, (list, tuple, set, frozenset, deque)):
        for item in value:
            yield from _leaves(item, budget)
    else:
        yield value


def _capturable(value: Any, storages: Collection[int]) -> bool:
    exact = (list, tuple, dict, set, frozenset, deque)
    if isinstance(value, exact) and type(value) not in exact:
        return False
    for leaf in _leaves(value, [_LIMIT]):
        if isinstance(leaf, torch.Tensor):
            if isinstance(leaf, torch.nn.Parameter) or leaf.untyped_storage().data_ptr() in storages:
                return False
        elif isinstance(leaf, np.ndarray):
            if leaf.dtype.kind not in "biufc":
                return False
        elif not isinstance(leaf, (*_PLAIN, np.generic)) or type(leaf).__module__ not in (
            "builtins",
            "numpy",
        ):
            return False
    return True
