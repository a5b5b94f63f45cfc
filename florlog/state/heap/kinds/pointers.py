"""Pointers into memory of a C library: what lies there is not seen, so whoever holds one is not taken by attributes."""

from __future__ import annotations

import ctypes
from typing import Any

from florlog.state.heap.graph import Node
from florlog.state.heap.kinds.base import Kind, Walk
from florlog.state.heap.kinds.objects import TOOL

_POINTERS: Any = (ctypes.c_void_p, ctypes._Pointer)


class _Pointer(Kind):
    name = "pointer"
    described_as = "a pointer"

    def take(self, walk: Walk, value: Any) -> Node:
        if not value:
            return TOOL.take(walk, value)
        return walk.opaque(value, "it points to memory of a C library, where state may lie that is not seen")


POINTERS: tuple[tuple[Any, Kind], ...] = ((_POINTERS, _Pointer()),)
