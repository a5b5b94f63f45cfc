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

from florlog_wal import Abort, Commit, LoopEnd

from florlog.following.stack import OpenIteration, OpenLoop
from florlog.recording.fingerprints import rng_fingerprint
from florlog.recording.guided import Guided
from florlog.recording.transactions import Pending, Transactions
from florlog.state.cpython import can_see_departure, closes_by_call, departure

_CUT_OFF = "an exception left it"


class Closing:
    """Ends the iterations and loops of one run.

    A signal's handler may raise anywhere in here.  So everything that is known of a loop that was left stays in
    `Transactions.pending` until all of it is written, and each step can be done again (`Once`).
    """

    def __init__(self, transactions: Transactions, guided: Guided | None) -> None:
        self._transactions = transactions
        self.guided = guided
        self._held: BaseException | None = None
        """What a signal's handler raised where Python would have dropped it."""
        transactions.went_on = self.went_on

    def settle(self, iteration: OpenIteration) -> None:
        """End the run.iteration loop that the iteration's body was in."""
        loop = iteration.with_loop
        if loop is not None:
            if loop.steps is not None:
                loop.steps.close()
            self.end(loop, left=False)
            iteration.with_loop = None

    def commit(self, iteration: OpenIteration, *, left: bool) -> None:
        """The iteration's body is done; ``left``: by a break or a return."""
        transactions, checkpointer, loop = self._transactions, self._transactions.checkpointer, iteration.loop
        assert loop is not None
        self._repair()
        self._raise_held()
        while transactions.stack[-1] is not iteration:  # loops inside that nobody exhausted
            transactions.stack.pop()
        self._resolve(lambda loop: _lies_in(loop, iteration))
        self.settle(iteration)
        if not left and not iteration.abandoned:
            checkpointer.state.tracked_or_raise()
        seconds = self._seconds(iteration)
        transactions.stack.pop()
        loop.count = iteration.index + 1
        if transactions.journal is not None and not iteration.names:
            checkpointer.step(loop.name, seconds)
        if not iteration.abandoned and (transactions.recording or self.guided is not None):
            prints = (rng_fingerprint(), iteration.data, checkpointer.state.sampled())
            transactions.commit(iteration, seconds, prints, left=left)
            if self.guided is not None:
                self.guided.finish(iteration, prints, left=left)

    def end(self, loop: OpenLoop, *, left: bool) -> None:
        """A loop has ended; ``left``: by a break or a return."""
        transactions = self._transactions
        loop.parent.segment = loop.order + 1
        if self.guided is not None and not transactions.recording:
            self.guided.end(loop, left=left)
        if self._log_end(loop, left=left) and loop.form == "for":
            transactions.checkpointer.boundary(loop, loop.count, end=True)
        self._begin_segment(loop.parent)

    def leave(self, it: Pending, consumer: FrameType | None) -> None:
        """A body has left a for loop, which is pending; ``consumer`` drops its iterator."""
        transactions, iteration, loop = self._transactions, it.iteration, _loop(it.iteration)
        if loop.cursor is not None:
            loop.cursor.leave()
        if (
            iteration not in transactions.stack
        ):  # an iterator that was kept longer than the iteration around it
            transactions.pending.remove(it)
            return
        if transactions.journal is None or iteration.abandoned:
            transactions.pending.remove(it)
            self.commit(iteration, left=True)
            self.end(loop, left=True)
            return
        why = departure(consumer) if can_see_departure() else ""
        it.cut, it.certain = why in ("exception", "interrupt"), why in ("break", "interrupt")
        if why == "break":
            self._resolve(lambda inner: _lies_in(inner, iteration))
        it.seconds = self._seconds(iteration)
        it.prints = rng_fingerprint(), iteration.data, transactions.checkpointer.state.sampled()
        self._take_off(it)
        it.doubtful = False
        if why == "interrupt":
            self._resolve(lambda other: other is loop or _lies_in(other, iteration))
        elif why == "break":
            self._log_left(it)
            transactions.pending.remove(it)
            if transactions.recording and loop.lsn:
                transactions.checkpointer.boundary(loop, loop.count, end=True)

    def leave_with(self, depth: int) -> None:
        """An exception has left the loops of `run.iteration` inside the outermost ``depth`` iterations."""
        transactions = self._transactions
        while len(transactions.stack) > depth + 1:
            iteration = transactions.stack[-1]
            loop = _loop(iteration)
            loop.parent.with_loop = None
            left = Pending(iteration, entered=True, doubtful=False)
            transactions.pending.append(left)
            self._take_off(left)

    def interrupted(self, error: BaseException, consumer: FrameType | None) -> bool:
        """The data of a loop that is pending now, or a signal's handler while florlog was at work in it, raised.

        ``consumer``: the frame that dropped the loop's iterator, if that was the work.  Then Python would drop what a
        signal's handler raises: True if it is held instead, for the next thing that the script does with the run.
        """
        if consumer is not None and not closes_by_call(consumer):
            self._held = error
            return True
        self._repair()
        return False

    def went_on(self) -> None:
        """The script does something with the run after it left loops; nothing is known if it handles an exception."""
        self._repair()
        self._raise_held()
        pending = self._transactions.pending
        now = sys.exception()
        if now is None or (pending and id(now) == _loop(pending[-1].iteration).handled):
            self.came_to_end()
        else:
            for it in pending:
                it.cut = it.cut or not it.certain

    def failed(self) -> None:
        """An exception arrives at the run: find out how far the loops are that it left."""
        self._repair()
        for it in list(self._transactions.pending):
            if it.doubtful and not self._is_open(it):
                self._transactions.pending.remove(it)

    def end_run(self) -> None:
        """The run ends by itself."""
        self._repair()
        self._raise_held()
        self.came_to_end()
        self.settle(self._transactions.stack[0])

    def came_to_end(self) -> None:
        """No exception is on its way: write how the loops ended that were left."""
        self._resolve(lambda loop: True)

    def _raise_held(self) -> None:
        held, self._held = self._held, None
        if held is not None:
            raise held

    def _resolve(self, which: Callable[[OpenLoop], bool]) -> None:
        pending = self._transactions.pending
        known = [it for it in pending if which(_loop(it.iteration))]
        cut: list[OpenIteration] = []
        for it in reversed(known):  # outer before inner: what leaves a loop leaves those inside it
            it.cut = it.cut or (not it.certain and _loop(it.iteration).parent in cut)
            if it.cut:
                cut.append(it.iteration)
        for it in known:
            self._log_left(it, ended=_loop(it.iteration).parent not in cut)
            pending.remove(it)

    def _log_left(self, it: Pending, *, ended: bool = True) -> None:
        """Write how a loop was left, now that it is known; ``ended``: the iteration around it went on."""
        transactions, loop = self._transactions, _loop(it.iteration)
        self._take_off(it)
        if it.doubtful and not self._is_open(it):
            return
        iteration, it.doubtful = it.iteration, True  # until all is written
        if not it.entered and not loop.lsn and transactions.recording and transactions.journal is not None:
            transactions.log_start(loop)
            it.entered = True
            self._take_off(it)
        if it.cut:
            loop.count = iteration.index
            self._log_cut(it)
        else:
            self.settle(iteration)
            loop.count = iteration.index + 1
            if not it.committed:
                transactions.commit(iteration, it.seconds, it.prints, left=True)
                it.committed = True
        if self.guided is not None and not transactions.recording and loop.parent in transactions.stack:
            if not it.cut:
                self.guided.finish(iteration, it.prints, left=True)
            self.guided.went_past(loop)
        if ended:
            self._log_end(loop, left=True)

    def _repair(self) -> None:
        """No loop that was left is open."""
        for it in self._transactions.pending:
            self._take_off(it)

    def _take_off(self, it: Pending) -> None:
        stack, journal, loop = self._transactions.stack, self._transactions.journal, _loop(it.iteration)
        if it.iteration in stack:
            at = stack.index(it.iteration)
            it.inside = stack[:at:-1]
            del stack[at:]
        if not it.entered and not loop.lsn and journal is not None and not journal.stopped:
            loop.lsn = journal.beginning(loop.parent.path, loop.name)
        if loop.parent.segment <= loop.order and (it.entered or loop.lsn):
            loop.parent.segment = loop.order + 1
            self._begin_segment(loop.parent)

    def _is_open(self, it: Pending) -> bool:
        """Find out where florlog was when it was interrupted; whether there is anything left to write."""
        transactions, iteration, loop = self._transactions, it.iteration, _loop(it.iteration)
        journal = transactions.journal
        if journal is None or journal.stopped or not transactions.recording or not loop.lsn:
            return True
        journal.settle(wait=True)
        index = loop.start
        for entry in journal.log.scan(loop.lsn, session=journal.session, reverse=True):
            record = entry.record
            if isinstance(record, LoopEnd) and record.loop == loop.lsn:
                return False
            if isinstance(record, Commit) and record.loop == loop.lsn:
                it.committed = record.left
                index = record.index if record.left else record.index + 1
                break
        if it.committed:
            it.cut = False
        elif iteration.index != index:
            it.iteration, it.cut = OpenIteration(loop, index, 0.0, 0.0), True
        return True

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
        transactions.log_values(iteration)
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
