"""The open transactions of a run, what is logged in them, and the records of both.

Each loop iteration is a transaction.  `Transactions.stack` has those that are open: the run itself first, the
innermost last.  An iteration's Begin record is written when a loop begins in it, so an innermost iteration has one
record alone, its commit.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

import torch
from florlog_wal import Begin, Commit, LoopBegin, Unencodable, Values, encode_value

from florlog.errors import LogValueError, StoreError
from florlog.following.guide import Guide
from florlog.following.stack import OpenIteration, OpenLoop
from florlog.program.terminal import reason, warn
from florlog.recording.checkpointer import Checkpointer
from florlog.recording.gpu_values import later
from florlog.recording.journal import Journal
from florlog.recording.once import from_signal_handler
from florlog.state.logged_values import plain
from florlog.state.tensors import dtype_name

_SCALARS = frozenset({float, int, str, bool, type(None)})


def joined(values: Any, named: dict[str, Any]) -> dict[str, Any]:
    """What a log statement was given: a mapping, whose keys become texts, and values by name.

    Anything else than a mapping stands under its type's name, for which it is refused or kept as a value.
    """
    if not isinstance(values, Mapping):
        return {type(values).__name__: values, **named}
    try:
        return {key if type(key) is str else str(key): value for key, value in values.items()} | named
    except Exception:  # a mapping of the user's may fail to be gone through
        return {type(values).__name__: values, **named}


def type_text(value: Any) -> str:
    """What a value is, for a message: its type, and of a tensor what may be special about it."""
    if not isinstance(value, torch.Tensor):
        return type(value).__name__
    layout = str(value.layout).removeprefix("torch.")
    return f"{type(value).__name__} (dtype {dtype_name(value.dtype)}, layout {layout}, on {value.device})"


@dataclass(slots=True, eq=False)
class Pending:
    """A for loop that was left early, in an iteration of which the log may have nothing yet."""

    iteration: OpenIteration
    inside: list[OpenIteration] = field(default_factory=list)
    """What was open in it, innermost first."""
    cut: bool = True
    """Whether an exception is known to have left it."""
    certain: bool = False
    """Whether a break or return is known to have left it."""
    seconds: float = 0.0
    prints: tuple[bytes, bytes, bytes] = (b"", b"", b"")
    entered: bool = False
    """Whether the log has the loop's beginning, where it is to have it."""
    committed: bool = False
    """Whether the log has the iteration."""
    doubtful: bool = True
    """Whether florlog was interrupted at work in the loop: the log may have more of it than is known here."""


