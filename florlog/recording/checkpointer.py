"""Where a run's state is copied and put back: images at the boundaries of its loops.

A `Checkpointer` knows what is tracked and what the running frames carry.  While a run records it takes images when
the policy wants one; while it follows a plan it restores them, and gives the state as it is for comparison.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Collection
from typing import Any

import torch
from florlog_recovery import Image
from florlog_wal import CheckpointBegin, Note, Store

from florlog.errors import ChangedError, ImageError, StoreError, TrackError
from florlog.following.stack import OpenLoop, Site, check_can_go_on, gives_state_of, places_of
from florlog.images.budget import Room
from florlog.images.imager import Imager, SavedState
from florlog.images.policy import Policy
from florlog.images.snapshot import StateSnapshot
from florlog.program.process import this_process
from florlog.program.terminal import reason, warn
from florlog.recording.entry_state import EntryState, entry_state, restore_entry
from florlog.recording.fingerprints import StateFingerprint
from florlog.recording.journal import Journal
from florlog.recording.once import from_signal_handler
from florlog.recording.passing_over import PassingOver
from florlog.recording.putting_back import putting_back
from florlog.recording.strand import other_task
from florlog.state.adapters import Adapter, adapter
from florlog.state.boundary_trees import ENVIRONMENT, HEAP, SETTINGS, Trees
from florlog.state.cursors import passed_over
from florlog.state.derived import Derived
from florlog.state.heap.graph import Graph
from florlog.state.heap.image import flattened, graph_of
from florlog.state.item_sources import parts_of
from florlog.state.loaders import start_workers
from florlog.state.random_generators import Randomness
from florlog.state.settings import Settings
from florlog.state.tree import flatten
from florlog.state.variables import Carried, IsAdded
from florlog.state.wrappers import advance, bare, counters, obstacle

Tell = Callable[[str, dict[str, Any]], None]
_STEP_COST_FACTOR = 2.5
"""What the bookkeeping of a step costs, over what is seen of it between two steps: the rest are its log statements and
a start with colder caches (docs/performance.md)."""


class Checkpointer:
    """Takes and restores the images of one run; without a journal it takes none."""

    def __init__(
        self, journal: Journal | None, policy: Policy, room: Callable[[Tell], Room] | None = None
    ) -> None:
        self.policy = policy
        self.is_added: IsAdded | None = None  # in a replay
        self.awaited: set[str] = set()  # names that a restored image has and nobody tracked yet
        self._sampled = StateFingerprint()
        self.sampled = self._sampled.digest
        self._journal = journal
        self._imager = None
        if journal is not None:
            made = None if room is None else room(self._thinned)
            self._imager = Imager(journal.store, journal.session, journal.stop, self._lost, made)
        self._started = time.perf_counter()
        self._stalled = 0.0  # CPU seconds of the training thread for images; wall time counts what others do
        self.bookkeeping = 0.0  # seconds, as seen between steps
        self.own_seconds = 0.0  # for which images have held up the training
        self.persisting = True  # whether an image may be persisted during the present iteration
        self.wake = [-math.inf, -math.inf]
        """Times before which `due` says no, by `time.perf_counter`: of inner boundaries, of outermost ones."""
        self._busy = 0.0  # CPU seconds of persisting before the present iteration
        self._tracked: dict[str, Adapter] = {}
        self._objects: dict[str, Any] = {}
        self._random = Randomness()
        self._settings = Settings()
        self.passing = PassingOver(self._objects, self._random, self.sampled)
        self._derived = Derived(self._random, self._warn)
        self._carried = Carried()
        self._warned: set[str] = set()
        self._untaken: set[str] = set()
        self._withheld = False
        self._obstacles: dict[Site, str] = {}

    def track(self, name: str, target: Any) -> None:
        """Include an object under its name.  Raises `TrackError` where its state cannot be shown under it.

        Such an object is in images as whatever the program's variables reach.
        """
        self.awaited.discard(name)
        self._tracked.pop(name, None)
        self._objects[name] = target
        if isinstance(target, torch.nn.Module):
            self._sampled.watch(name, target)
        self._tracked[name] = adapter(name, target)

    def derive(self, name: str, function: Callable[[], Any]) -> None:
        """Regenerate what is tracked under a name by a function.  Raises `TrackError` for what is no function."""
        if not callable(function):
            raise TrackError(f"derived state {name!r} needs a function that regenerates it")
        self._derived.add(name, function)

    def withhold(self) -> None:
        """Take no more images: something changes whose state cannot be taken."""
        self._withheld = True

    def disown(self) -> None:
        """In a forked child: the log and the thread that persists are the parent's."""
        self._journal = self._imager = None

    def step(self, loop: str, seconds: float) -> None:
        """An innermost iteration took ``seconds``, the time since `due` or `boundary`."""
        imager = self._imager
        if imager is None or imager.resting:
            self.policy.step(loop, seconds, 0.0)
        else:
            self.policy.step(loop, seconds, imager.busy() - self._busy)

    def close(self) -> None:
        """Wait until every image is in the log."""
        if self._imager is not None:
            self._imager.close()

    # -- the state now -----------------------------------------------------------------------------

    def entry(self, iterable: Any) -> EntryState:
        """The random generators from which a loop draws its order when it starts."""
        return entry_state(iterable, self._random)

    def trees(self, loop: OpenLoop, *, without: Collection[str] = ()) -> Trees:
        """The state now, a tree for each name."""
        trees: dict[str, Any] = {
            name: made.capture() for name, made in self._tracked.items() if name not in without
        }
        trees["/rng"] = self._random.capture()
        if changed := self._settings.capture():
            trees[SETTINGS] = changed
        if variables := self._settings.environment():
            trees[ENVIRONMENT] = variables
        if loop.entry is not None and loop.count > 0:
            trees["/entry"] = loop.entry
            if loop.cursor is not None and (position := loop.cursor.position()) is not None:
                trees["/position"] = position
        flat = {name: flatten(tree, name) for name, tree in trees.items()}
        graph = self._carried.capture(
            places_of(loop),
            {name: target for name, target in self._objects.items() if name not in without},
            (tensor for _, tensors in flat.values() for _, tensor in tensors),
            left={id(self._objects[name]) for name in without if name in self._objects},
            iterables=_iterables(loop),
            fresh=_is_fresh(loop),
            is_added=self.is_added,
        )
        trees[HEAP], flat[HEAP] = graph, flattened(graph, HEAP)
        return Trees(trees, flat)

    def imaged(self, loop: OpenLoop) -> Trees:
        """The state now, as an image holds it: without what is derived from the rest."""
        return self.trees(loop, without=self._derived.omitted())

    # -- images ------------------------------------------------------------------------------------

    def due(self, now: float, *, outermost: bool) -> bool:
        """Whether `boundary` has something to do before an iteration, ``now`` by `time.perf_counter`."""
        imager = self._imager
        if imager is None or self._withheld:
            self.wake[outermost] = math.inf
            return False
        self.persisting = not imager.resting
        if self.persisting:
            self._busy = imager.busy()
        if imager.finished:
            return True
        wake = self._started + self.policy.due(preferred=outermost)
        if not self.persisting:
            self.wake[outermost] = wake  # nothing changes until the next image
        return now >= wake

    def boundary(self, loop: OpenLoop, index: int, *, end: bool) -> None:
        """A recorded run has come to a boundary: take an image if the policy wants one."""
        imager = self._imager
        if imager is None or self._withheld:
            return
        now = time.perf_counter() - self._started
        self.wake[:] = -math.inf, -math.inf
        self.persisting = True
        self._busy = imager.busy()
        first = loop.depth == 1 and index == 0
        preferred = loop.depth == 1 or (loop.depth == 2 and end)
        if imager.finished:
            self.policy.persisted(imager.finished.popleft())
        elif not first and now < self.policy.due(preferred=preferred):
            return
        # After the outermost loop no training is held up, and the final state is often asked for.
        wait = self.policy.overhead == float("inf") or (loop.depth == 1 and end)
        if not wait and not imager.has_room(outermost=loop.depth == 1):
            return
        wanted = first or self.policy.wants(
            now=now,
            own=self._stalled,
            kept=_STEP_COST_FACTOR * self.bookkeeping,
            persisted=self._busy,
            pending=imager.pending,
            preferred=preferred,
        )
        if wanted:
            try:
                self._image(loop, index, end=end)
            except StoreError:  # of a strict run
                raise
            except Exception as error:
                if from_signal_handler(error):
                    raise
                self._warn("no image could be taken, later replays must start earlier", reason(error))
            self.own_seconds += time.perf_counter() - self._started - now

    def _image(self, loop: OpenLoop, index: int, *, end: bool) -> None:
        assert self._journal is not None
        assert self._imager is not None
        if self._journal.stopped:
            return
        started, cpu = time.perf_counter(), time.thread_time()
        copy = self._copy(loop, end=end)
        if copy is not None:
            stall = time.perf_counter() - started
            # A resume may stand at the end of a loop that an earlier session logged: links stay in a session.
            previous = max(loop.lsn, self._journal.session)
            begin = self._journal.append(CheckpointBegin(loop.lsn, index), previous)
            if begin:
                self._imager.persist(copy, begin, stall)
        cost = time.thread_time() - cpu
        self._stalled += cost
        size = 0 if copy is None or copy.buffers is None else copy.buffers.nbytes
        self.policy.took(now=started - self._started, stall=cost, size=size)
        if (decision := self.policy.decision()) is not None:
            self._journal.append(Note("policy", decision.text, decision.data), self._journal.session)

    def _copy(self, loop: OpenLoop, *, end: bool) -> StateSnapshot | None:
        """The state now; None, and a warning, where it cannot be copied."""
        assert self._imager is not None
        # After its end a loop's iterator is not continued; a break has left none.
        if loop.count and loop.iterator is not None and not end:
            if loop.site not in self._obstacles:
                self._obstacles[loop.site] = "" if bare(loop.site) else obstacle(loop.iterator())
            if what := self._obstacles[loop.site]:
                self._warn(
                    f"no images are taken inside loop {loop.name!r}: {what} around it cannot be continued"
                )
                return None
        if not _is_fresh(loop) and (task := other_task()):
            self._warn(
                f"no images are taken while {task} waits in another task: what it holds is not captured"
            )
            return None
        try:
            if not end:
                check_can_go_on(loop)
            self._derived.check(self._tracked)
            trees = self.imaged(loop)
            if self._carried.missing:
                self._report_missing()
                return None
            return self._imager.snapshot(trees, trees.flat)
        except Exception as error:  # whatever an object's state_dict() raises: the training goes on
            if from_signal_handler(error):
                raise
            self._warn(f"no image could be taken, later replays must start earlier: {error}")
            return None

    def _report_missing(self) -> None:
        """Report, once each, what cannot be captured, and what follows from it."""
        for place, what in self._carried.missing.items():
            variable = re.sub(r"\[\d+\]", "[...]", place)  # once for all items of a list
            if variable not in self._untaken:
                self._untaken.add(variable)
                self._warn(
                    f"no images are taken while there is {variable}, {what}{self._carried.line_of(place)}: a replay or "
                    "resume starts earlier; give it state_dict()/load_state_dict(), or florlog.register its type"
                )

    def restore(self, store: Store, loop: OpenLoop, index: int, image: Image) -> None:
        """Put back the state at a boundary, and the loop's data position with it."""
        started = time.perf_counter()
        saved = SavedState(store, image.table)
        if not (this_process.trusts_images or saved.is_sealed()):
            raise ImageError("it was not recorded on this machine by you, and --trust RUN is not given")
        if self._imager is not None:
            self._imager.lineages.go_on(saved.table)
        names = set(saved.names())
        missing = {name for name in names if not name.startswith("/") and name not in self._tracked}
        if index == 0 and missing:
            raise ChangedError(_untracked(missing))
        # Made anew and tracked in the loop's body: what it was before does not matter.
        self.awaited |= missing
        at_end = loop.recorded is not None and index == loop.recorded.count and loop.recorded.ended
        if loop.cursor is not None and index > 0 and not at_end:
            if "/entry" in names:
                loop.entry = saved.tree("/entry")
                restore_entry(loop.entry, loop.cursor.iterable, self._random)
                if loop.entry["workers"]:
                    start_workers(loop.cursor.iterable)
            position = saved.tree("/position") if "/position" in names else None
            if what := passed_over(loop.cursor.iterable, position):
                self._warn(
                    f"loop {loop.name!r} goes on at item {index}: {what} produces the items before again"
                )
            loop.cursor.seek(index, position)
            if loop.counters is None:
                loop.counters = [] if bare(loop.site) else counters(loop.iterator())
            for counter in loop.counters:
                advance(counter, index - loop.count)
        graph = graph_of(saved.tree(HEAP))
        self._put_back_graph(loop, graph)
        for name, made in self._tracked.items():
            if name in names:
                with putting_back(name):
                    made.restore(saved.tree(name))
        self._put_back_graph(
            loop, graph
        )  # once more: a load_state_dict() may change more than what it is given
        self._derived.regenerate(self._tracked, names)
        changed = {name: saved.tree(name) if name in names else {} for name in (SETTINGS, ENVIRONMENT)}
        self._settings.restore(changed[SETTINGS], changed[ENVIRONMENT])
        self._random.restore(saved.tree("/rng"))
        if index == 0 and loop.entry is not None:
            loop.entry = self.entry(loop.cursor.iterable if loop.cursor else None)
        self.policy.restored(time.perf_counter() - started)

    def _put_back_graph(self, loop: OpenLoop, graph: Graph) -> None:
        self._carried.restore(places_of(loop), graph, self._objects, _iterables(loop), self.is_added)

    def put_back_generators(self, store: Store, image: Image) -> None:
        """Of an image put back the random generators alone: those that nobody seeds differ in every process."""
        self._random.restore(SavedState(store, image.table).tree("/rng"))

    def tracked_or_raise(self) -> None:
        """Raise `ImageError` if something that a restored image has was not tracked again."""
        if self.awaited:
            raise ImageError(_untracked(self.awaited))

    def _thinned(self, text: str, data: dict[str, Any]) -> None:
        assert self._journal is not None
        session = self._journal.session  # not through the journal, which is the training thread's
        self._journal.store.append(Note("policy", text, data), session=session, prev=session)
        self.policy.apart = data["apart"]
        if data["full"]:
            self.withhold()
            self._warn(text)

    def _lost(self, why: str) -> None:
        self._warn("could not store an image, the recording goes on without it", why)

    def _warn(self, text: str, why: str = "") -> None:
        """Warn once of each ``text``, with the reason that it has the first time."""
        if text not in self._warned:
            self._warned.add(text)
            warn(f"{text}: {why}" if why else text)


def _is_fresh(loop: OpenLoop) -> bool:
    """Whether no iteration has run yet."""
    return loop.depth == 1 and loop.count == 0 and loop.parent.segment == 0


def _iterables(loop: OpenLoop) -> dict[str, Any]:
    """What a loop and those around it run over, as far as it is state, by depth and place."""
    found: dict[str, Any] = {}
    around: OpenLoop | None = loop
    while around is not None:
        if gives_state_of(around) and around.cursor is not None:
            parts = parts_of(around.cursor.iterable)
            found |= {f"{around.depth}.{place}": part for place, part in enumerate(parts)}
        around = around.parent.loop
    return found


def _untracked(missing: set[str]) -> str:
    names = ", ".join(sorted(missing))
    return f"{names} was tracked when recorded and is not now: track the same names before the loop"
