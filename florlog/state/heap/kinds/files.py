"""Arrays over a file that is only read (``numpy.memmap``, ``numpy.load(..., mmap_mode="r")``): the file is their state.

An image names the file, and where in it the array lies.  On restore a live array over the same bytes is kept, and else
the file is mapped again; it has to have the size and the time of its last change that it had.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from florlog.errors import ImageError
from florlog.state.heap.dtypes import dtype_of, dtype_text
from florlog.state.heap.graph import Node
from florlog.state.heap.kinds.base import MISSING, Build, Kind


class _Mapped(Kind):
    """``own``: the file, its size in bytes and time of change in ns, the array's dtype, first byte and shape."""

    name = "mapped"
    immutable = True

    def make(self, build: Build, node: Node, live: Any) -> Any:
        if live is not MISSING and isinstance(live, np.memmap) and _place(live) == node.own:
            return live
        file, size, changed, dtype, first, shape = node.own
        try:
            found = Path(file).stat()
        except OSError as error:
            raise ImageError(f"the file {file}, which an array reads, is gone: {error}") from None
        if (found.st_size, found.st_mtime_ns) != (size, changed):
            raise ImageError(f"the file {file}, which an array reads, has changed")
        return np.memmap(file, dtype_of(dtype), "r", first, tuple(shape))

    def fits(self, node: Node, live: Any) -> bool:
        return isinstance(live, np.memmap)


def mapped(value: np.ndarray[Any, Any], class_name: str) -> Node | None:
    """The node of an array over a file that is only read; None for any other."""
    place = _place(value)
    return None if place is None else Node("mapped", class_name, place)


def _place(value: Any) -> tuple[Any, ...] | None:
    """The file of an array and where in it the array lies; None where it cannot be mapped again like this."""
    if type(value) is not np.memmap or value.mode != "r" or value._mmap is None or value.filename is None:  # type: ignore[attr-defined]
        return None
    if not value.flags.c_contiguous or value.size == 0:
        return None
    root: Any = value
    while isinstance(root.base, np.memmap):
        root = root.base
    start, address = (part.__array_interface__["data"][0] for part in (root, value))
    file = Path(value.filename).absolute()
    try:
        found = file.stat()
        dtype = dtype_text(value.dtype)
    except (OSError, ValueError):
        return None
    first = root.offset + address - start
    return str(file), found.st_size, found.st_mtime_ns, dtype, first, list(value.shape)


MAPPED = _Mapped()
