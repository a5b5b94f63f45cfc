"""In which order a plan restores images."""

from __future__ import annotations

from collections.abc import Iterator

from florlog_recovery import Loop, NodePlan


def planned_images(plan: NodePlan) -> Iterator[tuple[Loop, int]]:
    """The boundaries whose images are restored in an iteration that has loops, or in the run, in order."""
    for loop in plan.loops:
        restores = {stretch.first for stretch in loop.stretches if stretch.restore}
        for index in sorted(restores | loop.nodes.keys()):
            if index in restores:
                yield loop.loop, index
            if index in loop.nodes:
                yield from planned_images(loop.nodes[index])
        if loop.restore_end:
            yield loop.loop, loop.loop.count
