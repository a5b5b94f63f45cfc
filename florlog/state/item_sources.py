"""What the items of a loop are made of: state that images hold, or something that only the item itself shows.

The items of a list, or of a loader over tensors, are in the images as any object that is reachable: changed data is
another state.  A data set that reads files gives items that no image knows.  What an ``enumerate`` draws from is an
iterator already; it is looked through where it shows what it goes over.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from types import GeneratorType
from typing import Any

import numpy as np
import torch
from torch.utils.data import ConcatDataset, DataLoader, StackDataset, Subset, TensorDataset
from torch.utils.data.dataloader import _BaseDataLoaderIter

from florlog.state.computing import computes, function_computes
from florlog.state.cpython_holders import dict_under, taken_apart
from florlog.state.iterables import innermost, is_progress_bar
from florlog.state.user_code import is_user_class

_PLAIN: tuple[Any, ...] = (list, tuple, range, dict, set, frozenset, deque, str, bytes, torch.Tensor)
_AROUND: tuple[Any, ...] = (Subset, ConcatDataset, StackDataset)
_GIVING = ("__getitem__", "__getitems__", "__iter__", "__len__")


_OVER_SEQUENCES: tuple[Any, ...] = (
    *map(type, (iter([]), iter(()), iter(""), iter("é"), iter(b""), iter(range(0)), reversed([]))),
    reversed,
)
_PARTS_OF_LIVE = 3  # the maker, its arguments, the position; one that has ended has none
_OVER_MAPPINGS: tuple[Any, ...] = (type(iter({})), type(iter({}.values())), type(iter({}.items())))


def parts_of(iterable: Any) -> list[Any]:
    """What an iterable gives items of, inside all wrappers; iterators that do not show it are left out."""
    return [source for leaf in innermost(iterable) if (source := _source(leaf)) is not None]


def gives_state(iterable: Any) -> bool:
    """Whether an iterable's items are made of state alone."""
    return all(map(_gives_state, innermost(iterable)))


def _source(leaf: Any) -> Any:
    """What an iterable gives items of: itself, or what an iterator goes over; None where that cannot be seen."""
    if isinstance(leaf, _BaseDataLoaderIter):
        return leaf._dataset
    if type(leaf) in _OVER_SEQUENCES:
        return None if _has_ended(leaf) else taken_apart(leaf)[1][0]
    if type(leaf) in _OVER_MAPPINGS:
        return dict_under(leaf)
    if isinstance(leaf, GeneratorType):
        bar: Any = None if leaf.gi_frame is None else leaf.gi_frame.f_locals.get("self")
        return bar.iterable if leaf.gi_code.co_name == "__iter__" and is_progress_bar(bar) else None
    return None if isinstance(leaf, Iterator) else leaf


def _has_ended(iterator: Any) -> bool:
    """Whether an iterator over a sequence has come to its end: then it says that it is of an empty one."""
    return len(taken_apart(iterator)) < _PARTS_OF_LIVE


def _gives_state(value: Any, *, steady: bool = False) -> bool:
    kind: Any = type(value)
    if isinstance(value, DataLoader):
        return _loads_state(value.dataset, value.collate_fn, value.num_workers, value.worker_init_fn)
    if isinstance(value, _BaseDataLoaderIter):
        init = getattr(value, "_worker_init_fn", None)
        return _loads_state(value._dataset, value._collate_fn, value._num_workers, init)
    if isinstance(value, Iterator):
        if kind in _OVER_SEQUENCES and _has_ended(value):
            return True
        source = _source(value)
        return source is not None and gives_state(source)
    if isinstance(value, np.ndarray):
        return not isinstance(value, np.memmap)
    if kind in _PLAIN or kind is TensorDataset or isinstance(value, torch.Tensor):
        return True
    if kind in _AROUND:
        held = getattr(value, "datasets", None)
        inner = (
            [value.dataset] if held is None else list(held.values() if isinstance(held, Mapping) else held)
        )
        return all(_gives_state(part, steady=steady) for part in inner)
    return is_user_class(kind) and computes(value, _GIVING, steady=steady)


def _loads_state(dataset: Any, collates: Any, workers: int, init: Any) -> bool:
    """The same of a loader.  Workers have copies of the data set: what it changes in one is in no image."""
    steady = workers > 0
    for function in (collates, init if steady else None):
        plain = function is None or (getattr(function, "__module__", None) or "").startswith(
            "torch.utils.data"
        )
        if not plain and not function_computes(function, steady=steady and function is collates):
            return False
    return _gives_state(dataset, steady=steady)
