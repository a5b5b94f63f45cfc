"""Which images lack something that a request needs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from florlog_recovery import Loop, RunTree
from florlog_wal import RunLog, StackFrame

from florlog.following.failed_images import Boundary, images_of_others
from florlog.hindsight.compared_files import Compared
from florlog.source.carry.exposure import Exposed, exposed_names


@dataclass(frozen=True, slots=True)
class Unusable:
    """Images that are not used, and the reason as lines for a person."""

    images: frozenset[Boundary] = frozenset()
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Usable:
    """What a program's present text leaves of a run's images, and of the ways to them."""

    unusable: Unusable
    enterable: frozenset[Loop]
    """The loops that may be entered blindly, as far as the names are concerned that images lack."""


def usable_images(log: RunLog, tree: RunTree, files: Iterable[Compared], enterable: Iterable[Loop]) -> Usable:
    """The images that can be restored for the present text of a program, and which loops may be entered blindly.

    What images of the loop around lack has not been computed either in an iteration that is entered blindly.
    """
    lacking = _lacking_variables(tree, {file.recorded: file for file in files})
    entered = frozenset(
        loop
        for loop in enterable
        if loop.parent.loop is None
        or (around := lacking.get(loop.parent.loop.site)) is None
        or not around.inside
    )
    return Usable(_unusable_images(log, tree, lacking, entered), entered)


def _unusable_images(
    log: RunLog, tree: RunTree, lacking: dict[StackFrame, Exposed], entered: frozenset[Loop]
) -> Unusable:
    if strange := images_of_others(log, tree):
        why = "was not recorded on this machine by you: its images are not restored"
        return Unusable(strange, (f"run {tree.run} {why} without --trust {tree.run}",))
    found = list(_without_variables(tree, lacking, entered))
    images = frozenset(image for part in found for image in part.images)
    return Unusable(images, tuple(reason for part in found for reason in part.reasons))


def _lacking_variables(tree: RunTree, files: dict[str, Compared]) -> dict[StackFrame, Exposed]:
    """The variables that the added code needs and that images lack, by the place of their loop."""
    loops = _executions(tree)
    found: dict[StackFrame, Exposed] = {}
    for path, qualname, line in loops:
        if (file := files.get(path)) is None or line not in (lines := file.diff.old_to_new):
            continue
        running = [
            lines[other[2]]
            for other, ran in loops.items()
            if other[0] == path and other[2] in lines and all(loop.count for loop in ran)
        ]
        found[path, qualname, line] = exposed_names(
            file.old, file.new, qualname, (line, lines[line]), running
        )
    return found


def _executions(tree: RunTree) -> dict[StackFrame, list[Loop]]:
    """The loops of a run by their place."""
    loops: dict[StackFrame, list[Loop]] = {}
    for loop in tree.loops():
        loops.setdefault(loop.site, []).append(loop)
    return loops


def _without_variables(
    tree: RunTree, lacking_at: dict[StackFrame, Exposed], entered: frozenset[Loop]
) -> Iterator[Unusable]:
    """The images that lack variables which the added code needs, one loop after the other."""
    for site, executions in _executions(tree).items():
        if (lacking := lacking_at.get(site)) is None:
            continue
        images = set()
        for loop in executions:
            for index in loop.images:
                at_end = loop.ended and index == loop.count
                # At boundary 0 the frames come fresh from the code before the loop and lack nothing, unless that
                # ran on another state.
                if lacking.end if at_end else (lacking.inside and (index > 0 or loop in entered)):
                    images.add((loop, index))
        if names := ", ".join(sorted(lacking.inside | lacking.end)):
            place = "" if lacking.inside else "at the end "
            reason = (
                f"images {place}of loop {executions[0].name!r} lack {names}, which the added code reads: "
                "they are not used"
            )
            yield Unusable(frozenset(images), (reason,))
