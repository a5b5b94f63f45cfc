"""The automatic audit: once in a run, while it is recorded, is what an image holds all that the run depends on?

This is ``florlog audit`` for one stretch of the run, earlier: a process of its own restores the first image,
re-executes the program to the next one and compares the whole state (`florlog.redo.early_audit_worker`).  Somebody
whose state is not captured learns that after a minute, and not when a night's training is to be resumed.  It changes
nothing else: a value is PROVEN after comparing, in every replay anew, whatever an audit said.

**When.**  At most once, between the first two neighbouring images that have an iteration between them and one before
them: at a run's beginning all is as the set-up has made it, and nothing can be missing.  Not before a run has been
recorded for `MIN_RECORDED_SECONDS`, because a short run is soon over, and only while a core is idle and there is memory
for a second process of this size.  A run that uses a GPU, has several ranks, is no script, resumes an earlier one or
takes no images within an overhead is left alone.  So is one that came after others in its program: the process would
have to go to the end of each of those first, in logs that it cannot open once it is confined, or execute them whole.
Conditions are looked at when an image has become durable, on the thread that made it so.  The training's own thread
notes where an image was taken and does nothing else.

**What nobody asked for may do no harm.**  The process has the lowest priority, is the first to be killed where memory
runs out, and writes nothing outside a directory that is removed; it opens no connection and starts no program
(`florlog.programs.confinement`).  A script that does so on the way is not audited, and neither is one that fails on
the way: the note says why.  Only the code of this process's own run is executed, and only if its signature is right.

**How it ends.**  A thread waits for the answer, adds a note to the log, and says it on the terminal if the state was
not equal.  The training never waits: the process is killed when the run ends, and ends itself when this one is gone.

Not covered: a script that waits for any child process, with ``os.wait()``, may be given this one.
"""

from __future__ import annotations

import math
import os
import sys
import tempfile
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from florlog_recovery import AUDITED, DIFFERENT, EQUAL, NOT_POSSIBLE
from florlog_wal import Note, RunBegin
from florlog_wal import Path as IterationPath

from florlog.errors import FlorlogError
from florlog.following.stack import OpenLoop
from florlog.following.trust import PROVEN, where
from florlog.images.policy import Policy
from florlog.program import spare
from florlog.program.environment import VARIABLES
from florlog.program.process import this_process
from florlog.program.restart import obstacle
from florlog.program.spawner import Child, Order, Stderr
from florlog.program.terminal import reason, report
from florlog.recording.journal import Journal

MIN_RECORDED_SECONDS = 30.0
"""Of a run, before its audit starts."""
MIN_IDLE_CORES = 1.0
"""At the start of an audit."""
MAX_MEMORY_SHARE = 0.5
"""Of the memory that is available: what this process may have used at most."""
_MAX_CLOSING_SECONDS = 2.0
"""At a run's end, for the process to be gone, which was killed."""


@dataclass(frozen=True, slots=True)
class _Place:
    """Where an image was taken."""

    lsn: int  # of its CheckpointBegin
    began: int  # LSN of the loop's LoopBegin
    parent: IterationPath
    loop: str
    index: int

    @property
    def path(self) -> IterationPath:
        return (*self.parent, (self.loop, self.index))

    @property
    def trained(self) -> bool:
        """Whether an iteration surely lies before it: what the set-up made cannot lack anything."""
        return any(index for _, index in self.path)


@dataclass(frozen=True, slots=True)
class _Stretch:
    first: _Place
    last: _Place


class _Outcome(NamedTuple):
    name: str  # EQUAL, DIFFERENT or NOT_POSSIBLE
    text: str


