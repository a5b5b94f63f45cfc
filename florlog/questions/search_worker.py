"""The search of a bisection, in a process: ``python -m florlog.questions.search_worker``.

Its order has a condition and a range of `florlog.questions.bisection.boundaries` (`florlog.redo.boundary_visit`).  It
answers ``["found", number of the boundary, terms, trust, detail, iterations redone]`` or ``["none", iterations
redone]``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from florlog_recovery import Condition, RunTree

from florlog.following.failed_images import Boundary
from florlog.program.spawner import Order, serve
from florlog.program.wire import Wire
from florlog.questions.bisection import boundaries, values_at
from florlog.redo.boundary_visit import Arrival, Look, visit


def search(order: Order, wire: Wire) -> None:
    """Look at the state at each boundary of an order's range without an image, until its condition holds."""

    def goal(tree: RunTree) -> tuple[Sequence[Boundary], Look]:
        places = range(order["start"], order["stop"])
        every = boundaries(tree)
        numbers = {every[place]: place for place in places if every[place][1] not in every[place][0].images}
        condition = Condition(order["condition"], {loop.name for loop in tree.loops()}, state=True)
        last = list(numbers)[-1]

        def look(arrival: Arrival) -> Sequence[Any] | None:
            here = arrival.loop, arrival.index
            values = values_at(condition, here, arrival.trees.__getitem__)
            if condition(values):
                return "found", numbers[here], condition.terms(values), *arrival.trust(), arrival.redone
            return ("none", arrival.redone) if here == last else None

        return list(numbers), look

    visit(order, wire, goal)


if __name__ == "__main__":
    serve(search)
