"""A worker of a parallel replay: ``python -m florlog.redo.worker`` executes one part of a request.

Its order has the run's directory and the request as data (`florlog.hindsight.request_data`): it reads no script and no
arguments to find out what is asked.  It answers ``["progress", N]``, and at last ``["done", ...]`` (`redone_data`).
"""

from __future__ import annotations

from pathlib import Path

from florlog.hindsight.request import plan_for
from florlog.hindsight.request_data import from_data
from florlog.program.spawner import Order, serve
from florlog.program.stores import open_log, tree_of
from florlog.program.wire import Wire
from florlog.redo.answer import redo
from florlog.redo.redone import redone_data


def execute_part(order: Order, wire: Wire) -> None:
    """Execute the part of a request that an order has."""

    def progress(redone: int) -> None:
        wire.send("progress", redone)

    with open_log(Path(order["log"])) as log:
        request = from_data(order["request"], tree_of(log))
        done = redo(log, request, plan_for(request), progress)
    wire.send("done", *redone_data(done))


if __name__ == "__main__":
    serve(execute_part)
