"""A worker of a parallel replay: ``python -m florlog._worker`` redoes one part of a request.

It reads its order from stdin as JSON (the arguments of the replay, the part, and how many atoms its giver counted)
and writes messages to its stdout: 4 bytes of length, then an encoded value (`florlog_wal.encode_value`): nothing
that arrives is executed.  The messages are ``["progress", N]`` and at last ``["done", ...]`` or ``["error", TEXT]``.
What the script prints goes nowhere.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any, BinaryIO

from florlog_recovery import Atoms
from florlog_wal import WalError, decode_value, encode_value

from .errors import FlorlogError


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


def main() -> None:
    """Carry out the order."""
    order = json.load(sys.stdin)
    stream = os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    try:
        _redo(order, stream)
    except (FlorlogError, WalError) as error:
        send(stream, ["error", str(error)])


def _redo(order: dict[str, Any], stream: BinaryIO) -> None:
    from ._hindsight import plan_for
    from ._replay import redo
    from ._session import open_store, store_path
    from .commands import parser
    from .commands._question import asked

    options = parser().parse_args(order["argv"])
    with open_store(store_path(options.store), "r") as store:
        question = asked(store, options)
        atoms = Atoms(question.tree, question.request)
        if len(atoms) != order["atoms"]:
            raise FlorlogError("the run or the script changed during the replay: ask again")
        question.request = atoms.part(*order["part"])
        done = redo(store, question, plan_for(question), lambda redone: send(stream, ["progress", redone]))
    found = [
        [
            v.file,
            v.line,
            v.qualname,
            v.name,
            [list(step) for step in v.path],
            v.value,
            v.trust,
            v.detail,
            v.segment,
        ]
        for v in done.values
    ]
    send(stream, ["done", found, done.differences])


if __name__ == "__main__":
    main()
