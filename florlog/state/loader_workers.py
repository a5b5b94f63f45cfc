"""Skipping batches of a DataLoader with worker processes, so that each worker is where it would be.

Workers take batches in turn.  Each has random generators of its own, which start from a seed that is drawn in
the main process and go on with every item that is augmented at random.  So skipped batches cannot just be left
out: they are given to the workers, marked as passed over.  A worker loads its first one, and sees by its
generators whether loading draws random numbers.  If it does, the worker loads the others as well, because
only that brings its generators to the right place; if not, it passes them over unloaded.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, get_worker_info


class _PassedBatch(list[Any]):
    """The indices of a batch that is passed over."""


class _Sampler:
    """A batch sampler that marks the first ``count`` batches of another."""

    def __init__(self, sampler: Iterable[Any], count: int) -> None:
        self.inner = sampler
        self.count = count

    def __iter__(self) -> Iterator[Any]:
        for number, indices in enumerate(self.inner):
            yield _PassedBatch(indices) if number < self.count else indices


class PassingDataset:
    """Stands for a loader's dataset in its workers; each worker has a copy of its own."""

    def __init__(self, loader: DataLoader[Any], count: int) -> None:
        self._dataset: Any = loader.dataset
        self._collate = loader.collate_fn
        self._prepare = loader.worker_init_fn
        self._batches: Any = loader.batch_sampler
        self._count = count
        self._draws: bool | None = None  # whether loading a batch draws random numbers
        self._passing = False
        self._before: tuple[Any, ...] = ()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_batches": None}  # the main process alone draws from the sampler

    def sampler(self) -> _Sampler:
        """The batch sampler that goes with this dataset."""
        return _Sampler(self._batches, self._count)

    def __len__(self) -> int:
        return len(self._dataset)

    def prepare(self, worker: int) -> None:
        """Start a worker: its code sees the loader's own dataset, not this one."""
        object.__setattr__(get_worker_info(), "dataset", self._dataset)
        if self._prepare is not None:
            self._prepare(worker)

    def __getitems__(self, indices: list[Any]) -> Any:
        """Load a batch, or pass it over."""
        self._passing = isinstance(indices, _PassedBatch)
        if self._passing:
            if self._draws is False:
                return None
            self._before = _generators() if self._draws is None else ()
        load = getattr(self._dataset, "__getitems__", None)
        return load(list(indices)) if load else [self._dataset[index] for index in indices]

    def collate(self, items: Any) -> Any:
        """Make a batch of items; of a batch that is passed over, nothing."""
        if not self._passing:
            return self._collate(items)
        if self._draws is not False:
            self._collate(items)
        if self._draws is None:
            self._draws = _generators() != self._before
        return None


def _generators() -> tuple[Any, ...]:
    legacy: Any = np.random.get_state()
    return random.getstate(), legacy[1].tobytes(), legacy[2:], torch.get_rng_state().numpy().tobytes()
