"""How iterations and loops end: what is written then, and when that is certain.

When a body leaves a for loop early, Python raises `GeneratorExit` in it, whether by a ``break``, a ``return`` or an
exception.  The frame that drops the loop's iterator mostly shows which (`florlog.state.cpython.departure`).  Only a
break is written at once.  Everything else is *pending*: nothing of it is in the log until the script goes on, that is,
until it does something with the run while no exception is being handled that was not when the loop began.  Then an
iteration that an exception has cut off is undone (Abort), and its loop ends before it.  A kill meanwhile, or the
exception that reaches the run, leaves the iteration open: a resume executes it again.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from types import FrameType

from florlog_wal import Abort, Commit, LoopEnd, Record, Values

from florlog.following.stack import OpenIteration, OpenLoop
from florlog.recording.fingerprints import rng_fingerprint
from florlog.recording.guided import Guided
from florlog.recording.transactions import Pending, Transactions
from florlog.state.cpython import can_see_departure, departure

_CUT_OFF = "an exception left it"


class Closing:
    """Ends the iterations and loops of one run."""

    def __init__(self, transactions: Transactions, guided: Guided | None) -> None:
        self._transactions = transactions
        self.guided = guided
        self._sees = can_see_departure()
        transactions.went_on = self.went_on

    def settle(self, iteration: OpenIteration) -> None:
        """End the run.iteration loop that the iteration's body was in."""
        loop, iteration.with_loop = iteration.with_loop, None
        if loop is not None:
            if loop.steps is not None:
                loop.steps.close()
            self.end(loop, left=False)

    def commit(self, iteration: OpenIteration, *, left: bool) -> None:
        """The iteration's body is done; ``left``: by a break or a return."""
        transactions, checkpointer, loop = self._transactions, self._transactions.checkpointer, iteration.loop
        assert loop is not None
        while transactions.stack[-1] is not iteration:  # loops inside that nobody exhausted
            transactions.stack.pop()
        self._resolve(lambda loop: _lies_in(loop, iteration))
        self.settle(iteration)
        if not left and not iteration.abandoned:
            checkpointer.tracked_or_raise()
        seconds = self._seconds(iteration)
        transactions.stack.pop()
        loop.count = iteration.index + 1
        if transactions.journal is not None and not iteration.names:
            checkpointer.step(loop.name, seconds)
        if not iteration.abandoned and (transactions.recording or self.guided is not None):
            prints = (rng_fingerprint(), iteration.data, checkpointer.sampled())
            transactions.commit(iteration, seconds, prints, left=left)
            if self.guided is not None:
                self.guided.finish(iteration, prints, left=left)

    def end(self, loop: OpenLoop, *, left: bool) -> None:
        """A loop has ended; ``left``: by a break or a return."""
        transactions = self._transactions
        loop.parent.segment += 1
        if self.guided is not None and not transactions.recording:
            self.guided.end(loop, left=left)
        if self._log_end(loop, left=left) and loop.form == "for":
            transactions.checkpointer.boundary(loop, loop.count, end=True)
        self._begin_segment(loop.parent)

    def leave(self, iteration: OpenIteration, consumer: FrameType | None, *, raised: bool = False) -> None:
        """A body has left a for loop in ``iteration``, whose iterator ``consumer`` drops.

        ``raised``: by an exception from the loop's own data.
        """
        transactions, loop = self._transactions, iteration.loop
        assert loop is not None
        stack = transactions.stack
        if iteration not in stack:  # an iterator that was kept longer than the iteration around it
            return
        why = "exception" if raised else departure(consumer) if self._sees else ""
        if transactions.journal is None or iteration.abandoned:
            self.commit(iteration, left=True)
            self.end(loop, left=True)
            return
        if why == "break":
            self._resolve(lambda inner: _lies_in(inner, iteration))
        seconds = self._seconds(iteration)
        at = stack.index(iteration)
        inside = stack[:at:-1]
        del stack[at:]
        prints = (rng_fingerprint(), iteration.data, transactions.checkpointer.sampled())
        it = Pending(iteration, inside, why == "exception", seconds, prints)
        transactions.pending.append(it)
        loop.parent.segment += 1
        self._begin_segment(loop.parent)
        if why == "break":
            # Python drops what a signal handler raises here; what is missing then is written when the script goes on.
            it.certain = True
            self._log_left(it)
            transactions.pending.remove(it)
            if transactions.recording and loop.lsn:
                transactions.checkpointer.boundary(loop, loop.count, end=True)

    def interrupted(self, iteration: OpenIteration) -> None:
        """An exception came from a for loop's data, or from a signal while florlog was at work in it."""
        transactions, loop = self._transactions, _loop(iteration)
        if any(it.iteration is iteration for it in transactions.pending):
            return
        if iteration in transactions.stack:
            self.leave(iteration, None, raised=True)
        elif (
            loop.parent in transactions.stack and transactions.recording and transactions.journal is not None
        ):
            # Between the end of an iteration and the next: what is in the log of it counts.
            transactions.journal.settle(wait=True)
            index = max((r.index + 1 for r in self._records(loop.lsn) if isinstance(r, Commit)), default=0)
            now = OpenIteration(loop, max(index, loop.start), 0.0, 0.0)
            transactions.pending.append(Pending(now, [], True, 0.0, (b"", b"", b"")))
            loop.parent.segment += 1
            self._begin_segment(loop.parent)

    def went_on(self) -> None:
        """The script does something with the run after it left loops; nothing is known if it handles an exception."""
        pending = self._transactions.pending
        now = sys.exception()
        if now is None or id(now) == _loop(pending[-1].iteration).handled:
            self.came_to_end()
        else:
            for it in pending:
                it.cut = not it.certain

    def came_to_end(self) -> None:
        """No exception is on its way: write how the loops ended that were left."""
        self._resolve(lambda loop: True)

    def _resolve(self, which: Callable[[OpenLoop], bool]) -> None:
        pending = self._transactions.pending
        known = [it for it in pending if which(_loop(it.iteration))]
        if not known:
            return
        pending[:] = [it for it in pending if it not in known]
        cut: list[OpenIteration] = []
        for it in reversed(known):  # outer before inner: what leaves a loop leaves those inside it
            it.cut = it.cut or (not it.certain and _loop(it.iteration).parent in cut)
            if it.cut:
                cut.append(it.iteration)
        for it in known:
            self._log_left(it, ended=_loop(it.iteration).parent not in cut)

    def _log_left(self, it: Pending, *, ended: bool = True) -> None:
        """Write how a loop was left, now that it is known; ``ended``: the iteration around it went on."""
        transactions, iteration = self._transactions, it.iteration
        loop = _loop(iteration)
        done = self._records(it.began) if it.began else []
        it.began = it.began or (
            transactions.journal.store.last_lsn + 1 if transactions.journal is not None else 0
        )
        if it.cut:
            loop.count = iteration.index
            self._log_cut(it)
        else:
            self.settle(iteration)
            loop.count = iteration.index + 1
            if not any(
                isinstance(r, Commit) and (r.loop, r.index) == (loop.lsn, iteration.index) for r in done
            ):
                transactions.commit(iteration, it.seconds, it.prints, left=True)
        if self.guided is not None and not transactions.recording and loop.parent in transactions.stack:
            if not it.cut:
                self.guided.finish(iteration, it.prints, left=True)
            self.guided.went_past(loop)
        if ended and not any(isinstance(r, LoopEnd) and r.loop == loop.lsn for r in done):
            self._log_end(loop, left=True)

    def _records(self, start: int) -> list[Record]:
        """What this session has logged from an LSN on."""
        journal = self._transactions.journal
        if journal is None or journal.stopped or not start:
            return []
        return [entry.record for entry in journal.store.scan(start, session=journal.session)]

    def _log_cut(self, it: Pending) -> None:
        """Write that an exception has cut off an iteration, and what it had logged."""
        transactions, iteration = self._transactions, it.iteration
        journal, loop = transactions.journal, _loop(iteration)
        if not transactions.recording or journal is None or not loop.lsn:
            return
        iteration.with_loop = None
        for inside in it.inside:
            if _loop(inside).lsn:
                journal.append(Abort(_loop(inside).lsn, inside.index, _CUT_OFF), inside.prev)
        if iteration.values:
            values = Values(loop.lsn, iteration.index, iteration.segment, tuple(iteration.values))
            iteration.prev = journal.append(values, iteration.prev)
            iteration.values = []
        journal.append(Abort(loop.lsn, iteration.index, _CUT_OFF), iteration.prev)

    def _log_end(self, loop: OpenLoop, *, left: bool) -> bool:
        """Write a LoopEnd, if this session has the loop."""
        transactions = self._transactions
        if not transactions.recording or transactions.journal is None or not loop.lsn:
            return False
        loop.parent.prev = transactions.journal.append(LoopEnd(loop.lsn, loop.count, left), loop.parent.prev)
        return True

    def _begin_segment(self, iteration: OpenIteration) -> None:
        iteration.segment_started = time.perf_counter()
        iteration.segment_own_seconds = self._transactions.checkpointer.own_seconds

    def _seconds(self, iteration: OpenIteration) -> float:
        own = self._transactions.checkpointer.own_seconds - iteration.own_seconds
        return max(0.0, time.perf_counter() - iteration.started - own)


def _lies_in(loop: OpenLoop, iteration: OpenIteration) -> bool:
    around: OpenIteration | None = loop.parent
    while around is not None and around is not iteration:
        around = around.loop.parent if around.loop is not None else None
    return around is not None


def _loop(iteration: OpenIteration) -> OpenLoop:
    assert iteration.loop is not None
    return iteration.loop
