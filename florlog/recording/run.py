"""A run: loops whose iterations are transactions, tracked state, logged values.

The same object serves recording, resuming and replaying; what differs is held by its parts.  A *journal*
writes records, an *imager* takes images, a *guide* follows a plan through an earlier recording.  Recording
has a journal and an imager, a replay has a guide, a resume has all three: it is guided up to the last
restore of its plan and records from there.

The training thread does only what must happen at a boundary; a step without an image costs its share of a batch of
commit records, and of the fingerprints that its overhead pays for.  Between two steps the caches hold the training's
data, so what a step costs is how many different functions, objects and lines of memory are touched, ten times what a
loop by itself would show.  `Run._record` is written for that.
"""

from __future__ import annotations

import sys
import time
import weakref
from collections.abc import Callable, Generator, Iterable, Iterator
from types import FrameType, TracebackType
from typing import Any, TypeVar

import torch
from florlog_recovery import Image
from florlog_recovery.costs import KIND
from florlog_wal import (
    Abort,
    Begin,
    Commit,
    Failure,
    LoopBegin,
    LoopEnd,
    Note,
    Unencodable,
    Values,
    WalError,
    encode_value,
)

from florlog.errors import ChangedError, LogValueError, LoopError
from florlog.following.guide import Guide
from florlog.following.stack import OpenIteration, OpenLoop, Site
from florlog.images.budget import Room
from florlog.images.policy import Policy
from florlog.program.process import this_process
from florlog.recording.checkpointer import Checkpointer, Tell
from florlog.recording.fingerprints import Pace, item_fingerprint, paid, rng_fingerprint
from florlog.recording.gpu_values import later
from florlog.recording.journal import COMPANY, Journal
from florlog.source.edit.skip_signal import SkipRest
from florlog.state.cursors import Cursor, identity, length_of, needs_entry_state
from florlog.state.delta_log import DeltaLog
from florlog.state.tree import plain
from florlog.state.variables import call_stack, frame_of

