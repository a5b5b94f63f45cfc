"""Loaders that give their items by a generator of a library, as Accelerate's: one batch is loaded ahead.

Where such a loop stands is in the generator: its variables hold the batch that was loaded ahead, with the random
numbers that were drawn for it, and the iterator of the loader inside.  So it is state, as a generator that a variable
holds is (`florlog.state.heap.kinds.generators`), and nothing is loaded again to go on in the loop's middle.
"""

from __future__ import annotations

import functools
import inspect
from types import CodeType, FunctionType, GeneratorType
from typing import Any

from torch.utils.data import DataLoader

from florlog.state.cpython_generators import stack_of
from florlog.state.iterables import is_progress_bar, wrapped_in
from florlog.state.user_code import is_user_class


def reads_ahead(iterable: Any) -> bool:
    """Whether an iterable is such a loader."""
    kind: Any = type(iterable)
    return isinstance(iterable, DataLoader) and _generator_of(kind) is not None


def waiting(iterator: Any) -> list[Any]:
    """The generators of such loaders in what gives a loop its items, inside wrappers as well."""
    if not isinstance(iterator, GeneratorType):
        return [found for part in wrapped_in(iterator) for found in waiting(part)]
    if iterator.gi_frame is None:
        return []
    owner: Any = iterator.gi_frame.f_locals.get("self")
    kind: Any = type(owner)
    if reads_ahead(owner):
        return [iterator] if iterator.gi_code is _generator_of(kind) else []
    if not is_progress_bar(owner):
        return []
    inner = stack_of(iterator) or [getattr(owner.iterable, "iterator", None)]  # of a bar that was put on here
    return [found for part in inner for found in waiting(part)]


@functools.cache
def _generator_of(kind: Any) -> CodeType | None:
    """The code of the generator by which objects of a library's class give their items; None for any other class."""
    owner = next((base for base in kind.__mro__ if "__iter__" in vars(base)), object)
    method = vars(owner).get("__iter__")
    if isinstance(method, FunctionType) and inspect.isgeneratorfunction(method) and not is_user_class(owner):
        return method.__code__
    return None
