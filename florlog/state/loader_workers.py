"""A data set in worker processes that have to come to a place: it loads again what their place depends on.

Each worker has a copy of the data set, and random generators of its own, which start from a seed that is drawn in the
main process and go on with every item that is augmented at random.  So batches that are skipped cannot just be left
out: they are given to the workers, marked as passed over.  A worker loads its first one, and sees whether loading
changes anything: its generators, or what the data set and the functions around it hold.  If so, or if their code has
words for chance, the worker loads the others as well, because only that brings it to the right place; if not, it passes
them over unloaded.  A first batch that changes no generator may only have opened a file: then the second one decides.
"""

from __future__ import annotations

import functools
import inspect
import random
import re
from typing import Any

import numpy as np
import torch
from torch.utils.data import get_worker_info

from florlog.state.loading_state import loading_state

_CHANCE = re.compile(r"rand|noise|choice|shuffle|\bp=", re.IGNORECASE)
_PROBED = 2  # batches that may show that loading changes something


class PassedBatch:
    """The indices of a batch that is passed over."""

    def __init__(self, indices: Any) -> None:
        self.indices = indices


class PassingDataset:
    """Stands for a loader's data set in its workers; each worker has a copy of its own."""

    def __init__(self, dataset: Any, collate: Any, prepare: Any) -> None:
        self._dataset = dataset
        self._collate = collate
        self._prepare = prepare
        self._changes: bool | None = None  # whether loading a batch changes what later ones depend on
        self._probed = 0
        self._passing = False
        self._before: tuple[Any, ...] = ()

    def __len__(self) -> int:
        return len(self._dataset)

    def prepare(self, worker: int) -> None:
        """Start a worker: its code sees the loader's own data set, not this one."""
        object.__setattr__(get_worker_info(), "dataset", self._dataset)
        if self._prepare is not None:
            self._prepare(worker)

    def __getitem__(self, index: Any) -> Any:
        """Load an item, of a loader without batches."""
        return self._dataset[index]

    def __getitems__(self, indices: Any) -> Any:
        """Load a batch, or pass it over."""
        self._passing = isinstance(indices, PassedBatch)
        if self._passing:
            if self._changes is False:
                return None
            if self._changes is None:
                self._before = self._state()
            indices = indices.indices
        load = getattr(self._dataset, "__getitems__", None)
        return load(indices) if load else [self._dataset[index] for index in indices]

    def collate(self, items: Any) -> Any:
        """Make a batch of items; of a batch that is passed over, nothing."""
        if not self._passing:
            return self._collate(items)
        if self._changes is not False:
            self._collate(items)
        if self._changes is None:
            self._probe(self._state())
        return None

    def _probe(self, now: tuple[Any, ...]) -> None:
        """Decide whether loading changes anything, of the state before and after a batch."""
        self._probed += 1
        drawn = now[:-1] != self._before[:-1] or speaks_of_chance(self._dataset, self._collate)
        changed = now != self._before
        if drawn or not changed or self._probed == _PROBED:
            self._changes = drawn or changed

    def _state(self) -> tuple[Any, ...]:
        """The random generators, and last what the data set and the function around it hold."""
        legacy: Any = np.random.get_state()
        generators = (
            random.getstate(),
            legacy[1].tobytes(),
            legacy[2:],
            torch.get_rng_state().numpy().tobytes(),
        )
        return *generators, loading_state((self._dataset, self._collate), brief=False)


def speaks_of_chance(*parts: Any) -> bool:
    """Whether data sets and functions have words for random numbers in their code or their transforms."""
    for part in parts:
        kind: Any = type(part)
        code = part if inspect.isroutine(part) else kind
        transforms = (repr(getattr(part, name, "")) for name in ("transform", "transforms"))
        if any(_CHANCE.search(text) for text in (_code(code), *transforms)):
            return True
        inner = getattr(part, "dataset", None)  # of a subset
        if inner is not None and inner is not part and speaks_of_chance(inner):
            return True
    return False


@functools.cache
def _code(part: Any) -> str:
    if part.__module__.startswith("torch.utils.data"):
        return ""
    try:
        return inspect.getsource(part)
    except (OSError, TypeError):
        return ""
