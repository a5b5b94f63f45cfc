"""A process that runs a recorded program to a place and tells what is there: ``python -m florlog.redo.explorer``.

It reads its order from stdin as JSON and writes messages to its stdout (`florlog.redo.wire`).  An order for a state
names a boundary; the messages are the state's pages, ``["page", digest,
bytes]``, and ``["state", digest of the page table, trust, detail, iterations redone]``.  An order for the first place
names a condition and a range of `florlog.questions.bisection.boundaries`; the message is ``["found", its number,
terms, trust,
detail, iterations redone]``, or ``["none", iterations redone]`` and ``["end"]``.  Instead of that may come
``["differs", text]``, ``["unusable", why images cannot be restored]`` or ``["error", text]``.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from florlog_recovery import Atoms, Condition, Loop, Plan, RunTree, WhereError, boundary_atoms, plan_redo
from florlog_wal import Store, WalError, encode_table, page_digest

from florlog.errors import FlorlogError, ImageError
from florlog.following.trust import where
from florlog.images.imager import page_table
from florlog.images.snapshot import snapshot
from florlog.program.environment import changes, environment
from florlog.program.measured_costs import costs_of
from florlog.program.stores import open_store, tree_of
from florlog.programs.recorded_program import RecordedProgram
from florlog.questions.bisection import Boundary, boundaries, looked_at
from florlog.redo.lookout import Lookout
from florlog.redo.wire import send


class Explorer:
    """Carries out one order."""

    def __init__(self, order: dict[str, Any], stream: BinaryIO) -> None:
        self._order = order
        self._stream = stream

    def tell(self, *message: Any) -> None:
        """Send a message."""
        send(self._stream, list(message))

    def finish(self, *message: Any) -> NoReturn:
        """Send the last message: nothing that stands behind this place is executed."""
        self.tell(*message)
        os._exit(0)

    def run(self) -> None:
        """Run the program to the boundaries that the order names."""
        with open_store(Path(self._order["store"]), "r") as store:
            tree = tree_of(store, self._order["run"])
            program = RecordedProgram(store, tree)
            searching = self._order["what"] == "first"
            wanted = self._wanted(tree)
            request = boundary_atoms(wanted)
            plan = self._plan(store, tree, request)
            changed = changes(tree.begin.environment, environment())
            condition = self._condition(tree) if searching else None

            def look(loop: Loop, index: int, trees: Callable[[], dict[str, Any]]) -> None:
                state = trees()
                if condition is None:
                    trust = guide.trust(loop, index, changed)
                    self.finish("state", self._send_state(state), *trust, guide.redone)
                try:  # here: the script must not catch it
                    values = looked_at(condition, (loop, index), state.__getitem__)
                    holds = condition(values)
                except (FlorlogError, WhereError) as error:
                    self.finish("error", str(error))
                if holds:
                    trust = guide.trust(loop, index, changed)
                    place = boundaries(tree).index((loop, index))
                    self.finish("found", place, condition.terms(values), *trust, guide.redone)
                elif (loop, index) == wanted[-1]:
                    self.tell("none", guide.redone)
                    self.finish("end")

            guide = Lookout(
                store,
                tree,
                plan,
                request,
                look,
                lambda text: self.finish("differs", text),
                program.steady_before,
            )
            try:
                program.run(guide)
            except ImageError as error:
                if self._order["unusable"]:
                    raise
                self.finish("unusable", str(error))
        loop, index = wanted[-1]
        place = where(loop.path(index))
        raise FlorlogError(f"the script ended and did not come to {place}, where it was when recorded")

    def _wanted(self, tree: RunTree) -> list[Boundary]:
        """The boundaries to look at, in the order of the run."""
        if self._order["what"] == "first":
            part = boundaries(tree)[self._order["start"] : self._order["stop"]]
            return [(loop, index) for loop, index in part if index not in loop.images]
        place = tree.locate(tuple((name, index) for name, index in self._order["parent"]))
        node = tree.root if place is None else place[0].nodes[place[1]]
        loop = node.find(self._order["loop"])
        assert loop is not None
        return [(loop, self._order["index"])]

    def _condition(self, tree: RunTree) -> Condition:
        return Condition(self._order["condition"], {loop.name for loop in tree.loops()}, state=True)

    def _plan(self, store: Store, tree: RunTree, request: Atoms) -> Plan:
        unusable = {
            (loop, index)
            for loop in tree.loops()
            for index in loop.images
            if self._order["unusable"] and (index or loop.depth > 1)
        }
        return plan_redo(tree, request, costs_of(store, tree), unusable)

    def _send_state(self, trees: dict[str, Any]) -> bytes:
        """Send the pages of a state; the digest of its page table."""
        table = encode_table(page_table(snapshot(trees), self._send_pages))
        (digest,) = self._send_pages([memoryview(table)], [""])
        return digest

    def _send_pages(self, pages: Sequence[memoryview], keys: Sequence[str]) -> list[bytes]:
        digests = [page_digest(page) for page in pages]
        for digest, page in zip(digests, pages, strict=True):
            self.tell("page", digest, bytes(page))
        return digests


def main() -> None:
    """Carry out the order."""
    order = json.load(sys.stdin)
    stream = os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    sys.path.insert(0, "")  # what the script's own directory takes the place of
    explorer = Explorer(order, stream)
    try:
        explorer.run()
    except (FlorlogError, WalError) as error:
        explorer.finish("error", str(error))


if __name__ == "__main__":
    main()
