"""PyTorch Lightning's ``Timer``, which ends a training after so much time, as ``Trainer(max_time=...)`` does.

It keeps when each stage began, by a clock that means nothing in another process.  So an image has how long each stage
took, as Lightning's own checkpoints do: a resumed training has the time left that the killed one had.
"""

from __future__ import annotations

import functools
import time
from typing import Any

from florlog.state.heap.graph import Node
from florlog.state.heap.kinds.base import Build, Kind, Walk

_CLOCKS = frozenset({"_start_time", "_end_time", "_offset"})


class _Timer(Kind):
    """``own``: name, seconds so far, and whether it has ended, of each stage that has begun."""

    name = "lightning timer"
    described_as = "a timer"

    def take(self, walk: Walk, value: Any) -> Node:
        took = [
            (stage.name, float(value.time_elapsed(stage)), value._end_time[stage] is not None)
            for stage, began in value._start_time.items()
            if began is not None
        ]
        held = {name: part for name, part in vars(value).items() if name not in _CLOCKS}
        return Node(self.name, walk.class_name(value), took, (), walk.attributes(value, held))

    def compared(self, node: Node) -> Any:
        return [(name, ended) for name, _, ended in node.own]

    def fill(self, build: Build, node: Node, held: Any) -> None:
        build.put(held, node.attributes, _CLOCKS)
        now = time.monotonic()
        took = {name: (seconds, ended) for name, seconds, ended in node.own}
        for stage in held._start_time:
            seconds, ended = took.get(stage.name, (None, False))
            held._start_time[stage] = None if seconds is None else now - seconds
            held._end_time[stage] = now if ended else None
        held._offset = 0


TIMER = _Timer()
_CLASSES = {f"{package}.callbacks.timer.Timer" for package in ("lightning.pytorch", "pytorch_lightning")}


@functools.cache
def timer_kind(kind: Any) -> Kind | None:
    """The kind of the timers of Lightning, which is not imported for that."""
    names = {f"{base.__module__}.{base.__qualname__}" for base in kind.__mro__}
    return TIMER if names & _CLASSES else None
