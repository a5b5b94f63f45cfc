"""Iterators over DataLoaders with workers: where they are, and what their workers were given.

What the workers have read ahead is not taken.  The live iterator, or a new one, is put to the place of what was handed
out, and gets new workers there (`florlog.state.placed_workers`).
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from florlog.state.heap.graph import Node, Ref
from florlog.state.heap.kinds.base import MISSING, Build, Kind, Walk
from florlog.state.heap.names import constant_name
from florlog.state.placed_workers import (
    PARTS,
    PLACE,
    SETTINGS,
    PlacedIterator,
    obstacle,
    place,
    start_method,
)
from florlog.state.worker_history import COMPACT, Tasks, history_of, streams

_NAME = constant_name(_MultiProcessingDataLoaderIter)


class _Ended(Kind):
    """An iterator that has given all, and whose workers do not stay; ``own``: how much it gave."""

    name = "ended workers"
    immutable = True

    def make(self, build: Build, node: Node, live: Any) -> Any:
        if live is not MISSING and _has_ended(live) and live._send_idx == node.own:
            return live
        kind = build.kind_named(node.name)
        made = kind.__new__(kind)
        made.__dict__.update(
            _sampler_iter=iter(()), _send_idx=node.own, _rcvd_idx=node.own, _shutdown=True, _persistent_workers=False,
            _profile_name=f"enumerate(DataLoader)#{kind.__name__}.__next__",
        )  # fmt: skip
        return made


class _Workers(Kind):
    """``own``: the settings, the place, how workers are started, and of each pass the kind of its indices and how many
    numbers and tasks there are; ``refs``: the parts, all numbers, all sizes, and of each pass the tasks that are no
    numbers.
    """

    name = "workers"

    def take(self, walk: Walk, value: Any) -> Node:
        if _has_ended(value):
            return Node(_ENDED.name, _NAME, value._send_idx)
        if why := obstacle(value):
            return walk.opaque(value, why)
        known = history_of(value)
        assert known is not None
        parts, where = [getattr(value, name) for name in PARTS], [getattr(value, name) for name in PLACE]
        if streams(value):  # how far it has read ahead is a matter of time, and its sampler gives nothing
            parts[-1] = None
            where[1:3] = 0, 0
        numbers, sizes = array("q"), array("q")
        for tasks in known.passes:
            numbers += tasks.numbers
            sizes += tasks.sizes
        kept = [np.array(part, np.int64) for part in (numbers, sizes)]
        for part in kept:
            walk.memory.always_stored(part)
        shapes = [_shape(tasks) for tasks in known.passes]
        settings = [getattr(value, name) for name in SETTINGS]
        own = (*settings, *where, start_method(value), *(part for shape in shapes for part in shape))
        return Node(
            self.name, _NAME, own, walk.refs([*parts, *kept, *(tasks.others for tasks in known.passes)])
        )

    def steps(self, node: Node) -> Iterator[str]:
        yield from (f".{name}" for name in PARTS)
        yield from (".given" for _ in node.refs[len(PARTS) :])

    def pairs(self, node: Node, live: Any) -> Iterable[tuple[Ref, Any]]:
        return [(ref, vars(live).get(name, MISSING)) for ref, name in zip(node.refs, PARTS, strict=False)]

    def make(self, build: Build, node: Node, live: Any) -> Any:
        made = _MultiProcessingDataLoaderIter.__new__(_MultiProcessingDataLoaderIter)
        vars(made)["_shutdown"] = True
        return made

    def fill(self, build: Build, node: Node, held: Any) -> None:
        names = (*SETTINGS, *PLACE)
        method, *shapes = node.own[len(names) :]
        parts, rest = node.refs[: len(PARTS)], node.refs[len(PARTS) :]
        numbers, sizes = (array("q", build.ready(ref).tolist()) for ref in rest[:2])
        passes = []
        for number, ref in enumerate(rest[2:]):
            kind, count, tasks = shapes[3 * number : 3 * number + 3]
            passes.append(Tasks.of(COMPACT.get(kind), numbers[:count], sizes[:tasks], build.ready(ref)))
            numbers, sizes = numbers[count:], sizes[tasks:]
        state = dict(zip(names, node.own, strict=False)) | dict(
            zip(PARTS, map(build.value, parts), strict=True)
        )
        place(held, state, method, passes)


def _shape(tasks: Tasks) -> tuple[str, int, int]:
    kind = "" if tasks.kind is None else tasks.kind.__name__
    return kind, len(tasks.numbers), len(tasks.sizes)


def _has_ended(iterator: Any) -> bool:
    """Whether all was given, of one whose workers do not stay."""
    if iterator._persistent_workers or (isinstance(iterator, PlacedIterator) and streams(iterator)):
        return False
    return bool(iterator._rcvd_idx == iterator._send_idx)


_ENDED, _WORKERS = _Ended(), _Workers()
ENDED_WORKERS = _ENDED
WORKERS: tuple[tuple[Any, Kind], ...] = ((_MultiProcessingDataLoaderIter, _WORKERS),)
