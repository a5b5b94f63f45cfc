"""A cursor over a loop's iterable that can go on at any index without loading what it skips.

Ranges and sequences are indexed.  Of a DataLoader the sampler is drawn from exactly as before, but no skipped
item is loaded (`_workers` has what worker processes need beyond that).  Under ``enumerate`` and ``zip`` each part is
advanced for itself, a progress bar is asked for what it shows the progress of, an iterable or a streamed data set
with a ``state_dict`` (torchdata's StatefulDataLoader) is given its state.  Anything else is advanced item by item.

Position counts items that the loop's body received, not what was prefetched (CheckFreq, FAST 2021, section
4.4).  A shuffling loader draws its order from an RNG when iteration starts, so a cursor that starts in the
middle needs the RNGs as they were then; the caller restores them first, and puts them to their present
state afterwards.  So all that a skip draws, it draws within `Cursor.seek`.
"""

from __future__ import annotations

import functools
import inspect
import re
import sys
import warnings
from collections.abc import Iterable, Iterator, Sequence
from types import GeneratorType
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset
from torch.utils.data.dataloader import _BaseDataLoaderIter, _SingleProcessDataLoaderIter

from florlog.errors import ChangedError, ImageError
from florlog.state.loader_workers import PassingDataset


def _consume(iterator: Iterator[Any], count: int) -> Iterator[Any]:
    """The iterator, without its next items; they are drawn now, not when it is used."""
    for _ in range(count):
        if next(iterator, iterator) is iterator:
            break
    return iterator


def _is_indexed(iterable: Any) -> bool:
    return isinstance(iterable, (range, list, tuple, str, bytes))


def _keeper(iterable: Any) -> Any:
    """What knows the place of an iterable: itself, or the data set that it streams from; None if nothing does."""
    if isinstance(iterable, _BaseDataLoaderIter):
        return None  # could not be given its place back
    if _is_stateful(iterable):
        return iterable
    if isinstance(iterable, DataLoader) and iterable.num_workers == 0:
        dataset = iterable.dataset
        return dataset if isinstance(dataset, IterableDataset) and _is_stateful(dataset) else None
    return None


def _is_stateful(iterable: Any) -> bool:
    return callable(getattr(iterable, "state_dict", None)) and callable(
        getattr(iterable, "load_state_dict", None)
    )


def _position(iterable: Any) -> Any:
    """The place that an iterable tells of itself; of a wrapper, a list of its parts'; None if none is told."""
    if (keeper := _keeper(iterable)) is not None:
        return keeper.state_dict()
    held = [_position(part) for part in _parts(iterable)]
    return held if any(place is not None for place in held) else None


def passed_over(iterable: Any, position: Any) -> str:
    """What will produce and drop items in order to go on in its middle, "" if nothing does."""
    if position is not None and _keeper(iterable) is not None:
        return ""
    parts = _parts(iterable)
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


def _parts(iterable: Any) -> list[Any]:
    """What an ``enumerate``, a ``zip`` or a progress bar draws from."""
    if isinstance(iterable, (enumerate, zip)):
        inner: tuple[Any, ...] = tuple(iterable.__reduce__()[1])
        return [inner[0]] if isinstance(iterable, enumerate) else list(inner)
    if not isinstance(iterable, DataLoader) and _bar(iterable):
        return [iterable.iterable]
    return []


def _bar(iterable: Any) -> bool:
    """Whether it is a progress bar, as tqdm's: it yields what its attribute ``iterable`` does."""
    return hasattr(iterable, "iterable") and any(kind.__name__ == "tqdm" for kind in type(iterable).__mro__)


def _leaves(iterable: Any) -> Iterator[Any]:
    """The iterables inside all wrappers."""
    parts = _parts(iterable)
    if not parts:
        yield iterable
    for part in parts:
        yield from _leaves(part)


def loader_generators(iterable: Any) -> list[torch.Generator]:
    """The generators that DataLoaders in an iterable draw their order from, other than torch's default."""
    found: list[torch.Generator] = []
    for leaf in _leaves(iterable):
        sampler = getattr(leaf, "_index_sampler", None)  # of a loader, or of its iterator
        sources = [leaf, getattr(leaf, "sampler", None), sampler, getattr(sampler, "sampler", None)]
        for source in sources:
            generator = getattr(source, "generator", None)
            if isinstance(generator, torch.Generator) and all(generator is not known for known in found):
                found.append(generator)
    return found


def needs_entry_state(iterable: Any) -> bool:
    """Whether starting in the middle needs the RNGs as they were at the loop's start."""
    return not _is_indexed(iterable)


def can_restart(iterable: Any) -> bool:
    """Whether its items can be passed over unloaded, and yet be had from the first on."""
    if isinstance(iterable, DataLoader):
        return not isinstance(iterable.dataset, IterableDataset) and not _is_stateful(iterable)
    return _is_indexed(iterable)


def holds_still(iterable: Any) -> bool:
    """Whether going over it draws nothing and takes nothing out of it."""
    kinds = (dict, set, frozenset, int, float, torch.Tensor, np.ndarray)
    return _is_indexed(iterable) or isinstance(iterable, kinds)


def draw(loader: DataLoader[Any]) -> None:
    """Draw what going over all items of a loader draws, and load none."""
    _continued(loader, sys.maxsize)  # to the sampler's end, wherever that is


