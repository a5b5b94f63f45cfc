"""A cursor over a loop's iterable that can go on at any index without loading what it skips.

Ranges and sequences are indexed.  Of a DataLoader the sampler is drawn from exactly as before, but no skipped
item is loaded (`florlog.state.loader_workers` has what worker processes need beyond that).  Under ``enumerate`` and
``zip`` each part is advanced for itself, and under a progress bar the iterable that it shows.  An iterable or a
streamed data set that `has_state_dict` (torchdata's StatefulDataLoader) is given its state.  Anything else is advanced
item by item: a generator computes what is skipped.

Position counts items that the loop's body received, not what was prefetched (CheckFreq, FAST 2021, section
4.4).  A shuffling loader draws its order from an RNG when iteration starts, so a cursor that starts in the
middle needs the RNGs as they were then; the caller restores them first, and puts them to their present
state afterwards.  So all that a skip draws, it draws within `Cursor.seek`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from types import GeneratorType
from typing import Any

import torch
from torch.utils.data import DataLoader, IterableDataset
from torch.utils.data.dataloader import _BaseDataLoaderIter, _SingleProcessDataLoaderIter

from florlog.errors import ImageError
from florlog.state.cpython import next_number
from florlog.state.iterables import is_indexed, is_progress_bar, wrapped_in
from florlog.state.loader_workers import PassingDataset
from florlog.state.loaders import keeps_workers
from florlog.state.stateful import has_state_dict


def _consume(iterator: Iterator[Any], count: int) -> Iterator[Any]:
    """The iterator, without its next items; they are drawn now, not when it is used."""
    for _ in range(count):
        if next(iterator, iterator) is iterator:
            break
    return iterator


def _keeper(iterable: Any) -> Any:
    """What knows the place of an iterable: itself, or the data set that it streams from; None if nothing does."""
    if isinstance(iterable, _BaseDataLoaderIter):
        return None  # could not be given its place back
    if has_state_dict(iterable):
        return iterable
    if isinstance(iterable, DataLoader) and iterable.num_workers == 0:
        dataset = iterable.dataset
        return dataset if isinstance(dataset, IterableDataset) and has_state_dict(dataset) else None
    return None


def _position(iterable: Any) -> Any:
    """The ``state_dict`` of what knows the place; for a wrapper, a list of its parts' places; None if nothing knows."""
    if (keeper := _keeper(iterable)) is not None:
        return keeper.state_dict()
    held = [_position(part) for part in wrapped_in(iterable)]
    return held if any(place is not None for place in held) else None


def passed_over(iterable: Any, position: Any) -> str:
    """What must produce and drop items so that an iterable can go on in its middle; "" if nothing must."""
    if position is not None and _keeper(iterable) is not None:
        return ""
    parts = wrapped_in(iterable)
    places = position if position is not None else [None] * len(parts)
    for part, place in zip(parts, places, strict=True):
        if found := passed_over(part, place):
            return found
    dataset = getattr(iterable, "dataset", None) or getattr(iterable, "_dataset", None)
    if isinstance(dataset, IterableDataset):
        return f"{type(dataset).__name__}, which streams its items and has no state_dict() in this process,"
    if isinstance(iterable, GeneratorType):
        return f"generator {iterable.gi_code.co_name}"
    return ""


def can_restart(iterable: Any) -> bool:
    """Whether items can be passed over unloaded, and another pass can still start with the first."""
    if isinstance(iterable, DataLoader):
        return not isinstance(iterable.dataset, IterableDataset) and not has_state_dict(iterable)
    return is_indexed(iterable)


def draw(loader: DataLoader[Any]) -> None:
    """Draw what going over all items of a loader draws, and load none."""
    _continued(loader, sys.maxsize)  # to the sampler's end, wherever that is


class Cursor:
    """Yields the items of one loop execution, from any index."""

    def __init__(self, iterable: Iterable[Any]) -> None:
        self.iterable = iterable
        self._items: Iterator[Any] | None = None
        self._taken = 0

    def position(self) -> Any:
        """Where the iterable says that it is, for `seek`; None if it does not know."""
        return _position(self.iterable)

    def seek(self, index: int, position: Any = None) -> None:
        """Continue with item ``index``; draws from the RNGs as a start from 0 would.

        ``position`` is what the iterable gave there.  Raises `ImageError` for an iterator that is already further.
        """
        iterable: Any = self.iterable
        done = self._taken if isinstance(iterable, Iterator) else 0  # an iterator cannot start again
        if index < done and not (position is not None and has_state_dict(iterable)):
            raise ImageError("the data cannot go back to where an image was taken")
        self._items = _continued(iterable, index - done, position)
        self._taken = index

    def rewind(self) -> None:
        """Start again with the first item, of an iterable that can."""
        self._items, self._taken = None, 0

    def items(self) -> Iterator[Any]:
        """What gives the items, from where it is."""
        if self._items is None:
            self._items = iter(self.iterable)
        return self._items

    def next(self) -> Any:
        """The next item; raises StopIteration at the end."""
        item = next(self.items())
        self._taken += 1
        return item


def _continued(iterable: Any, index: int, position: Any = None) -> Iterator[Any]:
    """An iterator over an iterable's items from ``index``, or from a ``position`` that it gave."""
    if position is not None and (keeper := _keeper(iterable)) is not None:
        keeper.load_state_dict(position)
        items: Iterator[Any] = iter(iterable)
        if isinstance(items, _SingleProcessDataLoaderIter):
            items._num_yielded += index
        return items
    parts = wrapped_in(iterable)
    places = position if position is not None else [None] * len(parts)
    if isinstance(iterable, Sequence) and is_indexed(iterable):
        return iter(iterable[index:])
    if isinstance(iterable, DataLoader):
        return _loader_from(iterable, index)
    if isinstance(iterable, _SingleProcessDataLoaderIter) and not isinstance(
        iterable._dataset, IterableDataset
    ):
        _consume(iterable._sampler_iter, index)
        iterable._num_yielded += index
        return iterable
    if isinstance(iterable, enumerate):
        return enumerate(_continued(parts[0], index, places[0]), next_number(iterable) + index)
    if isinstance(iterable, zip):
        for part, place in zip(parts, places, strict=True):
            _continued(part, index, place)  # iterators all: they are moved themselves
        return iterable
    if is_progress_bar(iterable):
        iterable.iterable = _Started(_continued(iterable.iterable, index, places[0]))
        iterable.initial = iterable.n = index
        return iter(iterable)
    return _consume(iter(iterable), index)


class _Started:
    """An iterable whose iterator has been made already."""

    def __init__(self, iterator: Iterator[Any]) -> None:
        self.iterator = iterator

    def __iter__(self) -> Iterator[Any]:
        return self.iterator


def _loader_from(loader: DataLoader[Any], count: int) -> Iterator[Any]:
    if loader.num_workers == 0:
        return _continued(iter(loader), count)
    if isinstance(loader.dataset, IterableDataset) or loader.batch_sampler is None:
        return _consume(iter(loader), count)
    passing: Any = PassingDataset(loader, count)
    continued: DataLoader[Any] = DataLoader(
        passing,
        batch_sampler=passing.sampler(),
        num_workers=loader.num_workers,
        collate_fn=passing.collate,
        pin_memory=loader.pin_memory,
        timeout=loader.timeout,
        worker_init_fn=passing.prepare,
        multiprocessing_context=loader.multiprocessing_context,
        generator=torch.Generator() if keeps_workers(loader) else loader.generator,  # for the workers' seed
        prefetch_factor=loader.prefetch_factor,
        pin_memory_device=loader.pin_memory_device,
    )
    return _consume(iter(continued), count)
