"""Logged values that are still on a GPU: their commits are held, the training does not wait.

Reading a CUDA tensor makes the host wait for all work that is queued before it.  So the tensor is copied to pinned
memory in its stream's order, and the commit is appended once the copy has arrived.  Each later commit looks whether it
has; a record that others refer to (of a loop, an image, the end) waits for it, and so does the commit that comes when
`MAX_WAITING_COMMITS` are held.  Records keep their order.  What is held is lost with the process: at a kill, up to
`MAX_WAITING_COMMITS` iterations are redone.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple, Protocol

import torch
from florlog_wal import CommitFields

from florlog.state.logged_values import plain

MAX_WAITING_COMMITS = 64

ValueTuples = Iterable[tuple[int, str, Any]]


class DeviceEvent(Protocol):
    """Says when work on a device is done, as `torch.cuda.Event`."""

    def query(self) -> bool:
        """Whether it is."""

    def synchronize(self) -> None:
        """Wait until it is."""


class Later(NamedTuple):
    """A tensor on its way to the host."""

    copy: torch.Tensor
    arrived: DeviceEvent


def later(tensor: torch.Tensor) -> Later:
    """Copy a CUDA tensor to pinned memory, as it is at this point of its stream."""
    with torch.no_grad(), torch.cuda.device(tensor.device):
        copy = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
        copy.copy_(tensor, non_blocking=True)
        event = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
        event.record()
    return Later(copy, event)


def arrived(values: ValueTuples) -> list[tuple[int, str, Any]]:
    """The values; those on their way are waited for."""
    return [(statement, name, _value(held)) for statement, name, held in values]


def _value(held: Any) -> Any:
    if type(held) is not Later:
        return held
    held.arrived.synchronize()
    return plain(held.copy)


def receive(held: list[CommitFields], *, wait: bool) -> int:
    """Put arrived values in their places; the number of commits at the front of which all values have arrived.

    ``wait``: wait until the values of all commits have.
    """
    for place, fields in enumerate(held):
        loop, index, segment, values, *rest = fields
        if not (wait or len(held) - place > MAX_WAITING_COMMITS or _ready(values)):
            return place
        held[place] = (loop, index, segment, arrived(values), *rest)  # type: ignore[assignment]
    return len(held)


def _ready(values: ValueTuples) -> bool:
    return all(type(held) is not Later or held.arrived.query() for _, _, held in values)
