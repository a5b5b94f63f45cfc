"""A run as its user sees it: tracked state, loops whose iterations are transactions, logged values.

The same object serves recording, resuming and replaying; what differs is held by its parts.  A *journal* writes
records, a *checkpointer* takes images, a *guide* follows a plan through an earlier recording.  Recording has a journal
and takes images, a replay has a guide, a resume has all three: it is guided up to the last restore of its plan and
records from there.  The parts meet in the loops (`florlog.recording.loops`).
"""

from __future__ import annotations

import inspect
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import FrameType, TracebackType
from typing import Any, TypeVar

from florlog_recovery import BY_HOOKS
from florlog_wal import Note

from florlog.following.guide import Guide
from florlog.following.stack import Site
from florlog.images.budget import Room
from florlog.images.policy import Policy
from florlog.program.terminal import reason, warn
from florlog.recording.checkpointer import Checkpointer, Tell
from florlog.recording.early_audit import EarlyAudit
from florlog.recording.ending import log_end
from florlog.recording.fingerprints import Pace
from florlog.recording.journal import Journal
from florlog.recording.loop_start import Steps
from florlog.recording.loops import Loops
from florlog.recording.once import from_signal_handler
from florlog.recording.transactions import Transactions, joined
from florlog.source.edit.skip_signal import SkipRest
from florlog.state.delta_log import DeltaLog

T = TypeVar("T")
_frame = sys._getframe


