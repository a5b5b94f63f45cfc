"""What processes of florlog tell each other through a pipe: nothing that arrives is executed.

A message is 4 bytes of length, then an encoded value (`florlog_wal.encode_value`).
"""

from __future__ import annotations

from typing import Any, BinaryIO

from florlog_wal import decode_value, encode_value


def send(stream: BinaryIO, message: list[Any]) -> None:
    """Write one message."""
    data = encode_value(message)
    stream.write(len(data).to_bytes(4, "little") + data)
    stream.flush()


def receive(stream: BinaryIO) -> list[Any] | None:
    """Read one message; None when the other side has ended, also in the midst of a message."""
    length = stream.read(4)
    if len(length) < 4:
        return None
    size = int.from_bytes(length, "little")
    data = stream.read(size)
    if len(data) < size:
        return None
    message: list[Any] = decode_value(data)
    return message