class EarlyAudit:
    """The audit of one run, which may never start; made by `early_audit`."""

    def __init__(self, journal: Journal, begin: RunBegin) -> None:
        self._journal = journal
        self._begin = begin
        self._started = time.perf_counter()
        self._copied: dict[int, _Place] = {}
        self._durable: _Place | None = None
        self._stretch: _Stretch | None = None
        self._thread: threading.Thread | None = None
        self._child: Child | None = None
        self._closed = False
        self._lock = threading.Lock()  # of the child, and of what is written after the run was closed

    def copied(self, loop: OpenLoop, index: int, lsn: int) -> None:
        """An image begins, on the training's thread: its CheckpointBegin has this LSN."""
        if self._thread is None:
            self._copied[lsn] = _Place(lsn, loop.lsn, loop.parent.path, loop.name, index)

    def durable(self, lsn: int) -> None:
        """An image is in the log, on the thread that persists; starts the audit if it is time."""
        here, before = self._copied.pop(lsn, None), self._durable
        if here is None or self._thread is not None:
            return
        self._durable = here
        if self._stretch is None and before is not None and before.trained and _has_iteration(before, here):
            self._stretch = _Stretch(before, here)
        with suppress(Exception):  # where the system says nothing of itself, or has no thread to give
            if self._stretch is not None and self._is_time():
                thread = threading.Thread(
                    target=self._audit, args=(self._stretch,), name="florlog-audit", daemon=True
                )
                thread.start()
                self._thread = thread

    def close(self) -> None:
        """The run ends: an audit that is not over is given up."""
        self._closed = True
        # A child that the training forks while the process starts may hold that up for as long as it lives.
        if self._lock.acquire(timeout=_MAX_CLOSING_SECONDS):
            try:
                if self._child is not None:
                    self._child.kill()
            finally:
                self._lock.release()
            if self._thread is not None:
                self._thread.join(_MAX_CLOSING_SECONDS)

    def _is_time(self) -> bool:
        if time.perf_counter() - self._started < MIN_RECORDED_SECONDS or torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
            return False
        if spare.idle_cores() < MIN_IDLE_CORES:
            return False
        return spare.peak_bytes() <= MAX_MEMORY_SHARE * spare.available_bytes()

    # -- on a thread of its own --------------------------------------------------------------------

    def _audit(self, stretch: _Stretch) -> None:
        try:
            found = self._outcome(stretch)
        except Exception as error:  # of whatever kind, the training goes on
            found = _Outcome(NOT_POSSIBLE, f"not possible: {reason(error)}")
        data = {"outcome": found.name, "reached": stretch.last.path}
        with self._lock:
            if self._closed or self._journal.stopped:  # or the process was killed
                return
            with suppress(Exception):  # the journal sees for itself that the log has stopped
                session = self._journal.session  # not through the journal, which is the training thread's
                self._journal.log.append(Note(AUDITED, found.text, data), session=session, prev=session)
        if found.name == DIFFERENT:
            report(f"audit: {found.text}; a resume would see that, and start from an earlier image")

    def _outcome(self, stretch: _Stretch) -> _Outcome:
        """What came of it.  Raises `FlorlogError` where nothing did, as after `close`."""
        with tempfile.TemporaryDirectory(prefix="florlog-audit-", ignore_cleanup_errors=True) as scratch:
            with self._lock:
                child = self._child = None if self._closed else self._process(stretch, scratch)
            if child is not None:
                with child:
                    try:
                        for message in child.messages():
                            if (found := _understood(stretch, message)) is not None:
                                return found
                    finally:
                        with self._lock:
                            self._child = None
        raise FlorlogError("the process that re-executed the script ended early")

    def _process(self, stretch: _Stretch, scratch: str) -> Child:
        order: Order = {
            "log": str(self._journal.log.path), "trust": [], "unusable": [],
            "loop": (stretch.last.parent, stretch.last.loop), "index": stretch.last.index, "last": stretch.first.lsn,
        }  # fmt: skip
        made = Child(
            "florlog.redo.early_audit_worker",
            order,
            cwd=self._begin.cwd if Path(self._begin.cwd).is_dir() else None,
            environment=self._variables() | {"TMPDIR": scratch},
            stderr=Stderr.DROPPED,
        )
        made.yield_to_others()
        return made

    def _variables(self) -> dict[str, str]:
        """The environment, with the values at the run's beginning of those variables that decide numbers."""
        recorded: dict[str, str] = self._begin.environment.get("variables", {})
        held = {name: value for name, value in os.environ.items() if name not in VARIABLES}
        return held | {name: value for name, value in recorded.items() if name in VARIABLES}


def early_audit(journal: Journal, begin: RunBegin, policy: Policy) -> EarlyAudit | None:
    """The audit of a new run, which may begin later; None for a run that is not audited."""
    if not (sys.platform == "linux" and begin.script and 0 < policy.overhead < math.inf):
        return None
    if begin.earlier or this_process.notebook.file or this_process.role is not None or obstacle():
        return None
    return EarlyAudit(journal, begin)


def _has_iteration(before: _Place, after: _Place) -> bool:
    """Whether an iteration surely lies between two images that follow each other."""
    if after.began == before.began:
        return after.index > before.index
    return after.began > before.lsn and after.index > 0


def _understood(stretch: _Stretch, message: list[Any]) -> _Outcome | None:
    start = where(stretch.first.path)
    match message:
        case ["audited", str() as label, _, int()] if label == PROVEN:
            return _Outcome(
                EQUAL, f"to {where(stretch.last.path)}: redone from {start}, the whole state was equal"
            )
        case ["audited", str(), str() as detail, int()]:
            return _Outcome(DIFFERENT, f"redone from the image at {start} the run differs: {detail}")
        case ["unusable", int(), str() as why]:
            return _Outcome(DIFFERENT, f"the image at {start} cannot be restored: {why}")
        case ["refused", str() as why]:
            return _Outcome(NOT_POSSIBLE, f"not possible: {why}")
    return None
