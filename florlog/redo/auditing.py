"""Auditing a run: is what its images hold all that the run depends on?

Each image is restored in a process of its own (before one inside an inner loop that of the iteration around it, if it
has one), and the recorded program is re-executed from there to the next image, where the whole state is compared.
What was not captured cannot hide in a process that has just computed it: each process starts with the program's set-up
alone.  This is Flor's deferred correctness check (VLDB 2020, section 4.4), of the state and not of logged values only.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from florlog_recovery import RunTree
from florlog_wal import Path, RunLog

from florlog.errors import DivergedError, FlorlogError
from florlog.following.failed_images import Boundary
from florlog.following.trust import DIVERGED, PROVEN, where
from florlog.hindsight.request_data import loop_name
from florlog.programs.permission import Trust
from florlog.redo.boundary_visit import answers, order_of


@dataclass(frozen=True, slots=True)
class Stretch:
    """What came of one audit, from an image to the next.

    ``start`` and ``end`` are the paths of the iterations before which the two images stand, ``redone`` the innermost
    iterations that were re-executed, ``detail`` the first difference, or why the image could not be restored; "" if
    the state was equal.
    """

    start: Path
    end: Path
    redone: int
    trust: str
    detail: str

    @property
    def passed(self) -> bool:
        """Whether the whole state was equal."""
        return self.trust == PROVEN

    def __str__(self) -> str:
        outcome = f"equal after {self.redone} iterations" if self.passed else self.detail
        return f"from {where(self.start)} to {where(self.end)}: {outcome}"


def audit(log: RunLog, tree: RunTree, trust: Trust) -> Iterator[Stretch]:
    """Audit the images of a run one after the other.

    Raises `FlorlogError` for a run with fewer than two images or whose script fails, and `UntrustedRunError` where its
    script may not be executed.
    """
    images = images_of(tree)
    if len(images) < 2:
        raise FlorlogError(f"run {tree.run} has {len(images)} images, and an audit goes from one to the next")
    for before, after in pairwise(images):
        yield _audited(log, tree, before, after, trust)


def images_of(tree: RunTree) -> list[Boundary]:
    """The boundaries at which a run has images, in the order in which they were taken."""
    found = [(image.lsn, loop, index) for loop in tree.loops() for index, image in loop.images.items()]
    return [(loop, index) for _, loop, index in sorted(found, key=lambda entry: entry[0])]


def _audited(log: RunLog, tree: RunTree, before: Boundary, after: Boundary, trust: Trust) -> Stretch:
    start, end = before[0].path(before[1]), after[0].path(after[1])
    order = order_of(
        log, tree, trust,
        loop=loop_name(after[0]), index=after[1], last=before[0].images[before[1]].lsn,
    )  # fmt: skip
    try:
        for message in answers(tree, "florlog.redo.audit_worker", order, once=True):
            match message:
                case ["audited", str() as label, str() as detail, int() as redone]:
                    return Stretch(start, end, redone, label, detail)
                case ["unusable", int(), str() as text]:
                    return Stretch(start, end, 0, DIVERGED, f"the image cannot be restored: {text}")
                case ["error", str() as text]:
                    raise FlorlogError(text)
    except DivergedError as error:
        return Stretch(start, end, 0, DIVERGED, str(error))
    raise AssertionError  # `answers` raises where nothing comes
