"""Which images lack something that a request needs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from florlog_recovery import Loop, RunTree
from florlog_wal import RunLog, StackFrame

from florlog.following.failed_images import Boundary, images_of_others, without_worker_state
from florlog.hindsight.compared_files import Compared
from florlog.source.carry.exposure import exposed_names


@dataclass(frozen=True, slots=True)
class Unusable:
    """Images that are not used, and the reason as lines for a person."""

    images: frozenset[Boundary] = frozenset()
    reasons: tuple[str, ...] = ()


def unusable_images(log: RunLog, tree: RunTree, files: Iterable[Compared]) -> Unusable:
    """The images that cannot be restored for the present text of a program."""
    if strange := images_of_others(log, tree):
        why = "was not recorded on this machine by you: its images are not restored"
        return Unusable(strange, (f"run {tree.run} {why} without --trust {tree.run}",))
    found = [*_lacking_variables(tree, {file.recorded: file for file in files}), *_lacking_workers(tree)]
    images = frozenset(image for part in found for image in part.images)
    return Unusable(images, tuple(reason for part in found for reason in part.reasons))


def _lacking_variables(tree: RunTree, files: dict[str, Compared]) -> Iterator[Unusable]:
    """The images that lack variables which the added code needs, one loop after the other."""
    loops: dict[StackFrame, list[Loop]] = {}
    for loop in tree.loops():
        loops.setdefault(loop.site, []).append(loop)
    for (path, qualname, line), executions in loops.items():
        if (file := files.get(path)) is None or line not in (lines := file.diff.old_to_new):
            continue
        running = [
            lines[other[2]]
            for other, ran in loops.items()
            if other[0] == path and other[2] in lines and all(loop.count for loop in ran)
        ]
        lacking = exposed_names(file.old, file.new, qualname, (line, lines[line]), running)
        images = set()
        for loop in executions:
            for index in loop.images:
                at_end = loop.ended and index == loop.count
                # At boundary 0 the frames come fresh from the code before the loop and lack nothing.
                if lacking.end if at_end else (lacking.inside and index > 0):
                    images.add((loop, index))
        if names := ", ".join(sorted(lacking.inside | lacking.end)):
            place = "" if lacking.inside else "at the end "
            reason = (
                f"images {place}of loop {executions[0].name!r} lack {names}, which the added code reads: "
                "they are not used"
            )
            yield Unusable(frozenset(images), (reason,))


def _lacking_workers(tree: RunTree) -> Iterator[Unusable]:
    """The images that lack the random generators of a loader's persistent workers."""
    first, images = without_worker_state(tree)
    if first is not None:
        reason = (
            f"images after the start of loop {first.name!r} lack the random generators of its loader's "
            "workers, which are persistent: they are not used"
        )
        yield Unusable(images, (reason,))
