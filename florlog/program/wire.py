"""What processes of florlog send each other through a pipe: nothing that arrives is executed.

A message is a list, sent as one encoded value (`florlog_wal.encode_value`).  `multiprocessing` frames it; its ``send``
and ``recv``, which pickle, are not used.
"""

from __future__ import annotations

from multiprocessing.connection import Connection
from typing import Any

from florlog_wal import decode_value, encode_value


class Wire:
    """One end of a pipe between two processes."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def send(self, *message: Any) -> None:
        """Send a message.

        Raises `OSError` where the other side has ended, `Unencodable` for what the log does not hold either.
        """
        self._connection.send_bytes(encode_value(list(message)))

    def receive(self) -> list[Any] | None:
        """The next message; None when the other side has ended, also in the midst of a message."""
        try:
            data = self._connection.recv_bytes()
        except (EOFError, OSError):
            return None
        message: list[Any] = decode_value(data)
        return message

    def close(self) -> None:
        """Close this end."""
        self._connection.close()
