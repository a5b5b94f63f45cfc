"""A cursor over a loop's iterable that can go on at any index without running what it skips.

Ranges and sequences are indexed.  A DataLoader is continued by a new loader whose batch sampler leaves out
the skipped batches: the sampler is drawn from exactly as before, but no skipped item is loaded.  Anything
else is advanced item by item.  Position counts items that the loop's body received, not what was prefetched
(CheckFreq, FAST 2021, section 4.4).

A shuffling loader draws its order from an RNG when iteration starts, so a cursor that starts in the middle
needs the RNGs as they were then; the caller restores them first.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from torch.utils.data import DataLoader, IterableDataset

from .errors import ChangedError


class _Skip:
    """A batch sampler that leaves out the first ``count`` batches of another."""

    def __init__(self, sampler: Iterable[Any], count: int) -> None:
        self.sampler = sampler
        self.count = count
        self.rest: Iterator[Any] = iter(())

    def __iter__(self) -> Iterator[Any]:
        self.rest = iter(self.sampler)
        return self

    def __next__(self) -> Any:
        self.skip()
        return next(self.rest)

    def skip(self) -> None:
        """Leave out what is to be left out now: samplers draw their order when the first batch is due."""
        while self.count > 0:
            self.count -= 1
            next(self.rest, None)


def _is_indexed(iterable: Any) -> bool:
    return isinstance(iterable, (range, list, tuple, str, bytes))


def needs_entry_state(iterable: Any) -> bool:
    """Whether starting in the middle needs the RNGs as they were at the loop's start."""
    return not _is_indexed(iterable)


def length_of(iterable: Any) -> int:
    """The number of items, or -1 when the iterable does not tell."""
    try:
        return len(iterable)
    except (TypeError, NotImplementedError):
        return -1


def identity(iterable: Any) -> dict[str, Any]:
    """What to remember of an iterable so that another one in its place is noticed."""
    found: dict[str, Any] = {"type": type(iterable).__name__}
    if isinstance(iterable, DataLoader):
        found |= {
            "batch_size": iterable.batch_size,
            "drop_last": iterable.drop_last,
            "items": length_of(iterable.dataset),
            "sampler": type(iterable.sampler).__name__,
            "workers": iterable.num_workers,
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
        if key in recorded and key not in ("type", "workers") and recorded[key] != value:
            raise ChangedError(
                f"loop {name!r} ran over a DataLoader with {key}={recorded[key]!r} when recorded, "
                f"and {key}={value!r} now: replay and resume need the same data"
            )


class Cursor:
    """Yields the items of one loop execution, from any index."""

    def __init__(self, iterable: Iterable[Any]) -> None:
        self.iterable = iterable
        self._items: Iterator[Any] | None = None

    def seek(self, index: int) -> None:
        """Continue with item ``index``; draws from the RNGs as a start from 0 would."""
        iterable = self.iterable
        if isinstance(iterable, Sequence) and _is_indexed(iterable):
            self._items = iter(iterable[index:])
        elif isinstance(iterable, DataLoader) and not isinstance(iterable.dataset, IterableDataset):
            self._items = _skipping(iterable, index)
        else:
            self._items = iter(iterable)
            for _ in range(index):
                next(self._items, None)

    def next(self) -> Any:
        """The next item; raises StopIteration at the end."""
        if self._items is None:
            self._items = iter(self.iterable)
        return next(self._items)


def _skipping(loader: DataLoader[Any], count: int) -> Iterator[Any]:
    batched = loader.batch_sampler is not None
    skip = _Skip(loader.batch_sampler or loader.sampler, count)
    sampler: Any = skip
    items = iter(_like(loader, sampler, batched=batched))
    skip.skip()
    return items


def _like(loader: DataLoader[Any], sampler: Any, *, batched: bool) -> DataLoader[Any]:
    return DataLoader(
        loader.dataset,
        batch_size=1 if batched else None,
        sampler=None if batched else sampler,
        batch_sampler=sampler if batched else None,
        num_workers=loader.num_workers,
        collate_fn=loader.collate_fn,
        pin_memory=loader.pin_memory,
        timeout=loader.timeout,
        worker_init_fn=loader.worker_init_fn,
        multiprocessing_context=loader.multiprocessing_context,
        generator=loader.generator,
        prefetch_factor=loader.prefetch_factor,
        pin_memory_device=loader.pin_memory_device,
    )
