"""The runs that a program opened before the one that is meant, when it is executed again.

A program comes to a run only through those that it opened before.  One that is complete is *passed over*: it is led
along a plan that wants nothing of it but its end, as for a statement after its loops.  So its last image is restored,
what lies after that is executed again and compared, and the program goes on after it.  Nothing of it is recorded
again.  What the program then does with its results it does as it did.

What follows an earlier run's loops may read what lies outside of the process and has changed since, as a file that a
later run has written too.  So earlier runs are passed over only where the run that is meant has an image: that puts
back, or shows, what differs.

Where that is not possible, or does not lead to the recorded end, such a run is executed *whole*, as set-up is: it is
not recorded, and what comes of it is compared with the images and fingerprints of the run that is meant.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import astuple, dataclass, replace
from typing import Any

from florlog_recovery import Atoms, Loop, Plan, RunTree, plan_redo
from florlog_wal import RunLog, Store, WalError

from florlog.errors import FlorlogError, ImageError
from florlog.following.failed_images import Boundary
from florlog.following.guide import Guide
from florlog.following.outside import Outside
from florlog.images.imager import SavedState
from florlog.program.measured_costs import costs_of
from florlog.program.recorded_sources import recorded_sources
from florlog.program.stores import log_of, open_store, store_of, tree_of
from florlog.program.terminal import reason

DIFFERED = "passed over, it did not end as it was recorded"
"""Why an earlier run is executed whole in a second attempt."""

NO_IMAGE = "the run after it has no image with which its end could be compared"
"""The same, as what it left outside of the process, such as a file, may not be what it was."""

Lines = Mapping[str, tuple[str, Mapping[int, int]]] | None


@dataclass(frozen=True, slots=True)
class Usable:
    """What of an earlier run can be restored by the program as it is now, or why nothing can."""

    unusable: frozenset[Boundary] = frozenset()
    enterable: frozenset[Loop] = frozenset()  # that may be entered blindly
    obstacle: str = ""


@dataclass(frozen=True, slots=True)
class EarlierRun:
    """What becomes of an earlier run."""

    name: str
    run: str  # its id, "" where it was not recorded
    why: str  # it is executed whole; "": it is passed over
    unusable: tuple[int, ...] = ()  # LSNs of images that are not restored
    enterable: tuple[int, ...] = ()  # LSNs of loops that may be entered blindly
    redone: int = 0  # innermost iterations
    seconds: float = 0.0  # that it will take, as far as that is known
    whole_seconds: float = 0.0  # that it took when it was recorded

    @property
    def passed_over(self) -> bool:
        """Whether it is not executed whole."""
        return not self.why

    def executed(self) -> EarlierRun:
        """The same run, executed whole after a passing over that failed."""
        return replace(self, why=self.why or DIFFERED)

    @property
    def data(self) -> tuple[Any, ...]:
        """The same as plain data: the arguments of `EarlierRun`."""
        return astuple(self)


def earlier_run(
    store: Store | None, name: str, run: str, usable: Callable[[RunLog, RunTree], Usable], *, whole: str = ""
) -> EarlierRun:
    """What becomes of a run that was opened earlier; ``whole``: why it is executed whole in any case, "" if it is not.

    ``usable`` says what of a complete run can be restored.
    """
    if not run:
        return EarlierRun(name, run, "it was not recorded")
    if store is None:
        return EarlierRun(name, run, "its store is not there")
    try:
        log = log_of(store, run)
        tree = tree_of(log)
        seconds = sum(loop.before + sum(loop.seconds) for loop in tree.root.loops) + tree.root.after
        executed = EarlierRun(
            name, run, "", redone=tree.innermost_iterations(), seconds=seconds, whole_seconds=seconds
        )
        if why := whole or _obstacle(log, tree):
            return replace(executed, why=why)
        found = usable(log, tree)
        if found.obstacle:
            return replace(executed, why=found.obstacle)
        images = found.unusable | _without_gradients(log, tree)
        plan = _to_end(log, tree, images, found.enterable)
        return replace(
            executed,
            unusable=tuple(sorted(loop.images[index].lsn for loop, index in images)),
            enterable=tuple(sorted(loop.lsn for loop in found.enterable)),
            redone=_redone(plan),
            seconds=plan.seconds,
        )
    except (WalError, OSError, FlorlogError) as error:
        return EarlierRun(name, run, reason(error))


def earlier_runs(
    log: RunLog, tree: RunTree, usable: Callable[[RunLog, RunTree], Usable], *, whole: bool = False
) -> tuple[EarlierRun, ...]:
    """What becomes of all that the program opened before a run; ``whole``: that has failed, and none is passed over."""
    earlier, path = tree.begin.earlier, store_of(log)
    if not earlier:
        return ()
    why = DIFFERED if whole else "" if has_images(tree) else NO_IMAGE
    with nullcontext() if path is None else open_store(path) as store:
        return tuple(earlier_run(store, name, run, usable, whole=why) for name, run in earlier)


def has_images(tree: RunTree) -> bool:
    """Whether a run has any."""
    return any(loop.images for loop in tree.loops())


def other_text(log: RunLog, tree: RunTree, texts: Mapping[str, str]) -> bool:
    """Whether a run was recorded from another text of one of these files."""
    return any(texts.get(source.path, source.text) != source.text for source in recorded_sources(log, tree))


def _obstacle(log: RunLog, tree: RunTree) -> str:
    """What of a run itself keeps it from being passed over."""
    if tree.status != "complete":
        return f"it is {tree.status}"
    if tree.begin.world_size > 1:
        return "it has several ranks"
    if tree.hooked:
        return "it is for reading alone"
    images = [image for loop in tree.loops() for image in loop.images.values()]
    # The newest stands for all here; each is looked at again before it is restored.
    if images and not SavedState(log, max(images, key=lambda image: image.lsn).table).is_sealed():
        return "it was not recorded on this machine by you"
    return ""


def _without_gradients(log: RunLog, tree: RunTree) -> frozenset[Boundary]:
    """The images at the ends of the outermost loops that have left out gradients, which nothing computes after them."""
    return frozenset(
        (loop, loop.count)
        for loop in tree.root.loops
        if loop.count in loop.images and SavedState(log, loop.images[loop.count].table).gradients
    )


def _to_end(log: RunLog, tree: RunTree, unusable: frozenset[Boundary], enterable: frozenset[Loop]) -> Plan:
    """The cheapest way to what follows a run's loops."""
    atoms = Atoms()
    atoms.add_segment(tree.root, len(tree.root.loops))
    return plan_redo(tree, atoms, costs_of(log, tree), unusable, enterable=enterable.__contains__)


