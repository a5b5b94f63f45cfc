"""From one image to the next, in a process: ``python -m florlog.redo.audit_worker``.

Its order names the boundary of the second image, and as ``last`` the LSN of the first, after which none is used
(`florlog.redo.boundary_visit`).  It answers ``["audited", trust, detail, iterations redone]``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from florlog.hindsight.request_data import loop_named
from florlog.program.spawner import Order, serve
from florlog.program.wire import Wire
from florlog.redo.boundary_visit import Arrival, visit


def send_outcome(order: Order, wire: Wire) -> None:
    """Run from the first image to the second, and say whether the state is the recorded one."""

    def look(arrival: Arrival) -> Sequence[Any]:
        return "audited", *arrival.compared(), arrival.redone

    visit(order, wire, lambda tree: ([(loop_named(tree, *order["loop"]), order["index"])], look))


if __name__ == "__main__":
    serve(send_outcome)
