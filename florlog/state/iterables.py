"""What a loop runs over, seen from outside: what is wrapped in it, how long it is, what going over it costs.

Looked through are ``enumerate``, ``zip`` and progress bars as tqdm's.  Any other wrapper counts as the iterable itself.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from inspect import GEN_CREATED, getgeneratorstate
from types import GeneratorType
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter, _SingleProcessDataLoaderIter

from florlog.state.cpython import inner_iterators

_ITERATED: tuple[Any, ...] = ([], (), range(0), "", b"", {}, set(), {}.values(), {}.items())
_PLAIN_ITERATORS = {type(iter(held)) for held in _ITERATED}
_INDEXED: tuple[Any, ...] = (range, list, tuple, str, bytes)


def wrapped_in(iterable: Any) -> list[Any]:
    """What an ``enumerate``, a ``zip`` or a progress bar draws from."""
    if isinstance(iterable, (enumerate, zip)):
        return inner_iterators(iterable)
    if not isinstance(iterable, DataLoader) and is_progress_bar(iterable):
        return [iterable.iterable]
    return []


def is_progress_bar(iterable: Any) -> bool:
    """Whether it is a progress bar, as tqdm's: it yields what its attribute ``iterable`` does."""
    return any(kind.__name__ == "tqdm" for kind in type(iterable).__mro__) and hasattr(iterable, "iterable")


def innermost(iterable: Any) -> Iterator[Any]:
    """The iterables inside all wrappers."""
    inner = wrapped_in(iterable)
    if not inner:
        yield iterable
    for part in inner:
        yield from innermost(part)


def has_begun(iterable: Any) -> bool:
    """Whether something in it was drawn from already, or is an iterator of which that cannot be seen."""
    for part in innermost(iterable):
        fresh = isinstance(part, GeneratorType) and getgeneratorstate(part) == GEN_CREATED
        fresh = fresh or (
            type(part) is itertools.count and repr(part) == "count(0)"
        )  # of a while loop's passes
        plain = type(part) in _PLAIN_ITERATORS or isinstance(part, _SingleProcessDataLoaderIter)
        plain = plain or (isinstance(part, _MultiProcessingDataLoaderIter) and part._num_yielded == 0)
        if isinstance(part, Iterator) and not fresh and not plain:
            return True
    return False


def is_indexed(iterable: Any) -> bool:
    """Whether any item can be had by its number: a range, list, tuple, text or bytes with the usual ``__iter__``."""
    kind = type(iterable)
    return kind in _INDEXED or any(
        issubclass(kind, base) and kind.__iter__ is base.__iter__ for base in _INDEXED
    )


def needs_entry_state(iterable: Any) -> bool:
    """Whether starting in the middle needs something as it was at the loop's start, or the position of a list."""
    return isinstance(iterable, list) or not is_indexed(iterable)


def draws_order(iterable: Any) -> bool:
    """Whether starting in the middle may draw from the RNGs: then they must be as they were at the loop's start."""
    return not is_indexed(iterable)


def holds_still(iterable: Any) -> bool:
    """Whether going over it draws nothing and takes nothing out of it."""
    kinds = (dict, set, frozenset, int, float, torch.Tensor, np.ndarray)
    return is_indexed(iterable) or isinstance(iterable, kinds)


def length_of(iterable: Any) -> int:
    """The number of items, or -1 where the iterable does not say it."""
    try:
        return len(iterable)
    except (TypeError, NotImplementedError):
        return -1
