"""What the worker processes of a DataLoader's iterator were given since they were started.

What a worker gives depends on the seed that it started with and on all that it has loaded since.  None of that can be
read from outside, but it can be loaded again: by new workers with the same seed, which get the same indices in the same
turn (`florlog.state.placed_workers`).  An iterator forgets the indices that it has sent, so they are noted here as they
are drawn, while a run is open.

Of an `IterableDataset`, whose workers get no indices, it is enough how many batches were given.
"""

from __future__ import annotations

import weakref
from array import array
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
from torch.utils.data.dataloader import _DatasetKind, _MultiProcessingDataLoaderIter

from florlog.state.loading_state import loading_state

COMPACT: dict[str, Any] = {"int": int, "int64": np.int64}
"""The kinds of indices that are kept as numbers, by name."""
_ONE = -1  # the size of a task that is no list
MAX_INDICES = 1 << 24
"""That are noted of one iterator; those of persistent workers add up from pass to pass."""
MAX_OTHERS = 100_000
"""The same of tasks whose indices are no numbers."""


class Tasks:
    """The indices that were sent in one pass: for each batch a list of them, or one index alone."""

    def __init__(self, tasks: Iterable[Any] = ()) -> None:
        self.numbers, self.sizes = array("q"), array("q")
        self.kind: Any = None  # of all indices
        self.others: list[Any] | None = (
            None  # the tasks themselves, where the indices are not all of a compact kind
        )
        for task in tasks:
            self.add(task)

    @classmethod
    def of(cls, kind: Any, numbers: array[int], sizes: array[int], others: list[Any] | None) -> Tasks:
        """Tasks of which the attributes are known."""
        made = cls()
        made.kind, made.numbers, made.sizes, made.others = kind, numbers, sizes, others
        return made

    def add(self, task: Any) -> None:
        """The next task."""
        if self.others is None:
            alone = type(task) is not list
            indices = [task] if alone else task
            kinds = {*map(type, indices)} | ({self.kind} - {None})
            if len(kinds) == 1 and (kind := kinds.pop()) in COMPACT.values():
                try:
                    self.numbers += array("q", indices)
                    self.sizes.append(_ONE if alone else len(indices))
                    self.kind = kind
                    return
                except OverflowError:
                    pass
            self.others = list(self)
            self.numbers, self.sizes, self.kind = array("q"), array("q"), None
        self.others.append(task)

    def __len__(self) -> int:
        return len(self.sizes if self.others is None else self.others)

    def __iter__(self) -> Iterator[Any]:
        if self.others is not None:
            yield from self.others
            return
        at = 0
        for size in self.sizes:
            part = self.numbers[at : at + abs(size)].tolist()
            indices = part if self.kind is int else list(map(self.kind, part))
            yield indices[0] if size == _ONE else indices
            at += abs(size)

    def is_long(self, before: int) -> bool:
        """Whether these are more than are noted, where ``before`` were noted in earlier passes."""
        return before + len(self.numbers) > MAX_INDICES or len(self.others or ()) > MAX_OTHERS


class History:
    """Of one iterator's workers: the tasks of each pass, the last of which is open, and what loading depended on."""

    def __init__(self, passes: Iterable[Tasks], before: bytes) -> None:
        self.passes = list(passes)
        self.before = before
        """The state of what loading depends on when the workers were started; b"" where they are not started yet."""
        self.earlier = sum(len(tasks.numbers) for tasks in self.passes[:-1])
        """How many numbers the earlier passes have."""
        self.left = False
        """Whether an earlier pass was left before its end."""

    def begin_pass(self, *, left: bool) -> None:
        """The workers begin another pass; ``left``: the one before has not come to its end."""
        self.left |= left
        self.earlier += len(self.passes[-1].numbers)
        self.passes.append(Tasks())


_histories: weakref.WeakKeyDictionary[Any, History] = weakref.WeakKeyDictionary()


def history_of(iterator: Any) -> History | None:
    """What an iterator's workers were given; None where that is not known."""
    return _histories.get(iterator)


def has_history(iterator: Any, history: History) -> None:
    """Say what an iterator's workers were given."""
    _histories[iterator] = history


def loading_state_of(iterator: Any) -> bytes:
    """What the workers of an iterator would load with, if they were started now."""
    return loading_state((iterator._dataset, iterator._collate_fn, iterator._worker_init_fn), brief=True)


def is_changed(iterator: Any) -> bool:
    """Whether what loading depends on is another than when an iterator's workers were started, as far as is known."""
    known = history_of(iterator)
    return known is not None and known.before not in (b"", loading_state_of(iterator))


def streams(iterator: Any) -> bool:
    """Whether an iterator is over an `IterableDataset`."""
    return bool(iterator._dataset_kind == _DatasetKind.Iterable)


@contextmanager
def noting_tasks() -> Iterator[None]:
    """Within, what iterators with workers send to these is noted; of those that are made before, nothing."""
    kind: Any = _MultiProcessingDataLoaderIter
    before = {name: vars(kind).get(name) for name in ("_next_index", "_reset")}
    next_index, reset = kind._next_index, kind._reset

    def noted_index(self: Any) -> Any:
        index = next_index(self)
        if (history := _histories.get(self)) is not None and not streams(self):
            history.passes[-1].add(index)
            if history.passes[-1].is_long(history.earlier):
                del _histories[self]
        return index

    def noted_reset(self: Any, loader: Any, first_iter: bool = False) -> None:
        if first_iter:
            with suppress(Exception):  # whatever an object of the user's raises when it is looked at
                has_history(self, History([Tasks()], loading_state_of(self)))
        elif (history := _histories.get(self)) is not None:
            history.begin_pass(left=self._rcvd_idx < self._send_idx)
        reset(self, loader, first_iter)

    kind._next_index, kind._reset = noted_index, noted_reset
    try:
        yield
    finally:
        for name, method in before.items():
            if method is None:
                delattr(kind, name)
            else:
                setattr(kind, name, method)
