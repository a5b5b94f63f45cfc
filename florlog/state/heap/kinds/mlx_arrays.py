"""MLX's arrays, and the functions that it makes of functions: gradients and compiled ones.

An array is made anew where the live one is another, since whether something was written into it is not to be seen.
"""

from __future__ import annotations

import gc
from typing import Any

import numpy as np

from florlog.errors import ImageError
from florlog.state.heap.graph import Node
from florlog.state.heap.kinds.base import Build, Kind, Walk, all_same
from florlog.state.heap.kinds.objects import TOOL
from florlog.state.heap.names import constant_name


class _MlxArray(Kind):
    """``own``: MLX's number of the dtype; ``refs``: the array as MLX describes it, and its bytes."""

    name = "mlx array"
    immutable = True

    def take(self, walk: Walk, value: Any) -> Node:
        described, dtype = value.__getstate__()
        data = np.array(described)
        walk.memory.always_stored(data)
        return Node(self.name, constant_name(type(value)), dtype, [walk.ref(data)])

    def make(self, build: Build, node: Node, live: Any) -> Any:
        kind = build.kind_named(node.name)
        made = kind.__new__(kind)
        made.__setstate__((np.array(build.value(node.refs[0])), node.own))
        return made

    def fill(self, build: Build, node: Node, held: Any) -> None:
        """Nothing is left to fill."""


class _MlxFunction(Kind):
    """A function that MLX made of others; ``refs``: these, and what it was given with them.  The set-up makes it."""

    name = "mlx function"
    immutable = True
    described_as = "a function of MLX"

    def take(self, walk: Walk, value: Any) -> Node:
        return Node(self.name, constant_name(type(value)), None, walk.refs(_parts(value)))

    def pairs(self, node: Node, live: Any) -> Any:
        return zip(node.refs, _parts(live), strict=False)

    def make(self, build: Build, node: Node, live: Any) -> Any:
        if not all_same(map(build.value, node.refs), _parts(live)):
            raise ImageError("it is made of another function now")
        return live

    def fill(self, build: Build, node: Node, held: Any) -> None:
        """What it is made of is filled by itself."""


def _parts(function: Any) -> list[Any]:
    return [part for part in gc.get_referents(function) if part is not type(function)]


MLX: tuple[Kind, ...] = (_MlxArray(), _MlxFunction())
_KINDS: dict[str, Kind] = {
    "array": MLX[0],
    "_gc_func": MLX[1],
    "_RandomState": TOOL,  # `florlog.state.random_generators` has the generator's state
}


def mlx_kind(kind: type) -> Kind | None:
    """The kind for a class of MLX's own, None for any other."""
    return _KINDS.get(kind.__name__) if kind.__module__.startswith("mlx.core") else None
