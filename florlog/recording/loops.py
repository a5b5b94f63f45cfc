"""The loops of a run: one state machine, through which each `run.loop` and `run.iteration` goes.

    ENTERED    The script asks for the loop's first item, or for the first ``with run.iteration``.
               Logged: Begin of the iterations around the loop that have none, LoopBegin.  Next: BOUNDARY.
    BOUNDARY   Before an iteration.  An image is taken if one is due.  A run that follows a recording compares its
               state, restores, and its guide says which iteration is next.
               Logged: CheckpointBegin.  Next: OPEN; ENDED where no other iteration is planned; or the guide leaves
               the loop and what is around it (`SkipRest`).
    OPEN       The iteration is the innermost transaction, and a for loop draws its item.
               Logged: nothing.  Next: BODY; ENDED where there is no other item, and the iteration is forgotten.
    BODY       The script has the item.  What it logs is kept with the iteration.
               Next: COMMITTED; LEFT by a break, a return or an exception.
    COMMITTED  The body ran to its end.
               Logged: Commit, at once or with later ones (`florlog.recording.journal`).  Next: BOUNDARY.
    LEFT       Logged, once a break or return is certain: Commit and LoopEnd, which say so; once it is certain that the
               script has caught an exception: Abort and LoopEnd (`florlog.recording.closing`); of a with block nothing.
    ENDED      Logged: LoopEnd.  An image is taken if one is due.

A for loop ends with its last item.  A while loop with `run.iteration` ends when another loop begins in its place, or
with the iteration around it (`Closing.settle`).  An exception that ends the run leaves Abort records
(`florlog.recording.ending`).  A resume logs nothing of all that before its frontier (`florlog.recording.guided`).

`Loops.iterations` is that machine, for every kind of run.  In a loop that is *only recorded* (no guide knows it) it
does the work of a step in its own body, because that is what recording costs.  Between two steps the caches hold the
training's data, so what a step costs is how many different functions, objects and lines of memory are touched, ten
times what a loop by itself would show.  So nothing is called there but what a step needs: images are looked for when
their time has come, fingerprints are taken of the iterations that the overhead pays for, commits are handed over in
batches.  Any other loop asks `Guided` at its boundaries, and its iterations are opened and committed by methods that
may take their time.  An iteration in which there were loops is committed by the same method.
"""

from __future__ import annotations

import itertools
import sys
import time
import weakref
from collections.abc import Iterable, Iterator
from typing import Any

from florlog_wal import CommitFields

from florlog.following.guide import Guide
from florlog.following.stack import OpenIteration, OpenLoop, Site
from florlog.recording.closing import Closing
from florlog.recording.fingerprints import Pace, item_fingerprint, paid, rng_fingerprint
from florlog.recording.guided import Guided
from florlog.recording.journal import MAX_HOLD_SECONDS
from florlog.recording.loop_start import LoopStart, RequestedLoop, Steps
from florlog.recording.strand import Strand, strand
from florlog.recording.transactions import Pending, Transactions
from florlog.source.edit.skip_signal import SkipRest
from florlog.state.cursors import Cursor

_MAX_BOOKKEEPING_SECONDS = 5e-4
"""Of one step: what took longer was interrupted."""


