"""Logged values that are still on a GPU: their commits wait in line, the training does not.

Reading a CUDA tensor makes the host wait for all work that is queued before it.  So the tensor is copied to pinned
memory in its stream's order, and the commit is appended once the copy has arrived: looked for at each later commit,
waited for when a record comes that others refer to (a loop, an image, the end) or when `LINE` commits wait.  Records
keep their order.  What waits is lost with the process: at a kill, up to `LINE` iterations are redone.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, Protocol

import torch

from ._tree import plain

LINE = 64

Values = Iterable[tuple[int, str, Any]]


class Event(Protocol):
    """What tells that work on a device is done, as `torch.cuda.Event`."""

    def query(self) -> bool:
        """Whether it is."""

    def synchronize(self) -> None:
        """Wait until it is."""


class Later(NamedTuple):
    """A tensor on its way to the host."""

    copy: torch.Tensor
    arrived: Event


def later(tensor: torch.Tensor) -> Later:
    """Copy a CUDA tensor to pinned memory, as it is at this place of its stream."""
    with torch.no_grad(), torch.cuda.device(tensor.device):
        copy = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
        copy.copy_(tensor, non_blocking=True)
        event = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
        event.record()
    return Later(copy, event)


def arrived(values: Values) -> list[tuple[int, str, Any]]:
    """The values, with those waited for that are on their way."""
    return [(statement, name, _value(held)) for statement, name, held in values]


def _value(held: Any) -> Any:
    if type(held) is not Later:
        return held
    held.arrived.synchronize()
    return plain(held.copy)


class Line:
    """Commits in order, the first of which wait for values."""

    def __init__(self, append: Callable[[Values, tuple[Any, ...]], None]) -> None:
        self._append = append  # takes the values of a commit, and the rest of it
        self._waiting: deque[tuple[list[tuple[int, str, Any]], tuple[Any, ...]]] = deque()

    def put(self, values: Values, rest: tuple[Any, ...]) -> None:
        """Append a commit, and those before it, as far as their values have arrived."""
        self._waiting.append((list(values), rest))
        while self._waiting and (len(self._waiting) > LINE or self._ready(self._waiting[0][0])):
            self._next()

    def settle(self) -> None:
        """Wait for everything in line, and append it."""
        while self._waiting:
            self._next()

    def _next(self) -> None:
        values, rest = self._waiting.popleft()
        self._append(arrived(values), rest)

    @staticmethod
    def _ready(values: Values) -> bool:
        return all(type(held) is not Later or held.arrived.query() for _, _, held in values)