def keeps_workers(iterable: Any) -> bool:
    """Whether a loader in it has workers that an earlier pass started: another pass draws no seed for them."""
    return any(loader._iterator is not None for loader in _with_persistent_workers(iterable))


def start_workers(iterable: Any) -> None:
    """Start the persistent workers of its loaders as an earlier pass had; nothing is drawn and no item loaded."""
    for loader in _with_persistent_workers(iterable):
        if loader._iterator is not None:
            continue
        name = "sampler" if loader.batch_sampler is None else "batch_sampler"
        sampler, generator = getattr(loader, name), loader.generator
        vars(loader)[name], loader.generator = [], torch.Generator()
        try:
            iterator: Any = iter(loader)
        finally:
            vars(loader)[name], loader.generator = sampler, generator
        iterator._index_sampler = sampler
        if _draws(loader.dataset):
            warnings.warn(
                f"florlog: the persistent workers that load a {type(loader.dataset).__name__} were started anew, and "
                "their random numbers are not those that the recording drew; with persistent_workers=False they are",
                RuntimeWarning,
                stacklevel=2,
            )


def _with_persistent_workers(iterable: Any) -> Iterator[Any]:
    for leaf in _leaves(iterable):
        if isinstance(leaf, DataLoader) and leaf.persistent_workers and not _is_stateful(leaf):
            yield leaf


def _draws(dataset: Any) -> bool:
    """Whether a data set seems to draw random numbers, by the code of its class and the names of its transforms."""
    kind: Any = type(dataset)
    transforms = (repr(getattr(dataset, name, "")) for name in ("transform", "transforms"))
    if any(re.search("rand|noise|choice|shuffle", text, re.I) for text in (_code(kind), *transforms)):
        return True
    inner = getattr(dataset, "dataset", None)  # of a subset
    return inner is not None and inner is not dataset and _draws(inner)


@functools.cache
def _code(kind: type) -> str:
    """The code of a class; a loop asks each time it is entered, and finding it takes milliseconds."""
    try:
        return inspect.getsource(kind)
    except (OSError, TypeError):
        return ""


def length_of(iterable: Any) -> int:
    """The number of items, or -1 when the iterable does not tell."""
    try:
        return len(iterable)
    except (TypeError, NotImplementedError):
        return -1


WORKER_STATE = "worker_state"
"""In a loop's data: its loader's workers have random generators that go on from pass to pass, and that no image has."""
_NO_IDENTITY = ("type", WORKER_STATE)


def identity(iterable: Any) -> dict[str, Any]:
    """What to remember of an iterable so that another one in its place is noticed."""
    found: dict[str, Any] = {"type": type(iterable).__name__}
    loader = next((leaf for leaf in _leaves(iterable) if isinstance(leaf, DataLoader)), None)
    if loader is not None:
        found |= {
            "batch_size": loader.batch_size,
            "drop_last": loader.drop_last,
            "dataset": type(loader.dataset).__name__,
            "items": length_of(loader.dataset),
            "sampler": type(loader.sampler).__name__,
            "batch_sampler": type(loader.batch_sampler).__name__,
            "workers": loader.num_workers,
            WORKER_STATE: loader.persistent_workers and _draws(loader.dataset),
        }
    return found


def check(name: str, iterable: Any, length: int, recorded: dict[str, Any]) -> None:
    """Raise `ChangedError` when an iterable is not the one that was recorded."""
    now = length_of(iterable)
    if length >= 0 and now >= 0 and now != length:
        raise ChangedError(
            f"loop {name!r} had {length} items when recorded and has {now} now: replay and resume need the same data"
        )
    for key, value in identity(iterable).items():
        if key in recorded and key not in _NO_IDENTITY and recorded[key] != value:
            raise ChangedError(
                f"loop {name!r} ran over a DataLoader with {key}={recorded[key]!r} when recorded, "
                f"and {key}={value!r} now: replay and resume need the same data"
            )


class Cursor:
    """Yields the items of one loop execution, from any index."""

    def __init__(self, iterable: Iterable[Any]) -> None:
        self.iterable = iterable
        self._items: Iterator[Any] | None = None
        self._taken = 0

    def position(self) -> Any:
        """The iterable's own account of where it is, None if it has none."""
        return _position(self.iterable)

    def seek(self, index: int, position: Any = None) -> None:
        """Continue with item ``index``; draws from the RNGs as a start from 0 would."""
        iterable: Any = self.iterable
        done = self._taken if isinstance(iterable, Iterator) else 0  # an iterator cannot start again
        if index < done and not (position is not None and _is_stateful(iterable)):
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
    """An iterator over an iterable's items from ``index``, or from the ``position`` that it told."""
    if position is not None and (keeper := _keeper(iterable)) is not None:
        keeper.load_state_dict(position)
        items: Iterator[Any] = iter(iterable)
        if isinstance(items, _SingleProcessDataLoaderIter):
            items._num_yielded += index
        return items
    parts = _parts(iterable)
    places = position if position is not None else [None] * len(parts)
    if isinstance(iterable, Sequence) and _is_indexed(iterable):
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
        how: Any = iterable.__reduce__()
        return enumerate(_continued(parts[0], index, places[0]), how[1][1] + index)
    if isinstance(iterable, zip):
        for part, place in zip(parts, places, strict=True):
            _continued(part, index, place)  # iterators all: they are moved themselves
        return iterable
    if _bar(iterable):
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
