"""Replay by several processes: each restores images and redoes its part of the request, as Flor's G workers do.

The parts are consecutive and even (`florlog_recovery.split`).  A worker that dies is replaced: another process
redoes its part from the beginning, which is possible at any time, as nothing that a worker does is visible
outside it.  An atom between two parts may be executed by both; its values are taken from the first.
"""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from florlog_recovery import AtomSequence
from florlog_wal import RunLog

from florlog.errors import FlorlogError
from florlog.hindsight.request import Request
from florlog.hindsight.request_data import to_data
from florlog.program.environment import thread_variables
from florlog.program.spawner import Child, Order, Stderr
from florlog.program.terminal import report
from florlog.redo.redone import Redone, merged, redone_of

MAX_ATTEMPTS = 3
"""How often a part is given to a worker before the replay fails."""


@dataclass(slots=True)
class _Share:
    """What one worker has to do, and what came of it."""

    order: Order
    redone: int = 0  # innermost iterations so far
    done: Redone | None = None
    error: str = ""
    child: Child | None = None


def redo_in_parallel(
    log: RunLog,
    request: Request,
    parts: Sequence[tuple[int, int]],
    progress: Callable[[int], None] | None,
) -> Redone:
    """Have every part of a request redone by a process; ``parts``: ranges of its `AtomSequence`.

    ``progress`` gets the number of innermost iterations redone by all.  Values and differences come in the order of
    the run.  Raises `FlorlogError` when a part's script fails, or its worker dies again and again.
    """
    atoms = AtomSequence(request.tree, request.wanted.atoms)
    known = replace(request, earlier=replace(request.earlier, values=()))  # no worker needs these
    shares = [
        _Share({
            "log": str(log.path),
            "request": to_data(known.limited_to(atoms.part(*part))),
        })
        for part in parts
    ]  # fmt: skip
    environment = {**os.environ, **thread_variables(request.tree.begin.environment)}
    pool = _Pool(shares, environment, progress)
    threads = [
        # What the script says on stderr need not be said by every worker.
        threading.Thread(
            target=pool.have_redone, args=(share, Stderr.DROPPED if number else Stderr.SHARED), daemon=True
        )
        for number, share in enumerate(shares)
    ]
    for thread in threads:
        thread.start()
    try:
        for thread in threads:
            thread.join()
    finally:
        pool.stop()
    if error := next((share.error for share in shares if share.error), ""):
        raise FlorlogError(error)
    done = [share.done for share in shares if share.done is not None]
    differences = list(dict.fromkeys(text for part in done for text in part.differences))
    passed = sum((Counter(part.passed) for part in done), Counter[int]())
    return Redone(merged(part.values for part in done), differences, passed)


class _Pool:
    """The workers of one replay, each led by a thread."""

    def __init__(
        self, shares: Sequence[_Share], environment: dict[str, str], progress: Callable[[int], None] | None
    ) -> None:
        self._shares = shares
        self._environment = environment
        self._progress = progress
        self._lock = threading.Lock()
        self._stopped = False

    def have_redone(self, share: _Share, stderr: Stderr) -> None:
        """Start a worker for a share, and another where it dies."""
        for attempt in range(1, MAX_ATTEMPTS + 1):
            with self._lock:
                if self._stopped:
                    return
                share.redone = 0
                share.child = Child(
                    "florlog.redo.worker", share.order, environment=self._environment, stderr=stderr
                )
            with share.child as child:
                self._listen(share, child)
                status = child.status()
            if share.done is not None or share.error or self._stopped:
                return
            if attempt < MAX_ATTEMPTS:
                report(f"a replay worker ended with status {status}: another redoes its part")
        share.error = f"a replay worker ended {MAX_ATTEMPTS} times with status {status}"

    def _listen(self, share: _Share, child: Child) -> None:
        try:
            for message in child.messages():
                match message:
                    case ["progress", int() as redone]:
                        share.redone = redone
                        self._advanced()
                    case ["done", values, differences, passed]:
                        share.done = redone_of(values, differences, passed)
                        return
        except FlorlogError as error:
            share.error = str(error)

    def _advanced(self) -> None:
        with self._lock:
            if self._progress is not None and (done := sum(share.redone for share in self._shares)):
                self._progress(done)

    def stop(self) -> None:
        """Kill the workers that are left, and start no others."""
        with self._lock:
            self._stopped = True
            for share in self._shares:
                if share.child is not None:
                    share.child.kill()
