"""Byte arrays, files in memory, and open files."""

from __future__ import annotations

import io
from typing import Any

from florlog.state.heap.graph import Node
from florlog.state.heap.kinds.base import Build, Kind, Walk
from florlog.state.heap.names import constant_name


class _ByteArray(Kind):
    name = "bytearray"

    def take(self, walk: Walk, value: bytearray) -> Node:
        return Node("bytearray", constant_name(type(value)), bytes(value))

    def make(self, build: Build, node: Node, live: Any) -> Any:
        return bytearray()

    def fill(self, build: Build, node: Node, held: Any) -> None:
        held[:] = node.own


class _Buffer(Kind):
    """A file in memory; ``own``: what it holds and where it stands, None for a closed one."""

    name = "buffer"

    def take(self, walk: Walk, value: Any) -> Node:
        own = None if value.closed else (value.getvalue(), value.tell())
        return Node("buffer", constant_name(type(value)), own)

    def fits(self, node: Node, live: Any) -> bool:
        return super().fits(node, live) and (node.own is None or not live.closed)

    def make(self, build: Build, node: Node, live: Any) -> Any:
        return build.kind_named(node.name)()

    def fill(self, build: Build, node: Node, held: Any) -> None:
        if node.own is None:
            held.close()
            return
        held.seek(0)
        held.truncate()
        held.write(node.own[0])
        held.seek(node.own[1])


class _File(Kind):
    """An open file; ``own``: where one that is only read stands."""

    name = "file"
    described_as = "an open file"

    def take(self, walk: Walk, value: io.IOBase) -> Node:
        try:
            reading = value.readable() and not value.writable() and value.seekable()
            return Node("file", constant_name(type(value)), value.tell() if reading else None)
        except (OSError, ValueError):
            return Node("file", constant_name(type(value)))

    def fill(self, build: Build, node: Node, held: Any) -> None:
        if node.own is not None and not held.closed:
            held.seek(node.own)


BUFFERS: tuple[tuple[Any, Kind], ...] = (
    (bytearray, _ByteArray()),
    ((io.BytesIO, io.StringIO), _Buffer()),
    (io.IOBase, _File()),
)
