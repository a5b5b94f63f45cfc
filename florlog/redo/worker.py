"""A worker of a parallel replay: ``python -m florlog.redo.worker`` redoes one part of a request.

It reads its order from stdin as JSON (the arguments of the replay, the part, and how many atoms its giver counted)
and writes messages to its stdout (`florlog.redo.wire`): ``["progress", N]`` and at last ``["done", ...]`` or
``["error", TEXT]``.
What the script prints goes nowhere.
"""

from __future__ import annotations

import gc
import json
import os
import sys
from typing import Any, BinaryIO

from florlog_recovery import AtomSequence
from florlog_wal import WalError

from florlog.errors import FlorlogError
from florlog.redo.wire import send


def main() -> None:
    """Carry out the order."""
    gc.freeze()  # as `florlog.__main__` does
    order = json.load(sys.stdin)
    stream = os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    try:
        _redo(order, stream)
    except (FlorlogError, WalError) as error:
        send(stream, ["error", str(error)])


def _redo(order: dict[str, Any], stream: BinaryIO) -> None:
    from florlog.commands import parser
    from florlog.commands._question import asked
    from florlog.hindsight.request import plan_for
    from florlog.program.stores import open_store, store_path
    from florlog.redo.answer import redo

    options = parser("replay").parse_args(order["argv"])
    with open_store(store_path(options.store), "r") as store:
        question = asked(store, options)
        atoms = AtomSequence(question.tree, question.request)
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
    send(stream, ["done", found, done.differences, list(done.passed.items())])


if __name__ == "__main__":
    main()
