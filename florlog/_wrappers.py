"""What a script wraps around a loop's iterator: ``enumerate``, ``zip``, a progress bar.

A replay that jumps to a later iteration must take such wrappers along, because they count for themselves.
``enumerate`` is advanced in its own memory; where that is, is checked by what it gives when pickled.  Wrappers that
consume other iterators in step (``zip``, ``islice``, a generator of the user's) cannot be advanced: no image is taken
inside a loop under them, and their end can still be restored.  Wrappers without a position (``tqdm``) are let be.
"""

from __future__ import annotations

import ctypes
import gc
import itertools
from collections.abc import Iterator
from types import GeneratorType
from typing import Any

from ._objects import is_user_file
from .errors import ImageError

_COUNTING = (
    zip,
    itertools.islice,
    itertools.zip_longest,
    itertools.cycle,
    itertools.accumulate,
    itertools.groupby,
    getattr(itertools, "batched", zip),
    getattr(itertools, "pairwise", zip),
)


def wrappers(iterator: Any) -> Iterator[Any]:
    """The iterators that draw from an iterator, inner before outer."""
    pending, seen = [iterator], {id(iterator)}
    while pending:
        for outer in gc.get_referrers(pending.pop()):
            if id(outer) not in seen and isinstance(outer, Iterator):
                seen.add(id(outer))
                pending.append(outer)
                yield outer


def obstacle(iterator: Any) -> str:
    """The wrapper that keeps a loop from being continued in its middle, or ""."""
    for outer in wrappers(iterator):
        if isinstance(outer, _COUNTING):
            return type(outer).__name__
        if isinstance(outer, GeneratorType) and is_user_file(outer.gi_code.co_filename):
            return f"generator {outer.gi_code.co_name}"
        if isinstance(outer, enumerate) and _index(outer) is None:
            return "enumerate"
    return ""


def counters(iterator: Any) -> list[enumerate[Any]]:
    """Every ``enumerate`` around an iterator."""
    return [outer for outer in wrappers(iterator) if isinstance(outer, enumerate)]


def advance(counter: enumerate[Any], by: int) -> None:
    """Let an ``enumerate`` count ``by`` further."""
    cell = _index(counter)
    if cell is None:
        raise ImageError("an enumerate around the loop cannot be advanced to where an image was taken")
    cell.value += by


def _index(counter: enumerate[Any]) -> ctypes.c_ssize_t | None:
    """The memory of an enumerate's next number: behind its head, in CPython since 2.3."""
    cell = ctypes.c_ssize_t.from_address(id(counter) + object.__basicsize__)
    return cell if cell.value == counter.__reduce__()[1][1] else None
