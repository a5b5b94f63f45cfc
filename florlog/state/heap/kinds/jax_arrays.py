"""JAX's arrays and compiled functions.

An array of JAX never changes, so it is made anew where the live one is another.  Its bytes are read where they lie:
`numpy.asarray` would keep a view in the array, and JAX does not reuse the memory of an array that is looked at.
"""

from __future__ import annotations

import ctypes
import re
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np

from florlog.errors import ImageError
from florlog.state.heap.graph import Node
from florlog.state.heap.kinds.base import Build, Kind, Walk
from florlog.state.heap.kinds.objects import DESCRIBED
from florlog.state.heap.names import constant_name

_PACKED = re.compile(r"u?int[124]$|float[46]_")
"""Dtypes of which JAX may put several numbers into a byte."""


class _JaxArray(Kind):
    """``own``: dtype, shape, whether the dtype is weak, the device if it was chosen, whether the array was deleted.

    ``refs``: its bytes.  One that was donated to a compiled function has none.
    """

    name = "jax array"
    immutable = True

    def take(self, walk: Walk, value: Any) -> Node:
        if len(value.sharding.device_set) > 1:
            return walk.opaque(value, "an array that lies on several devices")
        (device,) = value.sharding.device_set
        chosen = (device.platform, device.id) if value.committed else None
        deleted = value.is_deleted()
        own = (str(value.dtype), tuple(value.shape), bool(value.aval.weak_type), chosen, deleted)
        if deleted:
            return Node(self.name, constant_name(type(value)), own, ())
        data = _bytes_of(value, device.platform)
        walk.memory.always_stored(data)
        return Node(self.name, constant_name(type(value)), own, [walk.ref(data)])

    def steps(self, node: Node) -> Iterator[str]:
        return iter(("",))

    def make(self, build: Build, node: Node, live: Any) -> Any:
        jax = sys.modules.get("jax")
        if jax is None:
            raise ImageError("jax is not imported")
        dtype, shape, weak, chosen, deleted = node.own
        kind = jax.numpy.dtype(dtype)
        data = np.zeros(shape, kind) if deleted else build.value(node.refs[0]).view(kind).reshape(shape)
        device = None
        if chosen is not None:
            platform, number = chosen
            device = next((device for device in jax.devices(platform) if device.id == number), None)
            if device is None:
                raise ImageError(f"there is no device {platform}:{number}")
        made = jax.device_put(data, device)
        if weak:
            made.aval = made.aval.update(weak_type=True)
        if deleted:
            made.delete()
        return made

    def fill(self, build: Build, node: Node, held: Any) -> None:
        """Nothing is left to fill."""


def _bytes_of(value: Any, platform: str) -> np.ndarray[Any, Any]:
    """The bytes of an array, as a flat array of its own class."""
    if platform != "cpu" or not value.nbytes or _PACKED.match(str(value.dtype)):
        return np.array(value).reshape(-1).view(np.uint8)
    value.block_until_ready()
    held = (ctypes.c_uint8 * value.nbytes).from_address(value.unsafe_buffer_pointer())
    return np.ctypeslib.as_array(held)


class _Compiled(Kind):
    """A function that JAX compiles; ``refs``: the function of the program in it.  What is compiled is made again."""

    name = "compiled"
    immutable = True
    described_as = "a compiled function"

    def take(self, walk: Walk, value: Any) -> Node:
        return Node(self.name, constant_name(type(value)), None, [walk.ref(value.__wrapped__)])

    def steps(self, node: Node) -> Iterator[str]:
        return iter((".__wrapped__",))

    def pairs(self, node: Node, live: Any) -> Any:
        return [(node.refs[0], live.__wrapped__)]

    def make(self, build: Build, node: Node, live: Any) -> Any:
        if build.value(node.refs[0]) is not live.__wrapped__:
            raise ImageError("it is compiled from another function now")
        return live

    def fill(self, build: Build, node: Node, held: Any) -> None:
        """The function in it is filled by itself."""


JAX: tuple[Kind, ...] = (_JaxArray(), _Compiled())
_KINDS: dict[str, Kind] = {
    **dict(zip(("ArrayImpl", "PjitFunction"), JAX, strict=True)),
    "PyTreeDef": DESCRIBED,
    "PyTreeRegistry": DESCRIBED,
}


def jax_kind(kind: type) -> Kind | None:
    """The kind for a class of JAX's own, None for any other; JAX is not imported for that."""
    return _KINDS.get(kind.__name__) if kind.__module__.partition(".")[0] == "jaxlib" else None
