"""A run that follows a recording: what its guide decides is done at the boundaries of the run's loops.

The guide (`florlog.following.guide`) says which iteration is next, where to restore and what differs.  Here the
images are restored, the states are compared, and in a resume the recording begins at the *frontier*, the first
place that the log does not have.
"""

from __future__ import annotations

import time
from contextlib import suppress
from functools import partial

from florlog_recovery import Image
from florlog_wal import Note

from florlog.errors import ChangedError, ImageError
from florlog.following.guide import Guide
from florlog.following.stack import OpenIteration, OpenLoop
from florlog.images.imager import SavedState
from florlog.images.read_ahead import ReadAhead
from florlog.program.environment import is_hands_free
from florlog.program.terminal import reason
from florlog.recording.transactions import Transactions


class Guided:
    """Leads the loops of one run, as ``guide`` decides."""

    def __init__(self, guide: Guide, transactions: Transactions) -> None:
        self._guide = guide
        self._transactions = transactions
        self._checkpointer = transactions.checkpointer
        self._checkpointer.state.finds = is_hands_free(guide.tree.begin.environment)
        self._ahead = ReadAhead(guide.log)
        self._ahead.begin(guide.image_after(None))  # while the script sets up

    def close(self) -> None:
        """Nothing will be restored any more."""
        self._ahead.close()

    def enter(self, loop: OpenLoop) -> None:
        """A loop begins.  Raises `SkipRest` where nothing from here on is planned, and `ChangedError`."""
        self._guide.enter(loop)

    def open_next(self, loop: OpenLoop) -> OpenIteration | None:
        """Open the iteration that is to run now, after a restore if one is planned; None at the planned end.

        Raises `SkipRest` where the rest of the iteration around the loop is not planned.
        """
        guide, transactions, checkpointer = self._guide, self._transactions, self._checkpointer
        before, restored, end = loop.count, loop.restored, _end_of(loop)
        if before != end and not guide.entering:
            self._stands(loop)
        if guide.checks.unchecked and loop.depth == 1 and before == 0:
            self._compare(loop, 0)
        index = guide.next_index(loop, self._restore, checkpointer.state.passing.skip)
        if guide.entering and index is not None:
            self._go_to(loop, before, index)
        came = loop.restored == restored and before != end and not guide.entering  # by itself
        if came and index is not None and not transactions.recording:
            if index == 0 and loop.depth == 1:
                self._put_back_generators(loop)
            self._compare(
                loop, before
            )  # also at the frontier: nothing is recorded before that is known to be equal
        if self._record_from_here() and index is not None:
            transactions.log_loop(loop, start=index)
        if index is None:
            return None
        if came and transactions.recording:
            checkpointer.boundary(loop, before, end=False)
        iteration = OpenIteration(loop, index, time.perf_counter(), checkpointer.own_seconds)
        guide.begin(iteration)
        transactions.stack.append(iteration)
        if not transactions.recording:
            guide.reached(iteration)
            self._record_from_here()
        return iteration

    def _go_to(self, loop: OpenLoop, before: int, index: int) -> None:
        """An iteration is entered blindly: go on with its item."""
        try:
            self._checkpointer.state.go_to(loop, before, index)
        except Exception as error:
            self._guide.lose(reason(error))

    def ran_out(self, loop: OpenLoop) -> None:
        """A loop has no more items.  Raises `ChangedError` if it had more when it was recorded."""
        if loop.plan is not None and loop.recorded is not None and loop.count < loop.recorded.count:
            raise ChangedError(
                f"loop {loop.name!r} ended after {loop.count} items and had {loop.recorded.count} when recorded: "
                "replay and resume need the same data"
            ) from None

    def finish(
        self, iteration: OpenIteration, prints: tuple[bytes, bytes, bytes], *, left: bool = False
    ) -> None:
        """An iteration ran to its end, or was ``left`` by a break or return: compare what it was."""
        if left and self._guide.resuming and iteration.commit is not None and not iteration.commit.left:
            return  # somebody asked the training to stop: the frontier is not reached
        self._guide.finish(iteration, prints)
        loop = iteration.loop
        if loop is None or loop.form == "for":
            return
        # Whether another iteration follows in a run.iteration loop is not known until it begins.
        if self._record_from_here():
            self._transactions.log_loop(loop, start=loop.count)
        if loop.count == _end_of(loop):
            self._stands(loop)

    def end(self, loop: OpenLoop, *, left: bool) -> None:
        """A loop of a run that records nothing yet has ended; the recording begins here if this is the frontier."""
        # Not before: a sampler may draw once more after the last item.
        # Not after a restore: what the body would have made and tracked is not there to compare.
        ended = left or loop.count == _end_of(loop)
        if loop.form == "for" and ended and loop.restored != loop.count:
            self._stands(loop)
            self._compare(loop, loop.count)
        unfinished = self._guide.ended(loop)
        if self._record_from_here():
            if unfinished:
                self._transactions.log_loop(loop, start=loop.count)
            else:
                self._take_missing_image(loop)

    def went_past(self, loop: OpenLoop) -> None:
        """A loop of a run that records nothing yet was left some time ago; the recording begins here if it can."""
        unfinished = self._guide.ended(loop)
        if self._record_from_here() and unfinished:
            self._transactions.log_loop(loop, start=loop.count)

    def _take_missing_image(self, loop: OpenLoop) -> None:
        """The log has this loop's end; take the image there if the crash came between the two."""
        recorded = loop.recorded
        if loop.form == "for" and recorded is not None and recorded.count not in recorded.images:
            loop.lsn = recorded.lsn
            self._checkpointer.boundary(loop, loop.count, end=True)
            loop.lsn = 0  # its end is in the log

    def _record_from_here(self) -> bool:
        """Whether a resume has just reached its frontier: from here on everything is logged."""
        transactions, guide = self._transactions, self._guide
        if transactions.recording or transactions.journal is None or guide.navigating:
            return False
        self.close()
        if self._checkpointer.state.lacks_gradients():
            guide.lacks_gradients()
        notes = guide.prove()
        for iteration in transactions.stack[1:]:
            assert iteration.loop is not None
            transactions.log_loop(iteration.loop, start=iteration.index)
            transactions.log_begins()
        transactions.recording = True  # not before: a signal may interrupt this
        redone, restored = guide.redone, guide.restored
        text = f"{redone} iterations redone before the run went on, {restored} images restored"
        note = Note("resume", text, {"redone": redone, "restored": restored})
        for said in [note, *notes]:
            transactions.journal.append(said, transactions.journal.session)
        return True

    def _put_back_generators(self, loop: OpenLoop) -> None:
        """The image before the run's first iteration is not there, or cannot be restored as a whole."""
        recorded = loop.recorded
        if recorded is not None and recorded.order == 0 and recorded.images:
            index = min(recorded.images)
            with suppress(Exception):  # what differs then is seen
                saved = SavedState(self._guide.log, recorded.images[index].table)
                self._checkpointer.state.put_back_generators(saved, loop, index)

    def _compare(self, loop: OpenLoop, index: int) -> None:
        """Compare the state at a boundary with the image there, if there is one."""
        if loop.recorded is not None:
            self._guide.checks.arrive(loop.recorded, index, partial(self._checkpointer.state.trees, loop))
        self._guide.compared()

    def _stands(self, loop: OpenLoop) -> None:
        self._guide.stands(loop, loop.count, partial(self._checkpointer.state.imaged, loop))

    def _restore(self, loop: OpenLoop, index: int, image: Image) -> float:
        """Put back the state at a boundary, and the loop's data position with it; for how long it was read before.

        Raises `ImageError` for whatever is raised there, and `ChangedError` where the script tracks other names.
        """
        try:
            assert loop.recorded is not None
            following, started = self._guide.image_after((loop.recorded, index)), time.perf_counter()
            saved, reading = self._ahead.take(image, following)
            read_before = max(0.0, reading - (time.perf_counter() - started))
            self._checkpointer.restore(saved, loop, index, reading, blind=self._guide.entering)
        except ChangedError:
            raise
        except Exception as error:
            raise ImageError(reason(error)) from error
        return read_before


def _end_of(loop: OpenLoop) -> int:
    """The boundary at which the loop ends, -1 if it is not known."""
    recorded = loop.recorded
    return recorded.count if recorded is not None and recorded.ended else loop.length