T = TypeVar("T")
_SCALARS = frozenset({float, int, str, bool, type(None)})
_DEAREST = 5e-4  # seconds of a step's bookkeeping: what took longer was interrupted
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
        close: Callable[[], None],
    ) -> None:
        self.id = run_id
        self.name = name
        self.resumed = journal is not None and guide is not None
        """Whether this goes on with an earlier recording."""
        self._script = script
        self._journal = journal
        self._guide = guide
        self._close = close
        self._states = Checkpointer(journal, policy, room)
        self._started = time.perf_counter()
        self._own = 0.0  # seconds of florlog's own work on this thread
        self._pace = Pace(policy.overhead)
        self._left: list[OpenIteration] = []
        self._statements: dict[tuple[int, int], int] = {}  # code's id and instruction -> log statement
        root = OpenIteration(None, 0, self._started, 0.0, begun=True)
        self._stack = [root]
        if guide is not None:
            guide.start(root)
        self._recording = journal is not None and not (guide and guide.navigating)

    # -- what a user calls -------------------------------------------------------------------------

    def track(self, *, derived: dict[str, Callable[[], Any]] | None = None, **objects: Any) -> None:
        """Include the state of ``objects`` in images, under their names.

        Anything with ``state_dict()`` and ``load_state_dict()``, tensors, arrays, RNGs and plain values can be
        tracked.  ``derived`` maps names to functions that regenerate state from the rest after a restore (LWCP,
        ICPP 2019): an object tracked under such a name is not stored.  A function makes its object anew in
        place, or returns its state.  What it makes is compared with the state by samples, and where that
        differs, a warning says that it is stored after all.  Raises `TrackError` for an object without
        capturable state.
        """
        self._states.track(objects, derived or {})

    def delta_log(
        self, name: str, value: Any = None, apply: Callable[[Any, Any], Any] = list.append
    ) -> DeltaLog:
        """Track, under ``name``, a value that changes by edits alone; images store the edits that are new.

        ``value`` is a list, dict or set (default: an empty list), ``apply(value, edit)`` changes it in place
        (default: appends).  Use `DeltaLog.append` to edit and `DeltaLog.value` to read.  Raises `TrackError`
        where the value cannot be encoded.
        """
        made = DeltaLog(name, [] if value is None else value, apply)
        self._states.track({name: made}, {})
        return made

    def log(self, **values: Any) -> None:
        """Log values under their names in the current iteration.

        Numbers, strings, tensors, arrays and containers of them; `LogValueError` for anything else.
        """
        self._log(_frame(1), values)

    def loop(self, name: str, iterable: Iterable[T]) -> Iterator[T]:
        """Iterate over ``iterable``; each pass is a transaction, with index from 0."""
        frame = _frame(1)
        return self._loop(name, iterable, (frame.f_code, frame.f_lineno))

    def iteration(self, name: str, index: int) -> Iteration:
        """A transaction for a while-loop: ``with run.iteration("step", i):``, numbered 0, 1, 2, ..."""
        frame = _frame(1)
        return Iteration(self, name, index, (frame.f_code, frame.f_lineno))

    def leave(self, file: str, line: int) -> None:
        """Leave the innermost iteration here if nothing more of it is planned; for instrumented code."""
        if self._guide is not None and self._guide.leaves(self._stack[-1], file, line):
            raise SkipRest

    def passes(self, piece: int, objects: tuple[Any, ...]) -> bool:
        """Pass over a piece of code here if the plan lets it; for instrumented code."""
        return self._guide is not None and self._guide.passes(
            self._stack[-1], piece, lambda acts: self._states.pass_over(acts, objects)
        )

    @property
    def misses(self) -> bool:
        """Whether variables may lack what a skipped loop would have made."""
        return self._guide is not None and self._guide.checks.stale

    def disown(self) -> None:
        """In a forked child, such as a loader's worker: loops run and nothing is recorded."""
        if self._journal is not None:
            self._journal.disown()
        self._journal = self._guide = None
        self._recording = False
        self._states.disown()

    # -- logging -----------------------------------------------------------------------------------

    def _log(self, frame: FrameType, values: dict[str, Any]) -> None:
        if self._left:
            self._left.clear()
        open_ = self._stack[-1]
        recording, guide = self._recording, self._guide
        statement = 0
        if recording:
            # Hashing code, and finding the line of an instruction, would take longer than all the rest.
            use = id(frame.f_code), frame.f_lasti
            statement = self._statements.get(use) or self._statement(use, frame, open_, values)
        for name, value in values.items():
            held = value if type(value) in _SCALARS else self._encodable(name, value)
            if recording:
                open_.values.append((statement, name, held))
            if guide is not None:
                code, line = frame.f_code, frame.f_lineno
                guide.checks.log(open_, (code.co_filename, line, code.co_qualname), name, held)

    def _statement(
        self, use: tuple[int, int], frame: FrameType, open_: OpenIteration, values: dict[str, Any]
    ) -> int:
        """The id of the statement that a frame is executing, which is new."""
        assert self._journal is not None
        site = frame.f_code, frame.f_lineno
        loops = tuple(name for name, _ in open_.path)
        statement = self._journal.statement("log", site, loops, tuple(values))  # which keeps the code
        self._statements[use] = statement
        return statement

    def _encodable(self, name: str, value: Any) -> Any:
        if isinstance(value, torch.Tensor) and value.is_cuda and self._journal and self._guide is None:
            self._journal.late = True
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

    # -- loops -------------------------------------------------------------------------------------

    def _loop(self, name: str, iterable: Iterable[T], site: Site) -> Iterator[T]:
        itself: list[Any] = []
        iterator = self._for(name, iterable, site, itself)
        itself.append(weakref.ref(iterator))
        return iterator

    def _for(self, name: str, iterable: Iterable[T], site: Site, itself: list[Any]) -> Iterator[T]:
        cursor = Cursor(iterable)
        loop = self._enter(name, "for", site, iterable, cursor)
        loop.iterator = itself[0]
        if self._only_recorded(loop):
            yield from self._record(loop, cursor)
            return
        while (index := self._next_index(loop)) is not None:
            iteration = self._open(loop, index)
            try:
                item = cursor.next()
            except StopIteration:
                self._stack.pop()
                at, recorded = iteration.index, loop.recorded
                if loop.plan is not None and recorded is not None and at < recorded.count:
                    raise ChangedError(
                        f"loop {loop.name!r} ended after {at} items and had {recorded.count} when recorded: "
                        "replay and resume need the same data"
                    ) from None
                break
            iteration.data = item_fingerprint(item)
            try:
                yield item
            except GeneratorExit:
                self._finish(iteration, left=True)
                self._end_loop(loop, left=True)
                raise
            self._finish(iteration, left=False)
        self._end_loop(loop, left=False)

    def _only_recorded(self, loop: OpenLoop) -> bool:
        """Whether nothing is followed in a loop, and nothing compared."""
        return self._recording and loop.recorded is None

    def _record(self, loop: OpenLoop, cursor: Cursor | None) -> Generator[Any, None, None]:
        """The iterations of a loop that is only recorded, in one piece as far as they are innermost ones.

        Yields the cursor's items.  Without a cursor it yields twice for each iteration: in it, and behind it.
        """
        journal, states, pace = self._journal, self._states, self._pace
        assert journal is not None
        journal.attend()
        clock, stack, left, wake, awaited = (
            time.perf_counter, self._stack, self._left, states.wake, states.awaited,
        )  # fmt: skip
        lsn, held, brief = loop.lsn, journal.held, journal.brief
        outermost, undisturbed = loop.depth == 1, states.policy.undisturbed(loop.name)
        dear, mild, dear_share, mild_share = pace.dear, pace.mild, pace.dear_share, pace.mild_share
        last = loop.length - 1
        index, item, items, data = 0, None, None, b""
        beside, kept, until = True, 0.0, 0.0
        iteration = OpenIteration(loop, 0, 0.0, self._own)
        now = clock()
        try:
            while True:
                # Behind the last item is the loop's end, a boundary of its own.
                if now >= wake[outermost] or index == 0:
                    states.kept, kept, loop.count = states.kept + kept, 0.0, index
                    if index != loop.length and (index == 0 or states.due(now, outermost=outermost)):
                        self._boundary(loop, index)
                    beside = states.beside
                    iteration.own = self._own
                    now = clock()
                iteration.index, iteration.started = index, now
                stack.append(iteration)
                printed = dear >= 0.0
                if cursor is not None:
                    if items is None:
                        items = cursor.items()
                    try:
                        item = next(items)
                    except StopIteration:
                        stack.pop()
                        break
                    data = b""
                    if printed:
                        started = clock()
                        data = item_fingerprint(item)
                        dear = paid(dear, clock() - started)
                try:
                    yield item
                except GeneratorExit:
                    if cursor is not None:
                        iteration.data = data
                        self._finish(iteration, left=True)
                        self._end_loop(loop, left=True)
                    raise
                if iteration.names:
                    iteration.data = data
                    self._finish(iteration, left=False)
                    dear, mild = pace.dear, pace.mild
                    iteration = OpenIteration(loop, 0, 0.0, self._own)
                    index += 1
                    now = clock()
                else:
                    ended = clock()
                    stack.pop()
                    if left:
                        left.clear()
                    if awaited:
                        states.tracked_or_raise()
                    seconds = ended - now
                    if beside:
                        states.step(loop.name, seconds)
                    else:
                        undisturbed(seconds)
                    rng = state = b""
                    if mild >= 0.0 or index == last:
                        state = states.sampled()
                        mild = paid(mild, clock() - ended)
                    if printed or index == last:
                        started = clock()
                        rng = rng_fingerprint()
                        dear = paid(dear, clock() - started)
                    dear += dear_share * seconds
                    mild += mild_share * seconds
                    if not held:
                        until = ended + COMPANY
                    held.append((lsn, index, 0, iteration.values, seconds, rng, data, state, False))
                    iteration.values = []
                    if seconds >= brief or ended >= until:
                        journal.settle()
                    index += 1
                    now = clock()
                    own = now - ended
                    kept += own if own < _DEAREST else _DEAREST
                if cursor is None:
                    loop.count = index
                    yield None
                    now = clock()
        finally:
            pace.dear, pace.mild, states.kept = dear, mild, states.kept + kept
        loop.count = index
        self._end_loop(loop, left=False)

    def _enter(
        self, name: str, form: str, site: Site, iterable: Iterable[Any] | None, cursor: Cursor | None
    ) -> OpenLoop:
        if not isinstance(name, str) or not name or set(name) & set("#=,/") or not name.isprintable():
            raise LoopError(f"{name!r} cannot name a loop: use a word without # = , /")
        self._left.clear()
        parent = self._stack[-1]
        self._settle(parent)
        if any(name == outer.split("#")[0] for outer, _ in parent.path):
            raise LoopError(
                f"loop {name!r} is already open around this place: give the inner loop another name"
            )
        number = parent.names[name] = parent.names.get(name, 0) + 1
        frame = frame_of(site[0])
        outer = parent.loop.site[0] if parent.loop is not None else None
        loop = OpenLoop(
            name=name if number == 1 else f"{name}#{number}",
            form=form,
            parent=parent,
            site=site,
            stack=call_stack(frame, outer) if frame is not None else (),
            length=-1 if iterable is None else length_of(iterable),
            data={} if iterable is None else identity(iterable),
            cursor=cursor,
        )
        if self._guide is not None:
            self._guide.enter(loop)
        if iterable is not None and needs_entry_state(iterable):
            loop.entry = self._states.entry(iterable)
        if self._recording:
            self._log_begins()
            self._log_loop(loop)
        return loop

    @staticmethod
    def _length(loop: OpenLoop) -> int:
        """The boundary at which the loop ends, -1 if nothing tells."""
        recorded = loop.recorded
        return recorded.count if recorded is not None and recorded.ended else loop.length

    def _next_index(self, loop: OpenLoop) -> int | None:
        self._left.clear()
        if self._guide is None:
            return loop.count
        if loop.count != self._length(loop):
            self._stands(loop)
        if self._guide.checks.unchecked and loop.depth == 1 and loop.count == 0:
            self._guide.checks.arrive(loop, 0, lambda only: self._states.trees(loop, only))
        before, restored = loop.count, loop.restored
        index = self._guide.next_index(loop, self._restore, self._states.skip)
        if self._record_from_here() and index is not None:
            self._log_loop(loop, start=index)
        if index is not None and loop.restored == restored and before != self._length(loop):
            self._boundary(loop, before)
        return index

    def _open(self, loop: OpenLoop, index: int) -> OpenIteration:
        now = time.perf_counter()
        iteration = OpenIteration(loop, index, now, self._own)
        if self._guide is not None:
            self._guide.begin(iteration)
        self._stack.append(iteration)
        if self._guide is not None and not self._recording:
            self._guide.reached(iteration)
            self._record_from_here()
        return iteration

    def _finish(self, iteration: OpenIteration, *, left: bool) -> None:
        """The iteration's body is done: commit."""
        while self._stack[-1] is not iteration:  # loops inside that nobody exhausted
            self._stack.pop()
        self._settle(iteration)
        if not left:
            self._left.clear()
            if not iteration.abandoned:
                self._states.tracked_or_raise()
        now = time.perf_counter()
        seconds = max(0.0, now - iteration.started - (self._own - iteration.own))
        self._stack.pop()
        loop = iteration.loop
        assert loop is not None
        loop.count = iteration.index + 1
        if self._journal is not None and not iteration.names:
            self._states.step(loop.name, seconds)
        if not iteration.abandoned:
            prints = (rng_fingerprint(), iteration.data, self._states.sampled())
            if self._recording and self._journal is not None:
                values = tuple(iteration.values)
                commit = Commit(loop.lsn, iteration.index, iteration.segment, values, seconds, *prints, left)
                self._journal.append(commit, iteration.prev)
            if self._guide is not None:
                self._guide.finish(iteration, prints)
                if loop.form == "with" and self._record_from_here():
                    self._log_loop(loop, start=loop.count)
                if loop.form == "with" and loop.count == self._length(loop):
                    self._stands(loop)
        if left:
            self._left.append(iteration)

    def _end_loop(self, loop: OpenLoop, *, left: bool) -> None:
        parent = loop.parent
        parent.segment += 1
        if self._guide is not None and not self._recording:
            # Not before: a sampler may draw once more behind the last item.
            # Nor behind a restore: what the body would have made and tracked is not there to compare.
            ended = left or loop.count == self._length(loop)
            if loop.form == "for" and ended and loop.restored != loop.count:
                self._stands(loop)
                self._boundary(loop, loop.count, end=True)
            unfinished = self._guide.ended(loop)
            if self._record_from_here():
                if unfinished:
                    self._log_loop(loop, start=loop.count)
                else:
                    self._image_missed(loop)
        if self._recording and self._journal is not None and loop.lsn:
            parent.prev = self._journal.append(LoopEnd(loop.lsn, loop.count, left), parent.prev)
            if loop.form == "for":
                self._boundary(loop, loop.count, end=True)
        parent.segment_started, parent.segment_own = time.perf_counter(), self._own

    def _image_missed(self, loop: OpenLoop) -> None:
        """The log has this loop's end; take the image there if the crash came between the two."""
        recorded = loop.recorded
        if loop.form == "for" and recorded is not None and recorded.count not in recorded.images:
            loop.lsn = recorded.lsn
            self._boundary(loop, loop.count, end=True)
            loop.lsn = 0  # its end is in the log

    def _settle(self, iteration: OpenIteration) -> None:
        """End the run.iteration loop that the iteration's body was in."""
        loop, iteration.with_loop = iteration.with_loop, None
        if loop is not None:
            if loop.steps is not None:
                loop.steps.close()
            self._end_loop(loop, left=False)

    # -- the log -----------------------------------------------------------------------------------

    def _log_begins(self) -> None:
        """The open iterations need their Begin records now."""
        assert self._journal is not None
        for open_ in self._stack:
            if not open_.begun and open_.loop is not None and open_.loop.lsn:
                open_.prev = self._journal.append(Begin(open_.loop.lsn, open_.index), open_.prev)
                open_.begun = True

    def _log_loop(self, loop: OpenLoop, start: int = 0) -> None:
        journal = self._journal
        assert journal is not None
        parent = loop.parent
        parent_lsn = parent.loop.lsn if parent.loop is not None else 0
        if parent.values:
            values = Values(parent_lsn, parent.index, parent.segment, tuple(parent.values))
            parent.prev = journal.append(values, parent.prev)
            parent.values = []
        names = (*(name for name, _ in parent.path), loop.name)
        statement = journal.statement("loop", loop.site, names[:-1], (loop.name,))
        since, own = parent.segment_started, parent.segment_own
        if not parent.segment:
            since, own = parent.started, parent.own
        record = LoopBegin(
            path=parent.path,
            name=loop.name,
            parent=parent_lsn,
            statement=statement,
            form=loop.form,
            length=loop.length,
            start=start,
            stack=loop.stack,
            seconds=max(0.0, time.perf_counter() - since - (self._own - own)),
            data=loop.data,
        )
        loop.lsn = parent.prev = journal.append(record, parent.prev)

    def _record_from_here(self) -> bool:
        """Whether a resume has just reached its frontier: from here on everything is logged."""
        if self._recording or self._journal is None or self._guide is None or self._guide.navigating:
            return False
        self._recording = True
        for iteration in self._stack[1:]:
            assert iteration.loop is not None
            self._log_loop(iteration.loop, start=iteration.index)
            self._log_begins()
        redone, restored = self._guide.redone, self._guide.restored
        text = f"{redone} iterations redone before the run went on, {restored} images restored"
        note = Note("resume", text, {"redone": redone, "restored": restored})
        self._journal.append(note, self._journal.session)
        return True

    # -- boundaries --------------------------------------------------------------------------------

    def _boundary(self, loop: OpenLoop, index: int, *, end: bool = False) -> None:
        """Execution stands at a boundary: take an image, or compare with the recorded one."""
        if self._recording:
            started = time.perf_counter()
            if self._states.boundary(loop, index, end=end):
                self._own += time.perf_counter() - started
        elif self._guide is not None:
            self._guide.checks.arrive(loop, index, lambda only: self._states.trees(loop, only))

    def _stands(self, loop: OpenLoop) -> None:
        if self._guide is not None:
            self._guide.stands(loop, loop.count, lambda: self._states.imaged(loop))

    def _restore(self, loop: OpenLoop, index: int, image: Image) -> None:
        """Put back the state at a boundary, and the loop's data position with it."""
        assert self._guide is not None
        self._states.restore(self._guide.store, loop, index, image)

    # -- the end -----------------------------------------------------------------------------------

    def __enter__(self) -> Run:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._end(error)
        finally:
            self._close()
        if (
            self._guide is not None
            and not self._guide.resuming
            and error is None
            and self._stack[0].abandoned
        ):
            raise SkipRest  # what follows the run is not planned either

    def _end(self, error: BaseException | None) -> None:
        if error is None:
            self._settle(self._stack[0])
        journal = self._journal
        if journal is not None:
            self._states.close()
            if self._guide is not None:
                journal.append(Note(KIND, "", self._guide.measured.data), journal.session)
            for difference in self._guide.checks.differences if self._guide is not None else []:
                journal.append(Note("divergence", difference, {}), journal.session)
            if not self._recording:  # a resume that ended before it came to its place
                journal.end(
                    self._script, self._started, "failed", None if error is None else self._failure(error)
                )
            else:
                self._end_recording(journal, error)
        if self._guide is not None:
            self._guide.end()

    def _end_recording(self, journal: Journal, error: BaseException | None) -> None:
        failure = None
        if error is not None:
            failure = self._failure(error)
            for iteration in [*self._left, *reversed(self._stack[1:])]:
                if iteration.loop is not None and (iteration in self._left or iteration is self._stack[-1]):
                    abort = Abort(iteration.loop.lsn, iteration.index, failure.exception)
                    journal.append(abort, iteration.prev)
        root = self._stack[0]
        if root.values:
            journal.append(Values(0, 0, root.segment, tuple(root.values)), root.prev)
        journal.end(self._script, self._started, "complete" if error is None else "failed", failure)
        try:
            journal.store.sync()
        except WalError:
            pass  # reported when it happened

    def _failure(self, error: BaseException) -> Failure:
        frames = []
        trace = error.__traceback__
        while trace is not None:
            code = trace.tb_frame.f_code
            file, line = this_process.notebook.placed(code.co_filename, trace.tb_lineno)
            frames.append((file, code.co_qualname, line, _source_line(trace)))
            trace = trace.tb_next
        path = self._left[0].path if self._left else self._stack[-1].path
        return Failure(type(error).__name__, str(error), path, tuple(frames))


