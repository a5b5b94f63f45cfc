"""The state at a boundary, from a process: ``python -m florlog.redo.state_worker``.

Its order names the boundary (`florlog.redo.boundary_visit`).  It answers the state's pages, ``["page", digest,
bytes]``, and ``["state", digest of the page table, trust, detail, iterations redone]``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from florlog_wal import encode_table, page_digest

from florlog.hindsight.request_data import loop_named
from florlog.images.imager import page_table
from florlog.images.snapshot import snapshot
from florlog.program.spawner import Order, serve
from florlog.program.wire import Wire
from florlog.redo.boundary_visit import Arrival, visit


def send_state(order: Order, wire: Wire) -> None:
    """Run to the boundary of an order, and send the state there."""

    def send_pages(pages: Sequence[memoryview], keys: Sequence[str]) -> list[bytes]:
        digests = [page_digest(page) for page in pages]
        for digest, page in zip(digests, pages, strict=True):
            wire.send("page", digest, bytes(page))
        return digests

    def look(arrival: Arrival) -> Sequence[Any]:
        trust = arrival.trust()
        trees = arrival.trees
        table = encode_table(page_table(snapshot(trees, flat=trees.flat), send_pages))
        (digest,) = send_pages([memoryview(table)], [""])
        return "state", digest, *trust, arrival.redone

    visit(order, wire, lambda tree: ([(loop_named(tree, *order["loop"]), order["index"])], look))


if __name__ == "__main__":
    serve(send_state)
