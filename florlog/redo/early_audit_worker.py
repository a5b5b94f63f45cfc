"""The automatic audit's process: ``python -m florlog.redo.early_audit_worker``.

It does what `florlog.redo.audit_worker` does while the run is still being recorded, and unasked
(`florlog.recording.early_audit`), and so it is confined (`florlog.programs.confinement`).  Besides the answers of that
module it has ``["refused", why the run is not audited]``.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from florlog.hindsight.request_data import loop_named
from florlog.program.spawner import Order, serve
from florlog.program.stores import open_log
from florlog.program.wire import Wire
from florlog.programs.confinement import confine, end_group
from florlog.redo.boundary_visit import Arrival, visit


def send_outcome(scratch: str, order: Order, wire: Wire) -> None:
    """Run from the first image to the second, and say whether the state is the recorded one.

    ``scratch``: the directory for all that is written.
    """

    def refuse(why: str) -> None:
        wire.send("refused", why)
        end_group()

    def look(arrival: Arrival) -> Sequence[Any]:
        return "audited", *arrival.compared(), arrival.redone

    platform.platform()  # asks a program of the system, and keeps the answer
    # Opened here, because its lock file cannot be opened any more afterwards.
    with open_log(Path(order["log"])):
        if not confine(scratch, refuse):
            wire.send("refused", "this kernel cannot confine a process (Landlock, Linux 6.7)")
            return
        visit(order, wire, lambda tree: ([(loop_named(tree, *order["loop"]), order["index"])], look))


def remove(scratch: str) -> None:
    """Remove what the program wrote: nobody else is left to do it.

    By descriptors, which the overlay of the program's files lets through.
    """
    for _, folders, files, fd in os.fwalk(scratch, topdown=False):
        for name in (*folders, *files):
            try:
                os.unlink(name, dir_fd=fd)
            except IsADirectoryError:
                os.rmdir(name, dir_fd=fd)
    above = os.open(os.path.dirname(scratch), os.O_RDONLY)  # noqa: PTH120
    os.rmdir(os.path.basename(scratch), dir_fd=above)  # noqa: PTH119


if __name__ == "__main__":
    given = os.environ["TMPDIR"]  # the program may change it
    serve(partial(send_outcome, given), orphaned=partial(remove, given))
