"""Following a plan through a recorded run.

The guide accompanies a run that re-executes a recording.  It finds each loop and iteration in the recording,
and says which iterations each loop runs and where it restores.  What the script does on the way is compared with
what the log says by `florlog.following.checks`.

A resume is guided up to its *frontier*, the first atom that the log does not have; from there on the run
records again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import NoReturn

from florlog_recovery import Image, Loop, LoopPlan, Measured, Node, NodePlan, Plan, RunTree, planned_restores
from florlog_wal import Note, RunLog

from florlog.errors import ChangedError, ImageError
from florlog.following.checks import Checks
from florlog.following.labelling import FoundValues
from florlog.following.omissions import Omissions
from florlog.following.recorded_statements import RecordedStatements
from florlog.following.shortcuts import PassOver, Shortcuts, SkipLoop
from florlog.following.stack import OpenIteration, OpenLoop
from florlog.following.trust import Readings, where
from florlog.program.process import this_process
from florlog.program.terminal import reason
from florlog.source.edit.skip_signal import SkipRest
from florlog.state.boundary_trees import States
from florlog.state.iterables import has_begun
from florlog.state.left_out import READ, LeftOutError, reads
from florlog.state.same_data import check

Restore = Callable[[OpenLoop, int, Image], float]
"""Puts back an image; gives the seconds for which it was read before."""

MAX_PROOF_SECONDS = 0.1
"""Training that may be redone after a value, only so that a fingerprint proves it."""


class Guide:
    """Leads one run along ``plan``.

    ``lines`` maps a source file to its path when recorded and its lines' numbers then; None: unchanged.
    """

    def __init__(
        self,
        log: RunLog,
        tree: RunTree,
        plan: Plan | None,
        lines: Mapping[str, tuple[str, Mapping[int, int]]] | None,
        *,
        frontier: tuple[Node, int | Loop] | None = None,
        readings: Readings | None = None,
        shortcuts: Shortcuts | None = None,
    ) -> None:
        self.log = log
        self.tree = tree
        self.plan = plan
        self.resuming = frontier is not None
        self._frontier = frontier
        self.shortcuts = shortcuts or Shortcuts()
        planned = [] if plan is None else list(planned_restores(plan.root))
        self._following = dict(zip([None, *planned], planned, strict=False))
        self._arrived = False
        self.statements = RecordedStatements(log, tree, lines, resuming=self.resuming)
        self.omissions = Omissions(self.statements)
        self.found = FoundValues(readings or Readings())
        self.checks = Checks(log, self.statements, self.omissions, self.found, resuming=self.resuming)
        self.redone = 0  # innermost iterations executed
        self._cut = False  # the last iteration was left after its last requested statement
        self.restored = 0
        self.image: tuple[Loop, int] | None = None  # where the last image was restored, or should have been
        self.image_error: ImageError | None = None  # why that failed
        self.entering = False
        """Whether the state is not the recorded one: an iteration was entered blindly, to restore ``image`` in it."""
        self.lost = False  # whether that did not lead to the image
        self._reads = reads()
        self.measured = Measured()
        self.spans: list[float] = []
        """Seconds of the set-up, from there to the first restore, and from each to the next."""
        self._began = self._span = time.perf_counter()
        self.progress: Callable[[int], None] = lambda redone: None

    @property
    def navigating(self) -> bool:
        """Whether loops still follow the plan."""
        return not self._arrived

    def start(self, root: OpenIteration) -> None:
        """The run itself begins."""
        root.recorded = self.tree.root
        root.plan = self.plan.root if self.plan else None
        self.statements.expect(root)
        self.reached(root)

    def reached(self, iteration: OpenIteration) -> None:
        """Another loop of an iteration has ended, or none has begun: is what follows the frontier?"""
        if self._frontier is not None and self._frontier == (iteration.recorded, iteration.segment):
            self._arrived = True
            around = iteration.loop
            while around is not None:
                around.parent.expected = None  # logged behind the loop that goes on: undone with its end
                around = around.parent.loop

    def enter(self, loop: OpenLoop) -> None:
        """A loop begins: find it in the recording and in the plan.

        Raises `SkipRest` when nothing after this place is planned, and `ChangedError` when the recording
        has another loop here.
        """
        parent = loop.parent
        if self.measured.setup is None:
            now = time.perf_counter()
            self.measured.setup = now - self._began - this_process.opened.seconds
            self._next_span(now)
        if parent.abandoned:
            raise SkipRest
        if self.entering:
            self._check_way(loop)
        node = parent.recorded
        if node is None:
            return
        recorded = node.find(loop.name)
        if recorded is None:
            if self.navigating and parent.plan is not None and len(parent.plan.loops) > parent.segment:
                expected = node.loops[parent.segment].name
                if not any(other.name == loop.name for other in self.tree.loops()):
                    return  # a loop that the script did not have: it runs as it is
                raise ChangedError(
                    f"the script entered loop {loop.name!r} at {where(parent.path)}, "
                    f"where it entered {expected!r} when recorded"
                )
            return
        loop.recorded = recorded
        check(
            loop.name, loop.cursor.iterable if loop.cursor else None, _fixed_length(recorded), recorded.data
        )
        if not self.navigating:
            return
        planned = parent.plan.loops if parent.plan else []
        if recorded.order >= len(planned):
            self.abandon(parent)
            raise SkipRest
        loop.plan = planned[recorded.order]

    def ended(self, loop: OpenLoop) -> bool:
        """A loop ended; whether the log does not have its end, which makes this place the frontier."""
        unfinished = self._at_frontier(loop)
        self._arrived = self._arrived or unfinished
        self.reached(loop.parent)
        return unfinished

    def _at_frontier(self, loop: OpenLoop) -> bool:
        recorded = loop.recorded
        if self._frontier is None or recorded is None or self._frontier[1] is not recorded:
            return False
        return loop.count == recorded.count

    def next_index(self, loop: OpenLoop, restore: Restore, skip: SkipLoop) -> int | None:
        """The iteration to run now, None at the planned end; calls ``restore`` and ``skip`` where the plan says so.

        ``skip`` returns why the loop cannot be skipped, "" if it is; where it cannot, the loop is run.
        """
        if self.omissions.mistaken:
            self._give_up(loop)
        index = self._planned_index(loop, restore, skip)
        self._arrived = self._arrived or self._at_frontier(loop)
        return index

    def _give_up(self, loop: OpenLoop) -> None:
        """Something was skipped that should not have been: leave the script."""
        around: OpenIteration | None = loop.parent
        while around is not None:
            self.abandon(around)
            around = None if around.loop is None else around.loop.parent
        raise SkipRest

    def _planned_index(self, loop: OpenLoop, restore: Restore, skip: SkipLoop) -> int | None:
        plan = loop.plan
        if plan is None or not self.navigating:
            return loop.count
        if loop.parent.abandoned:
            raise SkipRest
        if plan.skipped and loop.count == 0 and self.shortcuts.skip(loop, skip, self.log, self.omissions):
            return None
        if loop.stretch > 0 and loop.count <= plan.stretches[loop.stretch - 1].last:
            return loop.count
        if self._runs_on(loop, plan):
            return loop.count
        if loop.stretch < len(plan.stretches):
            stretch = plan.stretches[loop.stretch]
            loop.stretch += 1
            if stretch.restore:
                self._restore(loop, stretch.first, restore)
            elif stretch.blind:
                self._enter_blindly(plan.nodes[stretch.first])
            loop.count = stretch.first
            return loop.count
        if plan.restore_end:
            loop.count = plan.loop.count
            self._restore(loop, loop.count, restore)
            return None
        if plan.finished:
            return loop.count
        self.abandon(loop.parent)
        raise SkipRest

    def _runs_on(self, loop: OpenLoop, plan: LoopPlan) -> bool:
        """Whether to run on after a stretch: its steps were too short for fingerprints, and a later step has them."""
        if (
            loop.stretch == 0
            or self._cut
            or not self.checks.lacks_fingerprint
            or loop.count in plan.loop.nodes
        ):
            return False
        later = plan.stretches[loop.stretch :]
        stop = later[0].first if later else plan.loop.count
        last = plan.stretches[loop.stretch - 1].last
        return loop.count < stop and sum(plan.loop.seconds[last + 1 : loop.count + 1]) < MAX_PROOF_SECONDS

    def _enter_blindly(self, node: NodePlan) -> None:
        self.entering = self.checks.blind = True
        self.image = next(planned_restores(node))

    def entered_blindly(self, iteration: OpenIteration) -> bool:
        """Whether an iteration of the recording has begun on a state that is not the recorded one."""
        return self.entering and iteration.recorded is not None

    def _check_way(self, loop: OpenLoop) -> None:
        if loop.parent.plan is None or loop.order > 0:
            self.lose("it took another way than when recorded")
        if loop.cursor is not None and has_begun(loop.cursor.iterable):
            self.lose("its data were iterated before the state was restored")

    def lose(self, why: str) -> NoReturn:
        """An iteration that was entered blindly does not come to the image: whoever leads the run goes another way."""
        raise self._astray(why)

    def _astray(self, why: str) -> ImageError:
        self.lost = True
        error = ImageError(why)
        self.fail(error)
        return error

    def _restore(self, loop: OpenLoop, index: int, restore: Restore) -> None:
        assert loop.recorded is not None
        image, started = loop.recorded.images[index], time.perf_counter()
        self._next_span(started)
        self.image = loop.recorded, index
        try:
            read_before = restore(loop, index, image)
        except ImageError as error:
            self.fail(error)
            raise
        loop.restored = index
        self.entering = self.checks.blind = False
        self.measured.restored(image.state_bytes, read_before + time.perf_counter() - started)
        self.restored += 1
        self.checks.restored(loop.recorded, index)

    def image_after(self, restored: tuple[Loop, int] | None) -> Image | None:
        """The image that the plan restores after that of a boundary, or as the first one; None if there is none."""
        following = self._following.get(restored)
        return None if following is None else following[0].images.get(following[1])

    def fail(self, error: ImageError) -> None:
        """The image that was restored last cannot be used: whoever leads the run needs another plan."""
        self.image_error = error

    def compared(self) -> None:
        """The whole state was compared at a boundary."""

    def lacks_gradients(self) -> None:
        """A run has come to its end, or a resume to its frontier, without gradients that the image has left out."""

    def prove(self) -> list[Note]:
        """A resume has come to its frontier: what the log is to say of the way there."""
        return []

    def leave(self, error: BaseException | None) -> None:
        """The script leaves the run, with an ``error`` or without."""
        self._lacked_gradient()
        if self.entering and self.image_error is None and isinstance(error, Exception):
            self._astray(f"it raises {type(error).__name__}: {reason(error)}")

    def _next_span(self, now: float) -> None:
        self.spans.append(now - self._span)
        self._span = now

    def abandon(self, iteration: OpenIteration) -> None:
        """Nothing that this iteration still does is planned."""
        iteration.abandoned = True

    def leaves(self, iteration: OpenIteration, file: str, line: int) -> bool:
        """A statement was executed: is it the last one planned of the iteration?

        What the iteration received is compared here, as its commit will not be reached.  Where the recording
        has no fingerprint of that, the step is a short one, and is executed to its end, so that its commit is compared.
        So is one of whose value only what comes after it can show that it is the recorded run's.
        """
        if not self._is_planned(iteration) or not self.shortcuts.is_exit(iteration, file, line):
            return False
        if (
            self.omissions.undrawn
        ):  # a piece may have drawn random numbers: the iteration's commit will show it
            return False
        if iteration.plan is None and (not self.checks.received(iteration) or self.checks.lacks_fingerprint):
            return False
        if iteration.plan is None:
            self.redone += 1
            self.progress(self.redone)
        self._cut = True
        self.abandon(iteration)
        return True

    def passes(self, iteration: OpenIteration, number: int, pass_over: PassOver) -> bool:
        """Execution has come to a piece that may be passed over: is it?

        ``pass_over`` does what the piece would have left; it returns why that cannot be done, "" if it is done.
        """
        loop = iteration.loop
        if not self._is_planned(iteration) or iteration.abandoned or self.omissions.mistaken or self.entering:
            return False
        if loop is None or loop.recorded is None or iteration.index >= loop.recorded.count:
            return False
        return self.shortcuts.passes(iteration, number, pass_over, self.omissions)

    def _is_planned(self, iteration: OpenIteration) -> bool:
        loop = iteration.loop
        return loop is not None and loop.recorded is not None and loop.plan is not None and self.navigating

    def begin(self, iteration: OpenIteration) -> None:
        """An iteration begins."""
        self._cut = False
        if self._lacked_gradient():  # and the script has caught what was raised there
            raise LeftOutError(READ)
        loop = iteration.loop
        if loop is None or loop.recorded is None:
            return
        iteration.recorded = loop.recorded.nodes.get(iteration.index)
        if loop.plan is not None:
            iteration.plan = loop.plan.nodes.get(iteration.index)
        self.statements.expect(iteration)

    def _lacked_gradient(self) -> bool:
        """Whether a gradient was read that the image has left out; then it cannot be used."""
        lacked = reads() != self._reads and self.navigating
        if lacked and self.image_error is None:
            self.fail(LeftOutError(READ))
        return lacked

    def finish(self, iteration: OpenIteration, prints: tuple[bytes, bytes, bytes]) -> None:
        """An iteration ran to its end: compare what is left to compare."""
        if self._lacked_gradient():
            return
        loop = iteration.loop
        if loop is None or loop.recorded is None or iteration.abandoned:
            return
        if self.entering:
            self.lose("it took another way than when recorded")
        if not iteration.names:
            self.redone += 1
            self.progress(self.redone)
        self.checks.committed(iteration, prints)
        if loop.form == "with":  # whether another iteration follows is not known until it begins
            self._arrived = self._arrived or self._at_frontier(loop)
        plan = loop.plan
        if plan is not None and self.navigating and not plan.finished and not plan.restore_end:
            ended = loop.stretch == len(plan.stretches) and iteration.index >= plan.stretches[-1].last
            if ended and not self._runs_on(loop, plan):
                self.abandon(loop.parent)

    def stands(self, loop: OpenLoop, index: int, trees: States) -> None:
        """Execution came to a boundary by itself; ``trees`` gives the state as an image there would have it."""

    def end(self) -> None:
        """The run is over."""
        self.checks.end()
        self._next_span(time.perf_counter())


def _fixed_length(recorded: Loop) -> int:
    """The number of items that a loop had when it began; -1 if that is unknown, or its list changed while it ran."""
    whole = recorded.ended and not recorded.left
    changed = recorded.count > recorded.length or (whole and recorded.count != recorded.length)
    return -1 if changed else recorded.length
