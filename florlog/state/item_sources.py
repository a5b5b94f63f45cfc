"""What the items of a loop are made of: state that images hold, or something that only the item itself shows.

The items of a list, or of a loader over tensors, are in the images as any object that is reachable: changed data is
another state.  A data set that reads files gives items that no image knows.  What an ``enumerate`` draws from is an
iterator already; it is looked through where it shows what it goes over.
"""

from __future__ import annotations

import builtins
import dis
import functools
import sys
from collections import deque
from collections.abc import Iterator, Mapping
from types import CodeType, FunctionType, GeneratorType, ModuleType
from typing import Any

import numpy as np
import torch
from torch.utils.data import ConcatDataset, DataLoader, StackDataset, Subset, TensorDataset
from torch.utils.data.dataloader import _BaseDataLoaderIter

from florlog.source.names.outside import (
    CLOCK_METHODS,
    COMPUTING_LIBRARIES,
    READING_METHODS,
    SEEDED,
    SOURCES,
    outside,
    public_name,
)
from florlog.state.cpython_holders import dict_under, taken_apart
from florlog.state.iterables import innermost, is_progress_bar
from florlog.state.user_code import is_user_class, is_user_file

_PLAIN: tuple[Any, ...] = (list, tuple, range, dict, set, frozenset, deque, str, bytes, torch.Tensor)
_AROUND: tuple[Any, ...] = (Subset, ConcatDataset, StackDataset)
_GIVING = ("__getitem__", "__getitems__", "__iter__", "__len__")
_READING = READING_METHODS | CLOCK_METHODS | {"imread", "memmap"}
"""Attributes by which something is read, whatever they belong to."""
_READING_CALLS = _READING | {name.rpartition(".")[2] for name, kind in SOURCES.items() if kind}
"""The same of those that are called: ``self.seed`` is a number more often than it is torch's function."""


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


def _gives_state(value: Any) -> bool:
    kind: Any = type(value)
    if isinstance(value, DataLoader):
        return _loads_state(value.dataset, value.collate_fn, value.num_workers)
    if isinstance(value, _BaseDataLoaderIter):
        return _loads_state(value._dataset, value._collate_fn, value._num_workers)
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
        return all(map(_gives_state, inner))
    return is_user_class(kind) and _class_only_computes(kind)


def _loads_state(dataset: Any, collates: Any, workers: int) -> bool:
    plain = collates is None or collates.__module__.startswith("torch.utils.data") or _only_computes(collates)
    return plain and workers == 0 and _gives_state(dataset)


@functools.cache
def _class_only_computes(kind: Any) -> bool:
    methods = [vars(base).get(name) for base in kind.__mro__ if is_user_class(base) for name in _GIVING]
    found = [method for method in methods if method is not None]
    return bool(found) and all(map(_only_computes, found))


def _only_computes(function: Any) -> bool:
    """Whether a function, and what of the program it calls by name, uses computing libraries only."""
    pending, seen = [function], set()
    while pending:
        function = pending.pop()
        if not isinstance(function, FunctionType) or not is_user_file(function.__code__.co_filename):
            return False
        if function in seen:
            continue
        seen.add(function)
        for code in _codes(function.__code__):
            if (called := _called(code, function.__globals__)) is None:
                return False
            pending.extend(called)
    return True


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)


def _called(code: CodeType, names: Mapping[str, Any]) -> list[FunctionType] | None:
    """The program's own functions that a code object names; None if it may read something from outside."""
    found: list[FunctionType] = []
    at = ""  # the dotted name of what was loaded last, as far as it is a library's
    steps = [step for step in dis.get_instructions(code) if step.opname not in ("PRECALL", "PUSH_NULL")]
    for step, following in zip(steps, [*steps[1:], None], strict=True):
        name = step.argval
        if step.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            held = names.get(name, getattr(builtins, name, None))
            at = ""
            if isinstance(held, FunctionType) and is_user_file(held.__code__.co_filename):
                found.append(held)
            elif isinstance(held, ModuleType) or (callable(held) and hasattr(held, "__name__")):
                if not _is_computing(held):
                    return None
                at = held.__name__ if isinstance(held, ModuleType) else f"{held.__module__}.{held.__name__}"
        elif step.opname in ("LOAD_ATTR", "LOAD_METHOD"):
            called = step.opname == "LOAD_METHOD" or (
                sys.version_info >= (3, 12) and bool((step.arg or 0) & 1)
            )
            if name in _READING or (called and not at and name in _READING_CALLS):
                return None
            at = at and f"{at}.{name}"
        else:
            at = ""
        unseeded = following is not None and following.opname == "CALL" and following.arg == 0
        if at and (outside(public_name(at)) or (unseeded and public_name(at) in SEEDED)):
            return None
    return found


def _is_computing(held: Any) -> bool:
    module = held.__name__ if isinstance(held, ModuleType) else held.__module__ or "builtins"
    return module.partition(".")[0] in COMPUTING_LIBRARIES | {"builtins"}