def _redone(plan: Plan) -> int:
    """The innermost iterations that a plan executes."""
    count, pending = 0, list(plan.root.loops)
    while pending:
        loop = pending.pop()
        for stretch in loop.stretches:
            inside = [index for index in loop.nodes if stretch.first <= index <= stretch.last]
            count += stretch.last - stretch.first + 1 - len(inside)
        for node in loop.nodes.values():
            pending.extend(node.loops)
    return count


class EarlierGuide(Guide):
    """Leads an earlier run to its end; ``broken`` is told why it does not come there as it was recorded.

    ``broken`` raises, or does not return.
    """

    def __init__(
        self,
        log: RunLog,
        tree: RunTree,
        earlier: EarlierRun,
        lines: Lines,
        outside: Outside | None,
        broken: Callable[[str], None],
    ) -> None:
        unusable = frozenset(
            (loop, index)
            for loop in tree.loops()
            for index, image in loop.images.items()
            if image.lsn in earlier.unusable
        )
        enterable = frozenset(loop for loop in tree.loops() if loop.lsn in earlier.enterable)
        super().__init__(log, tree, _to_end(log, tree, unusable, enterable), lines)
        self._broken = broken
        self.checks.alarm = self._differs
        if outside is not None:
            self.checks.excuse(outside)

    def fail(self, error: ImageError) -> None:
        """The image that was restored last cannot be used."""
        super().fail(error)
        self._broken(reason(error))

    def compared(self) -> None:
        """The whole state was compared at a boundary."""
        if self.checks.unlike:
            self._differs(self.checks.unlike)

    def lacks_gradients(self) -> None:
        """At the end, gradients are those that the image has left out, and the program may read them."""
        self._broken("the image at its end has left out gradients")

    def leave(self, error: BaseException | None) -> None:
        """The script leaves the run: when it was recorded, no exception left it."""
        super().leave(error)
        if isinstance(error, Exception) and not isinstance(error, ImageError):
            self._broken(f"it raises {type(error).__name__}: {reason(error)}")

    def _differs(self, text: str) -> None:
        if self.restored:  # else the image puts back what the set-up made, or all is executed anyway
            self._broken(text)
