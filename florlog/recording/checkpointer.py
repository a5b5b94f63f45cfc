"""When a run's state is stored, and when it is put back: images at the boundaries of its loops.

While a run records, a `Checkpointer` takes images when the policy wants one; while it follows a plan it restores them.
What the state is, and how it is captured, `florlog.recording.run_state` knows.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from florlog_recovery import CACHED
from florlog_wal import CheckpointBegin, Note

from florlog.errors import ImageError, StoreError
from florlog.following.stack import OpenLoop, Site, check_can_go_on
from florlog.images.budget import Room
from florlog.images.imager import Imager, SavedState
from florlog.images.policy import Boundary, Policy
from florlog.images.snapshot import StateSnapshot
from florlog.program.process import this_process
from florlog.program.terminal import reason, warn
from florlog.recording.boundary_worth import BoundaryWorth
from florlog.recording.early_audit import EarlyAudit
from florlog.recording.journal import Journal
from florlog.recording.once import from_signal_handler
from florlog.recording.run_state import RunState, is_fresh
from florlog.recording.strand import other_task
from florlog.recording.thread_costs import ThreadCosts
from florlog.state.wrappers import bare, obstacle

NO_IMAGE = "no image"
"""The kind of the notes that say why images are not taken, as the user was told."""

Tell = Callable[[str, dict[str, Any]], None]


class Checkpointer:
    """Takes and restores the images of one run; without a journal it takes none."""

    def __init__(
        self,
        journal: Journal | None,
        policy: Policy,
        room: Callable[[Tell], Room] | None = None,
        audit: EarlyAudit | None = None,
    ) -> None:
        self.policy = policy
        self.state = RunState(self._warn)
        self._journal = journal
        self._audit = audit
        self._imager = None
        if journal is not None:
            made = None if room is None else room(self._thinned)
            self._imager = Imager(
                journal.log, journal.session, journal.stop, self._lost, made, self._made_durable
            )
        self._started = time.perf_counter()
        self.costs = ThreadCosts()
        self.own_seconds = 0.0  # for which images have held up the training
        self.persisting = True  # whether an image may be persisted during the present iteration
        self.wake = [-math.inf, -math.inf]
        """Times before which `due` says no, by `time.perf_counter`: of inner boundaries, of outermost ones."""
        self._busy = 0.0  # CPU seconds of persisting before the present iteration
        self._worth = BoundaryWorth(None if journal is None else journal.log)
        self._places: set[tuple[Site, bool, bool]] = set()  # at which there are images
        self._cached = False  # whether the log says that pages go through the page cache
        self._warned: set[str] = set()
        self._untaken: set[str] = set()
        self._withheld = False
        self._obstacles: dict[Site, str] = {}

    def withhold(self) -> None:
        """Take no more images: something changes whose state cannot be taken."""
        self._withheld = True

    def give_up(self) -> None:
        """Take no more images, and end an audit: the run cannot be executed again."""
        self.withhold()
        if self._audit is not None:
            self._audit.close()

    def disown(self) -> None:
        """In a forked child: the log and the thread that persists are the parent's."""
        self._journal = self._imager = self._audit = None

    def step(self, loop: str, seconds: float) -> None:
        """An innermost iteration took ``seconds``, the time since `due` or `boundary`."""
        imager = self._imager
        if imager is None or imager.resting:
            self.policy.step(loop, seconds, 0.0)
        else:
            self.policy.step(loop, seconds, imager.busy() - self._busy)

    def close(self) -> None:
        """Wait until every image is in the log, and end an audit that runs."""
        if self._imager is not None:
            self._imager.close()
        if self._audit is not None:
            self._audit.close()

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
        wake = self._started + self.policy.due(Boundary.MAIN if outermost else Boundary.INNER)
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
        at = self._worth.at(loop, index, end=end)
        if imager.finished:
            self.policy.persisted(imager.finished.popleft())
        elif not first and now < self.policy.due(at):
            return
        # After the outermost loop no training is held up, and the final state is often asked for.
        wait = self.policy.overhead == float("inf") or (loop.depth == 1 and end)
        if not wait and not imager.has_room(main=at in (Boundary.MAIN, Boundary.LAST)):
            return
        wanted = first or self.policy.wants(
            at,
            now=now,
            own=self.costs.images + self._worth.analysed,
            kept=self.costs.bookkeeping,
            persisted=self._busy,
            pending=imager.pending,
        )
        if wanted:
            if at is Boundary.MAIN:
                self._worth.imaged(loop)
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
                if self._audit is not None:
                    self._audit.copied(loop, index, begin)
                self._imager.persist(copy, begin, stall)
        cost = time.thread_time() - cpu
        self.costs.images += cost
        size = 0 if copy is None or copy.buffers is None else copy.buffers.nbytes
        place = (loop.site, end, is_fresh(loop))
        buffers = None if copy is None else copy.buffers
        once = place not in self._places or (buffers is not None and buffers.fresh)
        self.policy.took(now=started - self._started, stall=cost, size=size, once=once)
        self._places.add(place)
        if (decision := self.policy.decision()) is not None:
            self._journal.append(Note("policy", decision.text, decision.data), self._journal.session)

    def _copy(self, loop: OpenLoop, *, end: bool) -> StateSnapshot | None:
        """The state now; None, and a warning, where it cannot be copied."""
        assert self._imager is not None
        # After its end a loop's iterator is not continued; a break has left none.
        if loop.count and loop.iterator is not None and not end:
            if loop.site not in self._obstacles:
                self._obstacles[loop.site] = "" if loop.bare or bare(loop.site) else obstacle(loop.iterator())
            if what := self._obstacles[loop.site]:
                self._warn(
                    f"no images are taken inside loop {loop.name!r}: {what} around it cannot be continued"
                )
                return None
        if not is_fresh(loop) and (task := other_task()):
            self._warn(
                f"no images are taken while {task} waits in another task: what it holds is not captured"
            )
            return None
        try:
            if not end:
                check_can_go_on(loop)
            self.state.check_derived()
            trees = self.state.imaged(loop, self.state.dead_gradients(loop, end=end))
            if self.state.missing:
                self._report_missing(self.state.missing)
                return None
            if is_fresh(loop):
                self._report_missing(self.state.missing_at_start)
            return self._imager.snapshot(trees, trees.flat)
        except Exception as error:  # whatever an object's state_dict() raises: the training goes on
            if from_signal_handler(error):
                raise
            self._warn(f"no image could be taken, later replays must start earlier: {error}")
            return None

    def _report_missing(self, missing: Mapping[str, str]) -> None:
        """Report, once each, what cannot be captured, and what follows from it."""
        for place, what in missing.items():
            variable = re.sub(r"\[\d+\]", "[...]", place)  # once for all items of a list
            if variable not in self._untaken:
                self._untaken.add(variable)
                self._warn(
                    f"no images are taken while there is {variable}, {what}{self.state.line_of(place)}: a replay or "
                    "resume starts earlier; give it state_dict()/load_state_dict(), or florlog.register its type"
                )

    def restore(self, saved: SavedState, loop: OpenLoop, index: int, reading: float, *, blind: bool) -> None:
        """Put back an image that took ``reading`` seconds to read, as `RunState.restore` does.

        Raises `ImageError` for one that is not to be trusted.
        """
        started = time.perf_counter()
        if not (this_process.trusts_images or saved.is_sealed()):
            raise ImageError("it was not recorded on this machine by you, and --trust RUN is not given")
        if self._imager is not None:
            self._imager.lineages.go_on(saved.table)
        self.state.restore(saved, loop, index, blind=blind)
        self.policy.restored(reading + time.perf_counter() - started)

    def _thinned(self, text: str, data: dict[str, Any]) -> None:
        assert self._journal is not None
        session = self._journal.session  # not through the journal, which is the training thread's
        self._journal.log.append(Note("policy", text, data), session=session, prev=session)
        if data["full"]:
            self.withhold()
            self._warn(text)

    def _made_durable(self, begin: int) -> None:
        assert self._journal is not None
        if not self._journal.log.direct and not self._cached:
            self._cached = True
            session = self._journal.session
            text = "the file system refuses O_DIRECT: pages are written through its cache"
            self._journal.log.append(Note(CACHED, text, {}), session=session, prev=session)
        if self._audit is not None:
            self._audit.durable(begin)

    def _lost(self, why: str) -> None:
        self._warn("could not store an image, the recording goes on without it", why)

    def _warn(self, text: str, why: str = "") -> None:
        """Warn once of each ``text``, with the reason that it has the first time."""
        if text not in self._warned:
            self._warned.add(text)
            said = f"{text}: {why}" if why else text
            if self._journal is not None:
                session = self._journal.session  # not through the journal, which is the training thread's
                with suppress(Exception):  # the log itself may be what failed
                    self._journal.log.append(Note(NO_IMAGE, said, {}), session=session, prev=session)
            warn(said)
