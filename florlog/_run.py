"""A run: loops whose iterations are transactions, tracked state, logged values.

The same object serves recording, resuming and replaying; what differs is held by its parts.  A *journal*
writes records, an *imager* takes images, a *guide* follows a plan through an earlier recording.  Recording
has a journal and an imager, a replay has a guide, a resume has all three: it is guided up to the last
restore of its plan and records from there.

The training thread does only what must happen at a boundary; a step without an image costs a commit record
and three fingerprints.
"""

from __future__ import annotations

import math
import sys
import time
import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator
from types import CodeType, FrameType, TracebackType
from typing import Any, TypeVar

import torch
from florlog_recovery import Image
from florlog_wal import (
    Abort,
    Begin,
    CheckpointBegin,
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

from ._data import Cursor, identity, length_of, loader_generators, needs_entry_state
from ._fingerprint import StateFingerprint, item_fingerprint, rng_fingerprint
from ._frames import Carried, call_stack, frame_of
from ._guide import Guide, Variables
from ._image import Imager, SavedState
from ._journal import Journal, Site
from ._open import OpenIteration, OpenLoop
from ._policy import Policy
from ._skip import SkipRest
from ._state import Adapter, Randomness, adapter
from ._tree import flatten, plain
from ._wrappers import advance, counters, obstacle
from .errors import ChangedError, LogValueError, LoopError, TrackError

T = TypeVar("T")
_SCALARS = (float, int, str, bool, type(None))


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
        overhead: float,
        max_redo: float = math.inf,
        close: Callable[[], None],
    ) -> None:
        self.id = run_id
        self.name = name
        self._script = script
        self._journal = journal
        self._guide = guide
        self._policy = Policy(overhead, max_redo)
        self._close = close
        self._imager = Imager(journal.store, journal.session, journal.stop) if journal else None
        self._started = time.perf_counter()
        self._own = 0.0  # seconds of florlog's own work on this thread
        self._stalled = (
            0.0  # of them CPU seconds for images: a machine that is busy elsewhere is not their fault
        )
        self._tracked: dict[str, Adapter] = {}
        self._objects: dict[str, Any] = {}
        self._derived: dict[str, Callable[[], Any]] = {}
        self._random = Randomness()
        self._carried = Carried()
        self._sampled = StateFingerprint()
        self._warned: set[str] = set()
        self._obstacles: dict[Site, str] = {}
        self._awaited: set[str] = set()
        self._left: list[OpenIteration] = []
        root = OpenIteration(None, 0, (), self._started, 0.0, begun=True, segment_started=self._started)
        self._stack = [root]
        if guide is not None:
            guide.start(root)
        self._recording = journal is not None and not (guide and guide.navigating)

    # -- what a user calls -------------------------------------------------------------------------

    def track(self, *, derived: dict[str, Callable[[], Any]] | None = None, **objects: Any) -> None:
        """Include the state of ``objects`` in images, under their names.

        Anything with ``state_dict()`` and ``load_state_dict()``, tensors, arrays, RNGs and plain values can be
        tracked.  ``derived`` maps names to functions that regenerate state from the rest after a restore
        (LWCP, ICPP 2019); it is never stored.  Raises `TrackError` for an object without capturable state.
        """
        self._awaited -= objects.keys()
        for name, target in objects.items():
            self._tracked[name] = adapter(name, target)
            self._objects[name] = target
            if isinstance(target, torch.nn.Module):
                self._sampled.watch(name, target)
        for name, function in (derived or {}).items():
            if not callable(function):
                raise TrackError(f"derived state {name!r} needs a function that regenerates it")
            self._derived[name] = function

    def log(self, **values: Any) -> None:
        """Log values under their names in the current iteration.

        Numbers, strings, tensors, arrays and containers of them; `LogValueError` for anything else.
        """
        self._log(sys._getframe(1), values)

    def loop(self, name: str, iterable: Iterable[T]) -> Iterator[T]:
        """Iterate over ``iterable``; each pass is a transaction, with index from 0."""
        frame = sys._getframe(1)
        return self._loop(name, iterable, (frame.f_code, frame.f_lineno))

    def iteration(self, name: str, index: int) -> Iteration:
        """A transaction for a while-loop: ``with run.iteration("step", i):``, numbered 0, 1, 2, ..."""
        frame = sys._getframe(1)
        return Iteration(self, name, index, (frame.f_code, frame.f_lineno))

    # -- logging -----------------------------------------------------------------------------------

    def _log(self, frame: FrameType, values: dict[str, Any]) -> None:
        self._left.clear()
        open_ = self._stack[-1]
        code, line = frame.f_code, frame.f_lineno
        held = [(name, self._encodable(name, value)) for name, value in values.items()]
        if self._recording and self._journal is not None:
            loops = tuple(name for name, _ in open_.path)
            statement = self._journal.statement("log", (code, line), loops, tuple(values))
            open_.values.extend((statement, name, value) for name, value in held)
        if self._guide is not None:
            for name, value in held:
                self._guide.log(open_, (code.co_filename, line, code.co_qualname), name, value)

    @staticmethod
    def _encodable(name: str, value: Any) -> Any:
        if type(value) in _SCALARS:
            return value
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
        while True:
            index = self._next_index(loop)
            if index is None:
                break
            iteration = self._open(loop, index)
            try:
                item = cursor.next()
            except StopIteration:
                self._stack.pop()
                if loop.plan is not None and loop.recorded is not None and index < loop.recorded.count:
                    raise ChangedError(
                        f"loop {loop.name!r} ended after {index} items and had {loop.recorded.count} when recorded: "
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
            loop.entry = self._entry(iterable)
        if self._recording:
            self._log_begins()
            self._log_loop(loop)
        return loop

    @staticmethod
    def _length(loop: OpenLoop) -> int:
        """The boundary at which the loop ends, -1 if nothing tells."""
        recorded = loop.recorded
        return recorded.count if recorded is not None and recorded.ended else loop.length

    def _entry(self, iterable: Any) -> dict[str, Any]:
        """The RNGs from which a loop draws its order when it starts."""
        generators = loader_generators(iterable)
        return {
            "rng": self._random.capture(),
            "generators": [generator.get_state() for generator in generators],
        }

    def _next_index(self, loop: OpenLoop) -> int | None:
        self._left.clear()
        if self._guide is None:
            if loop.count != loop.length:  # its end is a boundary of its own
                self._boundary(loop, loop.count)
            return loop.count
        if self._guide.unchecked and loop.depth == 1 and loop.count == 0:
            self._guide.arrive(loop, 0, lambda only: self._trees(loop, only))
        before, restored = loop.count, self._guide.restored
        index = self._guide.next_index(loop, self._restore)
        if self._record_from_here() and index is not None:
            self._log_loop(loop, start=index)
        if index is not None and self._guide.restored == restored and before != self._length(loop):
            self._boundary(loop, before)
        return index

    def _open(self, loop: OpenLoop, index: int) -> OpenIteration:
        now = time.perf_counter()
        iteration = OpenIteration(loop, index, loop.path(index), now, self._own)
        iteration.segment_started, iteration.segment_own = now, self._own
        if self._imager is not None:
            iteration.busy = self._imager.busy()
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
                self._tracked_or_raise(self._awaited)
        now = time.perf_counter()
        seconds = max(0.0, now - iteration.started - (self._own - iteration.own))
        self._stack.pop()
        loop = iteration.loop
        assert loop is not None
        loop.count = iteration.index + 1
        if self._imager is not None and not iteration.names:
            self._policy.step(loop.name, seconds, self._imager.busy() - iteration.busy)
        if not iteration.abandoned:
            prints = (rng_fingerprint(), iteration.data, self._sampled())
            if self._recording and self._journal is not None:
                values = tuple(iteration.values)
                commit = Commit(loop.lsn, iteration.index, iteration.segment, values, seconds, *prints, left)
                self._journal.append(commit, iteration.prev)
            if self._guide is not None:
                self._guide.finish(iteration, prints)
                if loop.form == "with" and self._record_from_here():
                    self._log_loop(loop, start=loop.count)
        if left:
            self._left.append(iteration)

    def _end_loop(self, loop: OpenLoop, *, left: bool) -> None:
        parent = loop.parent
        parent.segment += 1
        if self._guide is not None and not self._recording:
            # Not before: a sampler may draw once more behind the last item.
            if loop.form == "for" and (left or loop.count == self._length(loop)):
                self._boundary(loop, loop.count, end=True)
            unfinished = self._guide.ended(loop)
            if self._record_from_here() and unfinished:
                self._log_loop(loop, start=loop.count)
        if self._recording and self._journal is not None and loop.lsn:
            parent.prev = self._journal.append(LoopEnd(loop.lsn, loop.count, left), parent.prev)
            if loop.form == "for":
                self._boundary(loop, loop.count, end=True)
        parent.segment_started, parent.segment_own = time.perf_counter(), self._own

    def _settle(self, iteration: OpenIteration) -> None:
        """End the run.iteration loop that the iteration's body was in."""
        loop, iteration.with_loop = iteration.with_loop, None
        if loop is not None:
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
        own = self._own - parent.segment_own
        record = LoopBegin(
            path=parent.path,
            name=loop.name,
            parent=parent_lsn,
            statement=statement,
            form=loop.form,
            length=loop.length,
            start=start,
            stack=loop.stack,
            seconds=max(0.0, time.perf_counter() - parent.segment_started - own),
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
        return True

    # -- state -------------------------------------------------------------------------------------

    def _places(self, loop: OpenLoop) -> dict[CodeType, int | None]:
        """The code objects that run loops now, innermost first.

        The innermost stands at its loop's line, the others at the call that led inwards (None).
        """
        places: dict[CodeType, int | None] = {loop.site[0]: loop.site[1]}
        outer = loop.parent.loop
        while outer is not None:
            places.setdefault(outer.site[0], None)
            outer = outer.parent.loop
        return places

    def _trees(self, loop: OpenLoop, only: Variables | None = None) -> dict[str, Any]:
        trees: dict[str, Any] = {name: made.capture() for name, made in self._tracked.items()}
        trees["/rng"] = self._random.capture()
        if loop.entry is not None and loop.count > 0:
            trees["/entry"] = loop.entry
            if loop.cursor is not None and (position := loop.cursor.position()) is not None:
                trees["/position"] = position
        storages = self._storages(trees)
        fresh = loop.depth == 1 and loop.count == 0 and loop.parent.segment == 0
        captured = self._carried.capture(self._places(loop), self._objects, storages, fresh=fresh, only=only)
        for name, held in captured.items():
            trees[f"/{name}"] = held
        return trees

    def _storages(self, trees: dict[str, Any]) -> set[int]:
        """The memory of what is tracked."""
        return {
            tensor.untyped_storage().data_ptr()
            for name in self._tracked
            for _, tensor in flatten(trees[name], name)[1]
        }

    def _boundary(self, loop: OpenLoop, index: int, *, end: bool = False) -> None:
        """Execution stands at a boundary: take an image, or compare with the recorded one."""
        if self._recording and self._journal is not None and self._imager is not None:
            now = time.perf_counter() - self._started
            first = loop.depth == 1 and index == 0
            preferred = loop.depth == 1 or (loop.depth == 2 and end)
            if self._imager.finished:
                self._policy.persisted(self._imager.finished.popleft())
            if first or self._policy.wants(
                now=now,
                own=self._stalled,
                persisted=self._imager.busy(),
                pending=self._imager.pending,
                preferred=preferred,
            ):
                started = time.perf_counter()
                # Behind the outermost loop no training is held up, and the final state is worth having.
                wait = self._policy.overhead == float("inf") or (loop.depth == 1 and end)
                self._image(loop, index, wait=wait)
                self._own += time.perf_counter() - started
        elif self._guide is not None and not self._recording:
            self._guide.arrive(loop, index, lambda only: self._trees(loop, only))

    def _image(self, loop: OpenLoop, index: int, *, wait: bool) -> None:
        assert self._journal is not None
        assert self._imager is not None
        if self._journal.stopped:
            return
        started, cpu = time.perf_counter(), time.thread_time()
        if loop.count and loop.iterator is not None and index != loop.length:
            if loop.site not in self._obstacles:
                self._obstacles[loop.site] = obstacle(loop.iterator())
            if what := self._obstacles[loop.site]:
                self._warn(
                    f"no images are taken inside loop {loop.name!r}: {what} around it cannot be continued"
                )
                return
        try:
            copy = self._imager.snapshot(self._trees(loop), outermost=loop.depth == 1, wait=wait)
        except Exception as error:  # whatever an object's state_dict() raises: the training goes on
            self._warn(f"no image could be taken, later replays must start earlier: {error}")
            return
        if copy is None:
            return
        stall = time.perf_counter() - started
        begin = self._journal.append(CheckpointBegin(loop.lsn, index), loop.lsn)
        if begin:
            self._imager.persist(copy, begin, stall)
        cost = time.thread_time() - cpu
        self._stalled += cost
        self._policy.took(now=started - self._started, stall=cost)
        if (decision := self._policy.decision()) is not None:
            self._journal.append(Note("policy", decision.text, decision.data), self._journal.session)

    def _restore(self, loop: OpenLoop, index: int, image: Image) -> None:
        """Put back the state at a boundary, and the loop's data position with it."""
        assert self._guide is not None
        started = time.perf_counter()
        saved = SavedState(self._guide.store, image.table)
        names = set(saved.names())
        missing = {name for name in names if not name.startswith("/") and name not in self._tracked}
        if index == 0:
            self._tracked_or_raise(missing)
        self._awaited |= (
            missing  # made anew and tracked in the loop's body: what it was before does not matter
        )
        at_end = loop.recorded is not None and index == loop.recorded.count and loop.recorded.ended
        if loop.cursor is not None and index > 0 and not at_end:
            if "/entry" in names:
                loop.entry = saved.tree("/entry")
                self._random.restore(loop.entry["rng"])
                generators = loader_generators(loop.cursor.iterable)
                for generator, state in zip(generators, loop.entry["generators"], strict=True):
                    generator.set_state(state)
            loop.cursor.seek(index, saved.tree("/position") if "/position" in names else None)
            if loop.counters is None:
                loop.counters = counters(loop.iterator())
            for counter in loop.counters:
                advance(counter, index - loop.count)
        for name, made in self._tracked.items():
            if name in names:
                made.restore(saved.tree(name))
        for function in self._derived.values():
            function()
        held = {name[1:]: saved.tree(name) for name in names if name.startswith("/locals")}
        self._carried.restore(self._places(loop), held, self._objects, ())
        self._random.restore(saved.tree("/rng"))
        if index == 0 and loop.entry is not None:
            loop.entry = self._entry(loop.cursor.iterable if loop.cursor else None)
        self._policy.restored(time.perf_counter() - started)

    @staticmethod
    def _tracked_or_raise(missing: set[str]) -> None:
        if missing:
            raise ChangedError(
                f"{', '.join(sorted(missing))} was tracked when recorded and is not now: "
                "track the same names before the loop"
            )

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
            if self._imager is not None:
                self._imager.close()
            for difference in self._guide.differences if self._guide is not None else []:
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
            frames.append((code.co_filename, code.co_qualname, trace.tb_lineno, _source_line(trace)))
            trace = trace.tb_next
        path = self._left[0].path if self._left else self._stack[-1].path
        return Failure(type(error).__name__, str(error), path, tuple(frames))

    def _warn(self, text: str) -> None:
        if text not in self._warned:
            self._warned.add(text)
            warnings.warn(f"florlog: {text}", RuntimeWarning, stacklevel=2)


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

    def __enter__(self) -> Iteration:
        run = self._run
        parent = run._stack[-1]
        loop = parent.with_loop
        if loop is None or loop.name.split("#")[0] != self._name:
            loop = run._enter(self._name, "with", self._site, None, None)
            parent.with_loop = loop
        elif self._index != loop.count:
            raise LoopError(
                f"iterations of {self._name!r} are numbered 0, 1, 2, ...: got {self._index} where {loop.count} is due"
            )
        index = run._next_index(loop)
        if index is None:
            raise SkipRest
        self._open = run._open(loop, index)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if self._open is not None and (error is None or isinstance(error, SkipRest)):
            self._run._finish(self._open, left=False)
            return error is not None
        return False


__all__ = ["Iteration", "Run"]