class Run:
    """One recorded execution of a script.  Made by `florlog.run`; use it as a context manager."""

    def __init__(
        self,
        *,
        run_id: str,
        name: str,
        script: str,
        journal: Journal | None,
        guide: Guide | None,
        policy: Policy,
        room: Callable[[Tell], Room] | None = None,
        audit: EarlyAudit | None = None,
        close: Callable[[], None],
        strict: bool = False,
    ) -> None:
        self.id = run_id
        self.name = name
        self.resumed = journal is not None and guide is not None
        """Whether this goes on with an earlier recording."""
        self._script = script
        self._started = time.perf_counter()
        self._journal = journal
        self._guide = guide
        self._close = close
        self._strict = strict
        self._refused: set[str] = set()  # what is tracked in vain
        self._hooked: set[str] = set()  # frameworks whose loops are recorded by their hooks
        self._states = Checkpointer(journal, policy, room, audit)
        if guide is not None and not guide.resuming:
            self._states.state.is_added = guide.statements.is_added
        self._transactions = Transactions(journal, guide, self._states, strict=strict)
        self._loops = Loops(self._transactions, guide, Pace(policy.overhead), strict=strict)

    # -- what a user calls -------------------------------------------------------------------------

    def track(self, /, *, derived: dict[str, Callable[[], Any]] | None = None, **objects: Any) -> None:
        """Include the state of ``objects`` in images, under their names.

        Anything with ``state_dict()`` and ``load_state_dict()``, tensors, arrays, RNGs and plain values can be
        tracked.  ``derived`` maps names to functions that regenerate state from the rest after a restore (LWCP,
        ICPP 2019): an object tracked under such a name is not stored.  A function makes its object anew in
        place, or returns its state.  What it makes is compared with the state by samples, and where that
        differs, a warning says that it is stored after all.

        What a variable of the program reaches is in images anyway; what is tracked has a name there, by which
        `state_at` shows it.  An object that cannot be shown so, is in images all the same; with ``strict`` it raises
        `TrackError`.
        """
        self.track_all(objects, derived or {})

    def track_all(self, objects: dict[str, Any], derived: dict[str, Callable[[], Any]]) -> None:
        """As `track`, for names of any kind."""
        if self._journal is None and self._guide is None:
            return
        for name, target in objects.items():
            try:
                self._states.state.track(name, target)
            except Exception:
                if self._strict:
                    raise
        for name, function in derived.items():
            try:
                self._states.state.derive(name, function)
            except Exception as error:
                if self._strict:
                    raise
                self._refuse(error)

    def _refuse(self, error: Exception) -> None:
        """Something that should be in images cannot be: none are taken any more."""
        self._states.withhold()
        text = reason(error)
        if self._journal is not None and text not in self._refused:
            self._refused.add(text)
            warn(f"{text}; no images are taken from now on, so a replay or resume starts before this")

    def delta_log(
        self, name: str, value: Any = None, apply: Callable[[Any, Any], Any] = list.append
    ) -> DeltaLog:
        """Track, under ``name``, a value that changes by edits alone; images store the edits that are new.

        ``value`` is a list, dict or set (default: an empty list), ``apply(value, edit)`` changes it in place
        (default: appends).  Use `DeltaLog.append` to edit and `DeltaLog.value` to read.  Where the value or an edit
        cannot be encoded, a warning says so and no more images are taken; with ``strict`` that raises `TrackError`.
        """
        made = DeltaLog(name, [] if value is None else value, apply, None if self._strict else self._refuse)
        self.track_all({name: made}, {})
        return made

    def log(self, values: Mapping[str, Any] | None = None, /, **named: Any) -> None:
        """Log values under their names in the current iteration: ``run.log(loss=loss)``, or a mapping of any names.

        Numbers, strings, tensors, arrays and containers of them.  Anything else is left out and named by a warning;
        with ``strict`` it raises `LogValueError`.
        """
        self._transactions.log(_frame(1), named if values is None else joined(values, named))

    def loop(self, name: str, iterable: Iterable[T]) -> Iterator[T]:
        """Iterate over ``iterable``; each pass is a transaction, with index from 0."""
        frame = _frame(1)
        return self._loops.start(name, iterable, (frame.f_code, frame.f_lineno))

    def iteration(self, name: str, index: int) -> Iteration:
        """A transaction for a while-loop: ``with run.iteration("step", i):``, numbered 0, 1, 2, ..."""
        frame = _frame(1)
        return Iteration(self._loops, name, index, (frame.f_code, frame.f_lineno))

    def __enter__(self) -> Run:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        root, guide = self._transactions.stack[0], self._guide
        try:
            self._log_end(error)
            if guide is not None:
                guide.end()
        finally:
            self._close()
        if guide is not None and not guide.resuming and error is None and root.abandoned:
            raise SkipRest  # what follows the run is not planned either

    def _log_end(self, error: BaseException | None) -> None:
        recording = self._transactions.recording
        try:
            if error is None:
                self._loops.end_run()
            else:
                self._loops.fail_run()
            if self._guide is not None:
                if error is None and self._journal is None and self._states.state.lacks_gradients():
                    self._guide.lacks_gradients()
                self._guide.leave(error)
            log_end(self._transactions, self._guide, self._script, self._started, error)
        except Exception as failure:
            if self._strict or not recording or self._journal is None or from_signal_handler(failure):
                raise
            self._journal.stop(failure)

    # -- what florlog calls for the user's code ----------------------------------------------------

    def log_at(self, frame: FrameType, values: dict[str, Any]) -> None:
        """As `log`, for the statement that ``frame`` is executing."""
        self._transactions.log(frame, values)

    def loop_at(self, site: Site, name: str, iterable: Iterable[T], *, bare: bool = False) -> Iterator[T]:
        """As `loop`, for a call at ``site``; ``bare``: it is known that a ``for`` takes the loop as it is."""
        return self._loops.start(name, iterable, site, bare=bare)

    def iteration_at(self, site: Site, name: str, index: int) -> Iteration:
        """As `iteration`, for a call at ``site``."""
        return Iteration(self._loops, name, index, site)

    def loggable(self, name: str, value: Any) -> Any:
        """A value as the log keeps it.  Raises `LogValueError`."""
        return self._transactions.loggable(name, value)

    @property
    def open_loops(self) -> set[str]:
        """The names of the loops that are open here, as they were given."""
        return {loop.split("#")[0] for loop, _ in self._transactions.stack[-1].path}

    def leave(self, file: str, line: int) -> None:
        """Leave the innermost iteration here if nothing more of it is planned; for instrumented code."""
        if self._guide is not None and self._guide.leaves(self._transactions.stack[-1], file, line):
            raise SkipRest

    def passes(self, piece: int, objects: tuple[Any, ...]) -> bool:
        """Pass over a piece of code here if the plan lets it; for instrumented code."""
        return self._guide is not None and self._guide.passes(
            self._transactions.stack[-1],
            piece,
            lambda acts: self._states.state.passing.pass_over(acts, objects),
        )

    @property
    def depth(self) -> int:
        """How many iterations are open."""
        return len(self._transactions.stack) - 1

    def end_iterations(self) -> None:
        """The loop of `iteration` that is open here has ended."""
        self._loops.closing.settle(self._transactions.stack[-1])

    def left_iterations(self, depth: int) -> None:
        """An exception has left the iterations of `iteration` but the outermost ``depth``."""
        self._loops.closing.leave_with(depth)

    def is_only_read(self, framework: str) -> None:
        """From now on loops of a framework are recorded that cannot be executed again, and no images are taken."""
        if framework not in self._hooked and self._journal is not None:
            self._hooked.add(framework)
            self._states.give_up()
            self._journal.append(Note(BY_HOOKS, framework, {}), self._journal.session)

    @property
    def entered_blindly(self) -> bool:
        """Whether the innermost iteration is one that the recording has, and its state is not the recorded one."""
        return self._guide is not None and self._guide.entered_blindly(self._transactions.stack[-1])

    @property
    def misses(self) -> bool:
        """Whether variables may lack what a skipped loop would have made."""
        return self._guide is not None and self._guide.omissions.stale

    def let_go(self) -> None:
        """The interpreter ends and nobody has closed the run: what is recorded is in the log, as after a kill.

        No thread of the run may be at work later: one that waits for the interpreter's lock inside torch when that is
        gone aborts the process.
        """
        journal = self._journal
        if journal is not None:
            journal.settle_held()
            self._states.close()
            self.disown()
            self._close()

    def disown(self) -> None:
        """In a forked child, such as a loader's worker: loops run and nothing is recorded."""
        if self._journal is not None:
            self._journal.disown()
        self._journal = self._guide = None
        self._transactions.disown()
        self._loops.disown()
        self._states.disown()


class Iteration:
    """One transaction of a while-loop; made by `Run.iteration`."""

    def __init__(self, loops: Loops, name: str, index: int, site: Site) -> None:
        self._loops = loops
        self._call = name, index, site
        self._steps: Steps

    def __enter__(self) -> Iteration:
        self._steps = self._loops.continued(*self._call)
        if next(self._steps, _ENDED) is _ENDED:
            raise SkipRest  # no other iteration is planned
        return self

    @property
    def goes_on(self) -> bool:
        """Whether another iteration of its loop may follow."""
        return inspect.getgeneratorstate(self._steps) != inspect.GEN_CLOSED

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if error is None or isinstance(error, SkipRest):
            next(self._steps)
            return error is not None
        return False


_ENDED = object()

__all__ = ["Iteration", "Run"]
