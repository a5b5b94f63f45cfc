"""Which loops of a recorded run may be entered blindly, as source analysis sees the program that will follow it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from florlog_recovery import Loop, RunTree, has_images
from florlog_wal import StackFrame

if TYPE_CHECKING:  # importing florlog does not wait for source analysis
    from florlog.source.carry.liveness import Names
    from florlog.source.reach.regions import ProgramAnalysis

Frames = tuple[StackFrame, ...]


def enterable_loops(
    tree: RunTree,
    program: Callable[[], ProgramAnalysis | None],
    asked: Names = frozenset(),
    present: Callable[[StackFrame], StackFrame] = lambda frame: frame,
) -> frozenset[Loop]:
    """The loops with images that may be entered blindly.

    ``program`` is asked for where there may be any; None: nothing is known of it.  ``asked``: the names in added code.
    ``present``: where a recorded frame is in the program now.
    """
    found: set[Loop] = set()
    answers: dict[tuple[StackFrame, Frames], bool] = {}
    for loop in tree.loops():
        around = loop.parent.loop
        if (
            around is None
            or loop.order > 0
            or loop.form != "for"
            or around.form != "for"
            or not has_images(loop)
        ):
            continue
        key = around.site, loop.stack
        if key not in answers:
            analysis = program()
            frames = tuple(map(present, loop.stack))
            answers[key] = analysis is not None and analysis.may_enter(present(around.site), frames, asked)
        if answers[key]:
            found.add(loop)
    return frozenset(found)
