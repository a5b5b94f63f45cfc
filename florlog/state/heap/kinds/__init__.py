"""The kinds of nodes: one class each, found by a node's kind or by the class of an object."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any

from florlog.state.heap.graph import Node
from florlog.state.heap.kinds.base import Kind
from florlog.state.heap.kinds.boosters import BOOSTERS, booster_kind
from florlog.state.heap.kinds.buffers import BUFFERS
from florlog.state.heap.kinds.code import CODE
from florlog.state.heap.kinds.containers import CONTAINERS, layout_of
from florlog.state.heap.kinds.data import DATA, OBJECT_ARRAY
from florlog.state.heap.kinds.files import MAPPED
from florlog.state.heap.kinds.generators import ENDED, GENERATORS
from florlog.state.heap.kinds.iterators import ITERATOR, ITERATORS
from florlog.state.heap.kinds.jax_arrays import JAX, jax_kind
from florlog.state.heap.kinds.lightning_files import LIGHTNING, lightning_kind
from florlog.state.heap.kinds.lightning_timers import TIMER, timer_kind
from florlog.state.heap.kinds.mlx_arrays import MLX, mlx_kind
from florlog.state.heap.kinds.objects import (
    CLASS,
    DESCRIBED,
    LEFT,
    NAMED,
    OBJECT,
    OBJECTS,
    OPAQUE,
    SHARED_OBJECT,
    TOOL,
    shared_mappings,
)
from florlog.state.heap.kinds.pointers import POINTERS
from florlog.state.heap.kinds.progress_displays import DISPLAY, display_kind
from florlog.state.heap.kinds.shared import SHARED
from florlog.state.heap.kinds.workers import ENDED_WORKERS, WORKERS
from florlog.state.heap.rules import has_plain_layout, is_own_class, is_table, is_tool, is_writer

_BY_CLASS = (*OBJECTS, *WORKERS, *DATA, *BUFFERS, *CODE, *GENERATORS, *ITERATORS, *SHARED, *POINTERS)
_OTHERS = (
    OBJECT, SHARED_OBJECT, CLASS, TOOL, LEFT, OPAQUE, NAMED, DESCRIBED, ITERATOR, OBJECT_ARRAY, MAPPED, ENDED, DISPLAY,
    TIMER, ENDED_WORKERS,
)  # fmt: skip
_OF_LIBRARIES: tuple[Callable[[type], Kind | None], ...] = (
    jax_kind,
    mlx_kind,
    booster_kind,
    lightning_kind,
    timer_kind,
    display_kind,
)
"""The libraries whose objects are taken in ways of their own; they are not imported for that."""
KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        *_OTHERS,
        *JAX,
        *MLX,
        *BOOSTERS.values(),
        *LIGHTNING,
        *(kind for _, kind in (*_BY_CLASS, *CONTAINERS)),
    )
}
"""Every kind by its name."""


@functools.cache
def kind_of(kind: Any) -> Kind:
    """The kind of node for the instances of a class."""
    if is_own_class(kind):
        return LEFT
    if is_writer(kind):
        return TOOL
    for fits, found in _BY_CLASS:
        if issubclass(kind, fits):
            return found
    for base, found in CONTAINERS:
        if issubclass(kind, base):
            plain = has_plain_layout(kind, layout_of(kind)) or hasattr(kind, "_fields")
            return found if plain else DESCRIBED
    if issubclass(kind, type):
        return CLASS
    for of_library in _OF_LIBRARIES:
        if (of_one := of_library(kind)) is not None:
            return of_one
    if kind.__module__ == "itertools":
        return ITERATOR
    if is_tool(kind):
        return TOOL
    if is_table(kind):
        return DESCRIBED
    if not has_plain_layout(kind, object):
        return DESCRIBED
    return SHARED_OBJECT if shared_mappings(kind) else OBJECT


def steps_of(node: Node) -> Iterable[str]:
    """The steps along all references of a node, as a person writes them: those of its kind, then its attributes."""
    yield from KINDS[node.kind].steps(node)
    yield from (f".{name}" for name in node.attributes or ())
