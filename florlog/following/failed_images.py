"""Which images are left after one could not be restored, or did not lead to what was recorded.

The first time, the next plan does without that image, or, where another one would carry the same fault into what comes
after it, without all from there on.  A defect that stays would fail with one image after the other, and each attempt
costs a set-up of the program.  So when the same defect shows again, only the older half of the earlier images stays:
n images are given up after about log2(n) attempts, and at most half of what an image would have saved is redone.  The
image at the run's start stays until it fails itself; then the program runs without any.

Where something reads a gradient that an image has left out, it would read that of any other such image: none of them is
used any more.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from florlog_recovery import Loop, RunTree
from florlog_wal import RunLog

from florlog.following.trust import where
from florlog.images.imager import SavedState
from florlog.program.process import this_process
from florlog.program.stores import open_log
from florlog.program.terminal import report
from florlog.state.left_out import READ

Boundary = tuple[Loop, int]


def images_of_others(log: RunLog, tree: RunTree) -> frozenset[Boundary]:
    """The images of a run that somebody else recorded, unless the user trusts it.

    The newest stands for all here; each is looked at again before it is restored.
    """
    images = {(loop, index): image for loop in tree.loops() for index, image in loop.images.items()}
    if not images or this_process.trusts_images:
        return frozenset()
    newest = max(images.values(), key=lambda image: image.lsn)
    return frozenset() if SavedState(log, newest.table).is_sealed() else frozenset(images)


def without_gradients(log: RunLog, tree: RunTree) -> frozenset[Boundary]:
    """The images that have left out gradients."""
    return frozenset(
        (loop, index)
        for loop in tree.loops()
        for index, image in loop.images.items()
        if SavedState(log, image.table).gradients
    )


class FailedImages:
    """The images that failed while one question was answered."""

    def __init__(self, log: Path, tree: RunTree) -> None:
        """``log``: where the run's log is."""
        self._log = log
        self._tree = tree
        self._reasons: set[str] = set()

    def without(self, unusable: Collection[Boundary], failed: Boundary, why: str) -> frozenset[Boundary]:
        """The images that are not used any more, now that one could not be restored; says so in a line."""
        again = why in self._reasons
        self._reasons.add(why)
        lacking: frozenset[Boundary] = frozenset()
        if why == READ:
            with open_log(self._log) as log:
                lacking = without_gradients(log, self._tree)
        dropped = without(self._tree, unusable, failed, lacking, again=again, from_there_on=False)
        report(f"{cannot_be_restored(failed, why)}: {instead(self._tree, dropped)}")
        return dropped


def instead(tree: RunTree, unusable: Collection[Boundary]) -> str:
    """What is done without the images that are not used, as text."""
    left = [
        index or loop.depth > 1
        for loop in tree.loops()
        for index in loop.images
        if (loop, index) not in unusable
    ]
    if any(left):
        return "an earlier one is used"
    return "all is redone from the run's start" + ("" if left else ", without an image")


def cannot_be_restored(failed: Boundary, why: str) -> str:
    """That an image cannot be restored, and why, as text."""
    return f"the image at {named(failed)} cannot be restored ({why})"


def not_entered(failed: Boundary, why: str) -> str:
    """That an iteration cannot be entered blindly to restore an image in it, and why, as text."""
    around = where(failed[0].parent.path)
    return f"{around} cannot be entered on another state ({why}): it is entered with its own"


def named(image: Boundary) -> str:
    """Where an image was taken."""
    loop, index = image
    if loop.ended and index == loop.count:
        around = where(loop.parent.path)
        return f"the end of loop {loop.name!r}" + (f" at {around}" if loop.parent.path else "")
    return where(loop.path(index))


def without(
    tree: RunTree,
    unusable: Collection[Boundary],
    failed: Boundary,
    lacking: Collection[Boundary] = (),
    *,
    again: bool,
    from_there_on: bool,
) -> frozenset[Boundary]:
    """The images that are not used any more, after that of a boundary has ``failed``.

    ``lacking``: those that fail in the same way as they lack the same, and no others do; ``again``: another one failed
    in the same way before.
    """
    dropped = frozenset(unusable) | {failed}
    if lacking:
        return dropped.union(lacking)
    at = _lsn(failed)
    images = [(loop, index) for loop in tree.loops() for index in loop.images]
    if again or from_there_on:
        dropped |= {image for image in images if _lsn(image) >= at}
    if again:
        left = sorted((image for image in images if image not in dropped), key=_lsn)
        dropped |= frozenset(left[max(1, len(left) // 2) :])
    return dropped


def _lsn(image: Boundary) -> int:
    loop, index = image
    return loop.images[index].lsn