class Transactions:
    """The open iterations of one run."""

    __slots__ = (
        "_refused", "_statements", "_strict", "checkpointer", "checks", "journal", "pending", "recording", "stack",
        "went_on",
    )  # fmt: skip

    def __init__(
        self,
        journal: Journal | None,
        guide: Guide | None,
        checkpointer: Checkpointer,
        *,
        strict: bool = False,
    ) -> None:
        self.journal = journal
        self._strict = strict
        self._refused: set[str] = set()  # what was logged in vain
        self.checks = None if guide is None else guide.checks
        self.checkpointer = checkpointer
        root = OpenIteration(None, 0, time.perf_counter(), 0.0, begun=True)
        self.stack = [root]
        self.pending: list[Pending] = []
        """Loops that were left, perhaps by an exception, innermost first, until it is known."""
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

        What the log cannot keep is left out, with a warning.  Raises `LogValueError` in a strict run, and in a replay
        for a value that was not logged when the run was recorded: it is what is asked for.
        """
        if self.pending:
            self.went_on()
        iteration = self.stack[-1]
        recording, checks = self.recording, self.checks
        if not recording and checks is None:
            return
        statement = 0
        if recording:
            # Hashing code, and finding the line of an instruction, would take longer than all the rest.
            use = id(frame.f_code), frame.f_lasti
            statement = self._statements.get(use) or self._statement(use, frame, iteration, values)
        for name, value in values.items():
            try:
                held = value if type(value) in _SCALARS else self.loggable(name, value)
            except LogValueError as error:
                self._refuse(error, frame)
                continue
            if recording:
                iteration.values.append((statement, name, held))
            if checks is not None:
                code, line = frame.f_code, frame.f_lineno
                checks.log(iteration, (code.co_filename, line, code.co_qualname), name, held)

    def _refuse(self, error: LogValueError, frame: FrameType) -> None:
        """A value cannot be logged: leave it out, and say so once."""
        asked = self.checks is not None and not self.checks.statements.was_there(
            frame.f_code.co_filename, frame.f_lineno
        )
        if self._strict or asked:
            raise error
        text = reason(error)
        if self.recording and text not in self._refused:
            self._refused.add(text)
            warn(f"{text}; it is left out of the log")

    def _statement(
        self, use: tuple[int, int], frame: FrameType, iteration: OpenIteration, values: dict[str, Any]
    ) -> int:
        """The id of the statement that a frame is executing, which is new."""
        assert self.journal is not None
        site = frame.f_code, frame.f_lineno
        loops = tuple(name for name, _ in iteration.path)
        try:
            statement = self.journal.statement("log", site, loops, tuple(values))  # which keeps the code
        except StoreError:  # of a strict run
            raise
        except Exception as error:  # such as a source that cannot be parsed in the memory that there is
            if from_signal_handler(error):
                raise
            self.journal.stop(error)
            self.journal.complain()
            return 0
        self._statements[use] = statement
        return statement

    def loggable(self, name: str, value: Any) -> Any:
        """A value as the log keeps it.  Raises `LogValueError`, which names it."""
        if isinstance(value, torch.Tensor) and value.is_cuda and self.journal and self.checks is None:
            try:
                held = later(value)
            except Exception as error:  # it is sparse, or there is no pinned memory left
                raise LogValueError(f"cannot log {name!r}: {reason(error)}") from None
            self.journal.late = True
            return held
        try:
            held = plain(value)
            if type(held) not in _SCALARS:
                encode_value(held)
        except Unencodable as error:
            raise LogValueError(
                f"cannot log {name!r}: {error}; log numbers, strings, tensors, arrays, or containers of them"
            ) from None
        except Exception as error:  # torch's own, of a tensor that is sparse, quantized or without data
            raise LogValueError(
                f"cannot log {name!r}: a {type_text(value)} does not give its values ({reason(error)})"
            ) from None
        return held

    # -- records -----------------------------------------------------------------------------------

    def log_start(self, loop: OpenLoop) -> None:
        """Write that a loop begins, after the Begin records of what is around it; a failure ends the recording."""
        journal = self.journal
        assert journal is not None
        try:
            self.log_begins()
            self.log_loop(loop)
        except StoreError:  # of a strict run
            raise
        except Exception as error:
            if from_signal_handler(error):
                raise
            journal.stop(error)
            journal.complain()

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
        self.log_values(parent)
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

    def log_values(self, iteration: OpenIteration) -> None:
        """Write what was logged in an iteration up to here, once, also if that is interrupted and called again."""
        assert self.journal is not None
        if iteration.values and not iteration.writing:
            iteration.writing = len(iteration.values)
        if iteration.writing:
            values = tuple(iteration.values[: iteration.writing])
            loop = iteration.loop.lsn if iteration.loop is not None else 0
            record = Values(loop, iteration.index, iteration.segment, values)
            iteration.prev = self.journal.append(record, iteration.prev)
            # No call from the append on, so no signal handler can raise in between.
            iteration.values = iteration.values[iteration.writing :]
            iteration.writing = 0

    def commit(
        self, iteration: OpenIteration, seconds: float, prints: tuple[bytes, bytes, bytes], *, left: bool
    ) -> None:
        """Write that an iteration has ended, if records are written."""
        if self.recording and self.journal is not None and iteration.loop is not None:
            if iteration.writing:
                self.log_values(iteration)
            values = tuple(iteration.values)
            record = Commit(
                iteration.loop.lsn, iteration.index, iteration.segment, values, seconds, *prints, left
            )
            self.journal.append(record, iteration.prev)