def _source_line(trace: TracebackType) -> str:
    import linecache

    return linecache.getline(trace.tb_frame.f_code.co_filename, trace.tb_lineno).strip()


class Iteration:
    """One transaction of a while-loop; made by `Run.iteration`."""

    def __init__(self, run: Run, name: str, index: int, site: Site) -> None:
        self._run = run
        self._name = name
        self._index = index
        self._site = site
        self._open: OpenIteration | None = None
        self._steps: Iterator[None] | None = None

    def __enter__(self) -> Iteration:
        run = self._run
        parent = run._stack[-1]
        loop = parent.with_loop
        if loop is None or loop.name.split("#")[0] != self._name:
            loop = run._enter(self._name, "with", self._site, None, None)
            parent.with_loop = loop
            loop.steps = run._record(loop, None) if run._only_recorded(loop) else None
        elif self._index != loop.count:
            raise LoopError(
                f"iterations of {self._name!r} are numbered 0, 1, 2, ...: got {self._index} where {loop.count} is due"
            )
        self._steps = loop.steps
        if self._steps is not None:
            next(self._steps)
        elif (index := run._next_index(loop)) is not None:
            self._open = run._open(loop, index)
        else:
            raise SkipRest
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        run, iteration = self._run, self._open
        if self._steps is not None:
            if error is None:
                next(self._steps)
        elif iteration is not None and (error is None or isinstance(error, SkipRest)):
            run._finish(iteration, left=False)
            return error is not None
        return False


__all__ = ["Iteration", "Run"]
