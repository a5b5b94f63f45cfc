"""The open transactions of a run, what is logged in them, and the records of both.

Each loop iteration is a transaction.  `Transactions.stack` has those that are open: the run itself first, the
innermost last.  An iteration's Begin record is written when a loop begins in it, so an innermost iteration has one
record alone, its commit.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType
from typing import Any

import torch
from florlog_wal import Begin, Commit, LoopBegin, Unencodable, Values, encode_value

from florlog.errors import LogValueError
from florlog.following.guide import Guide
from florlog.following.stack import OpenIteration, OpenLoop
from florlog.recording.checkpointer import Checkpointer
from florlog.recording.gpu_values import later
from florlog.recording.journal import Journal
from florlog.state.logged_values import plain

_SCALARS = frozenset({float, int, str, bool, type(None)})


@dataclass(slots=True, eq=False)
class Pending:
    """An iteration that was left early, of which nothing is in the log."""

    iteration: OpenIteration
    inside: list[OpenIteration]
    """What was open in it, innermost first."""
    cut: bool
    """Whether an exception is known to have left it."""
    seconds: float
    prints: tuple[bytes, bytes, bytes]
    certain: bool = False
    """Whether a break or return is known to have left it."""
    began: int = 0
    """The LSN after which it is written, once that has begun; a signal may interrupt it."""


class Transactions:
    """The open iterations of one run."""

    __slots__ = (
        "_statements",
        "checkpointer",
        "checks",
        "journal",
        "pending",
        "recording",
        "stack",
        "went_on",
    )

    def __init__(self, journal: Journal | None, guide: Guide | None, checkpointer: Checkpointer) -> None:
        self.journal = journal
        self.checks = None if guide is None else guide.checks
        self.checkpointer = checkpointer
        root = OpenIteration(None, 0, time.perf_counter(), 0.0, begun=True)
        self.stack = [root]
        self.pending: list[Pending] = []
        """Iterations that were left, perhaps by an exception, innermost first, until it is known."""
        self.went_on: Callable[[], None] = lambda: None
        """To be called when the script does something and there are pending iterations."""
        self._statements: dict[tuple[int, int], int] = {}
        """Id of a code object and offset of an instruction -> log statement."""
        if guide is not None:
            guide.start(root)
        self.recording = journal is not None and not (guide and guide.navigating)
        """Whether records are written: from the start, or, in a resume, from its frontier on."""

    def disown(self) -> None:
        """In a forked child: nothing is recorded, and nothing compared."""
        self.journal = self.checks = None
        self.recording = False

    # -- logged values -----------------------------------------------------------------------------

    def log(self, frame: FrameType, values: dict[str, Any]) -> None:
        """Log values in the innermost iteration, for the statement that ``frame`` is executing.

        Raises `LogValueError` for what the log cannot keep.
        """
        if self.pending:
            self.went_on()
        iteration = self.stack[-1]
        recording, checks = self.recording, self.checks
        statement = 0
        if recording:
            # Hashing code, and finding the line of an instruction, would take longer than all the rest.
            use = id(frame.f_code), frame.f_lasti
            statement = self._statements.get(use) or self._statement(use, frame, iteration, values)
        for name, value in values.items():
            held = value if type(value) in _SCALARS else self.loggable(name, value)
            if recording:
                iteration.values.append((statement, name, held))
            if checks is not None:
                code, line = frame.f_code, frame.f_lineno
                checks.log(iteration, (code.co_filename, line, code.co_qualname), name, held)

    def _statement(
        self, use: tuple[int, int], frame: FrameType, iteration: OpenIteration, values: dict[str, Any]
    ) -> int:
        """The id of the statement that a frame is executing, which is new."""
        assert self.journal is not None
        site = frame.f_code, frame.f_lineno
        loops = tuple(name for name, _ in iteration.path)
        statement = self.journal.statement("log", site, loops, tuple(values))  # which keeps the code
        self._statements[use] = statement
        return statement

    def loggable(self, name: str, value: Any) -> Any:
        """A value as the log keeps it.  Raises `LogValueError`, which names it."""
        if isinstance(value, torch.Tensor) and value.is_cuda and self.journal and self.checks is None:
            self.journal.late = True
            return later(value)
        held = plain(value)
        if type(held) not in _SCALARS:
            try:
                encode_value(held)
            except Unencodable as error:
                raise LogValueError(
                    f"cannot log {name!r}: {error}; log numbers, strings, tensors, arrays, or containers of them"
                ) from None
        return held

    # -- records -----------------------------------------------------------------------------------

    def log_begins(self) -> None:
        """Write the Begin records of the open iterations that have none yet."""
        assert self.journal is not None
        for iteration in self.stack:
            if not iteration.begun and iteration.loop is not None and iteration.loop.lsn:
                begin = Begin(iteration.loop.lsn, iteration.index)
                iteration.prev = self.journal.append(begin, iteration.prev)
                iteration.begun = True

    def log_loop(self, loop: OpenLoop, start: int = 0) -> None:
        """Write that a loop begins, at index ``start``, and what was logged around it up to here."""
        journal, parent = self.journal, loop.parent
        assert journal is not None
        parent_lsn = parent.loop.lsn if parent.loop is not None else 0
        if parent.values:
            values = Values(parent_lsn, parent.index, parent.segment, tuple(parent.values))
            parent.prev = journal.append(values, parent.prev)
            parent.values = []
        names = (*(name for name, _ in parent.path), loop.name)
        statement = journal.statement("loop", loop.site, names[:-1], (loop.name,))
        since, own = parent.segment_started, parent.segment_own_seconds
        if not parent.segment:
            since, own = parent.started, parent.own_seconds
        record = LoopBegin(
            path=parent.path,
            name=loop.name,
            parent=parent_lsn,
            statement=statement,
            form=loop.form,
            length=loop.length,
            start=start,
            stack=loop.stack,
            seconds=max(0.0, time.perf_counter() - since - (self.checkpointer.own_seconds - own)),
            data=loop.data,
        )
        loop.start = start
        loop.lsn = parent.prev = journal.append(record, parent.prev)

    def commit(
        self, iteration: OpenIteration, seconds: float, prints: tuple[bytes, bytes, bytes], *, left: bool
    ) -> None:
        """Write that an iteration has ended, if records are written."""
        if self.recording and self.journal is not None and iteration.loop is not None:
            values = tuple(iteration.values)
            record = Commit(
                iteration.loop.lsn, iteration.index, iteration.segment, values, seconds, *prints, left
            )
            self.journal.append(record, iteration.prev)