class Loops:
    """The loops of one run."""

    def __init__(
        self, transactions: Transactions, guide: Guide | None, pace: Pace, *, strict: bool = False
    ) -> None:
        self._transactions = transactions
        self._guided = None if guide is None else Guided(guide, transactions)
        self._pace = pace
        self.closing = Closing(transactions, self._guided)
        self._starts = LoopStart(transactions, self._guided, self.closing, strict=strict)
        self._strand: Strand | None = None
        self._outermost: tuple[str, weakref.ref[Steps] | None] = ("", None)

    def disown(self) -> None:
        """In a forked child: no plan is followed."""
        self._guided = self.closing.guided = self._starts.guided = None

    def start(self, name: str, iterable: Iterable[Any] | None, site: Site, *, bare: bool = False) -> Steps:
        """The iterations of a new loop, which begins when the first one is asked for.

        Yields the items of ``iterable``.  Without one, for `run.iteration`, yields twice for each iteration: at the
        start of its body, and when it is committed.  ``bare``: nothing is wrapped around it.
        """
        call = RequestedLoop(name, "with" if iterable is None else "for", iterable, site, bare)
        steps = self.iterations(call)
        call.steps = weakref.ref(steps)
        return steps

    def continued(self, name: str, index: int, site: Site) -> Steps:
        """The iterations of the `run.iteration` loop of that name that is open here, else of a new one.

        An ``index`` that is not the open loop's next one is a `LoopError` in a strict run, and in one that follows a
        recording, where it shows a state that was not restored; else a warning.
        """
        if self._outer() is not None:
            return self.start(name, None, site)
        parent = self._transactions.stack[-1]
        loop = parent.with_loop
        if loop is None or loop.name.split("#")[0] != name:
            name = self._starts.usable(name, parent)
            if loop is None or loop.name.split("#")[0] != name:
                return self.start(name, None, site)
        if index != loop.count:
            self._starts.refuse(
                f"iterations of {name!r} are numbered 0, 1, 2, ...: got {index} where {loop.count} is due",
                "it is recorded as that, and can be neither replayed nor resumed",
                once=f"{name} numbered",
                follows=self._guided is not None,
            )
        assert loop.steps is not None
        return loop.steps

    def end_run(self) -> None:
        """The run ends by itself."""
        self.closing.end_run()
        self._stop()

    def fail_run(self) -> None:
        """An exception ends the run."""
        self.closing.failed()
        self._stop()

    def _stop(self) -> None:
        if self._guided is not None:
            self._guided.close()

    def iterations(self, call: RequestedLoop) -> Steps:
        """The state machine; the module's docstring says what it does."""
        if (outer := self._outer()) is not None:
            self._starts.refuse(
                f"loop {call.name!r} runs in another task or thread than loop {outer!r}, which is open",
                "its iterations are not recorded",
            )
            yield from itertools.repeat(None) if call.iterable is None else call.iterable
            return
        transactions, pace, closing = self._transactions, self._pace, self.closing
        journal, checkpointer = transactions.journal, transactions.checkpointer
        run_state, costs = checkpointer.state, checkpointer.costs
        since = costs.now()
        cursor = None if call.iterable is None else Cursor(call.iterable)
        loop = self._starts.made(call, cursor)
        if loop.depth == 1:
            self._strand, self._outermost = strand(), (loop.name, call.steps)
        clock, stack, pending, wake, awaited = (
            time.perf_counter, transactions.stack, transactions.pending, checkpointer.wake, run_state.awaited,
        )  # fmt: skip
        outermost, only_recorded, brief_seconds = loop.depth == 1, False, 0.0
        held: list[CommitFields] = []
        add_undisturbed = checkpointer.policy.undisturbed(loop.name)
        input_credit, state_credit, input_share, state_share = (
            pace.input_credit, pace.state_credit, pace.input_share, pace.state_share,
        )  # fmt: skip
        index, item, data = 0, None, b""
        counted = isinstance(call.iterable, range)  # its items cannot differ
        items: Iterator[Any] | None = None
        persisting, bookkeeping, kept, hold_until = True, 0.0, 0, 0.0
        iteration = OpenIteration(loop, 0, 0.0, checkpointer.own_seconds)
        left, dropped = Pending(iteration), False
        try:
            self._starts.enter(loop, call)
            left.entered = True
            only_recorded = transactions.recording and loop.recorded is None
            if only_recorded:
                assert journal is not None
                held, brief_seconds = journal.held, journal.brief_seconds
                costs.around_steps(since, begun=call.name)
            lsn, last, now = loop.lsn, loop.length - 1, clock()
            while True:
                # BOUNDARY, then OPEN
                if only_recorded:
                    if now >= wake[outermost] or index == 0:
                        costs.between_steps(bookkeeping, index - kept)
                        bookkeeping, loop.count, kept = 0.0, index, index
                        # After the last item is the loop's end, a boundary of its own.
                        if index != loop.length and (
                            index == 0 or checkpointer.due(now, outermost=outermost)
                        ):
                            checkpointer.boundary(loop, index, end=False)
                        persisting = checkpointer.persisting
                        iteration.own_seconds = checkpointer.own_seconds
                        now = clock()
                    iteration.index, iteration.started = index, now
                    stack.append(iteration)
                    printed = input_credit >= 0.0
                elif (opened := self._open_next(loop)) is not None:
                    left.iteration = iteration = opened
                    index, printed = opened.index, True
                else:
                    break
                if cursor is not None:
                    if only_recorded and items is None:
                        items = cursor.items()
                    try:
                        item = cursor.next() if items is None else next(items)
                    except StopIteration:
                        stack.pop()
                        if self._guided is not None:
                            self._guided.ran_out(loop)
                        break
                    data = b""
                    if printed and not counted:
                        started = clock()
                        data = item_fingerprint(item)
                        input_credit = paid(input_credit, clock() - started)
                    iteration.data = data
                # BODY
                try:
                    yield item
                except GeneratorExit:
                    if cursor is not None:
                        dropped = True
                        pending.append(left)  # first of all: a signal's handler may raise after each call
                        since = costs.now()
                        closing.leave(left, sys._getframe().f_back)
                        costs.around_steps(since)
                    raise
                # COMMITTED
                if only_recorded and not iteration.names:
                    ended = clock()
                    stack.pop()
                    if pending:
                        closing.went_on()
                    if awaited:
                        run_state.tracked_or_raise()
                    seconds = ended - now
                    if persisting:
                        checkpointer.step(loop.name, seconds)
                    else:
                        add_undisturbed(seconds)
                    rng = state = b""
                    if state_credit >= 0.0 or index == last:
                        state = run_state.sampled()
                        state_credit = paid(state_credit, clock() - ended)
                    if printed or index == last:
                        started = clock()
                        rng = rng_fingerprint()
                        input_credit = paid(input_credit, clock() - started)
                    input_credit += input_share * seconds
                    state_credit += state_share * seconds
                    if not held:
                        hold_until = ended + MAX_HOLD_SECONDS
                    held.append((lsn, index, 0, iteration.values, seconds, rng, data, state, False))
                    iteration.values = []
                    if seconds >= brief_seconds or ended >= hold_until:
                        assert journal is not None
                        journal.settle()
                    index += 1
                    now = clock()
                    own = now - ended
                    bookkeeping += own if own < _MAX_BOOKKEEPING_SECONDS else _MAX_BOOKKEEPING_SECONDS
                else:
                    since = costs.now()
                    closing.commit(iteration, left=False)
                    index += 1
                    if only_recorded:
                        # The loops in it have used some.
                        input_credit, state_credit = pace.input_credit, pace.state_credit
                        iteration = OpenIteration(loop, index, 0.0, checkpointer.own_seconds)
                        left.iteration = iteration
                        costs.around_steps(since)
                        now = clock()
                if cursor is None:
                    loop.count = index
                    yield None
                    now = clock()
            # ENDED
            if only_recorded:
                loop.count = index
            since = costs.now()
            if cursor is not None:
                closing.end(loop, left=False)
            costs.around_steps(since)
        except GeneratorExit:
            raise
        except BaseException as error:
            if cursor is not None and transactions.journal is not None and not isinstance(error, SkipRest):
                if left not in pending and (transactions.recording or iteration in stack):
                    pending.append(left)
                if closing.interrupted(error, sys._getframe().f_back if dropped else None):
                    return
            raise
        finally:
            if only_recorded:
                pace.input_credit, pace.state_credit = input_credit, state_credit
                costs.between_steps(bookkeeping, index - kept)

    def _outer(self) -> str | None:
        """The open outermost loop, if what executes now may take turns with it."""
        name, steps = self._outermost
        held: Any = None if steps is None else steps()
        if self._strand is None or held is None or held.gi_frame is None:
            return None
        return name if strand().is_beside(self._strand) else None

    def _open_next(self, loop: OpenLoop) -> OpenIteration | None:
        """The next iteration of a loop that is not only recorded, open; None at the planned end."""
        transactions = self._transactions
        if transactions.pending:
            self.closing.went_on()
        if self._guided is not None:
            return self._guided.open_next(loop)
        iteration = OpenIteration(
            loop, loop.count, time.perf_counter(), transactions.checkpointer.own_seconds
        )
        transactions.stack.append(iteration)
        return iteration
