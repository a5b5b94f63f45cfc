"""The iteration tree with state and cost: ``florlog inspect tree``."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from typing import Any

from florlog_recovery import EQUAL, Loop, Node, RunTree

from florlog.inspect.selection import At
from florlog.program.units import duration_text, size_text
from florlog.reading.render import printable

_MAX_LISTED_IMAGES = 12  # boundaries named in a line


def node_state(tree: RunTree, loop: Loop, index: int) -> str:
    """What became of an iteration: "committed", "aborted", "open"."""
    if index < loop.count:
        return "committed"
    return "aborted" if loop.path(index) in tree.losers else "open"


def loop_state(tree: RunTree, loop: Loop) -> str:
    """What became of a loop execution: "ended", "left early", "open"."""
    if loop.ended:
        return "left early" if loop.left else "ended"
    return "open"


def outline(tree: RunTree, at: At | None = None) -> Iterator[tuple[int, dict[str, Any]]]:
    """Depth and facts of each loop execution, and of each iteration that has loops of its own."""
    yield from _node(tree, tree.root, 0, at)


def _node(tree: RunTree, node: Node, depth: int, at: At | None) -> Iterator[tuple[int, dict[str, Any]]]:
    for loop in node.loops:
        if at is not None and not _reaches(loop, at):
            continue
        yield (
            depth,
            {
                "path": dict(node.path),
                "loop": loop.name,
                "state": loop_state(tree, loop),
                "iterations": loop.count,
                "seconds": sum(loop.seconds),
                "median_seconds": statistics.median(loop.seconds) if loop.count else 0.0,
                "slowest_seconds": max(loop.seconds, default=0.0),
                "images": sorted(loop.images),
            },
        )
        for index, inner in sorted(loop.nodes.items()):
            if at is not None and not (at(inner.path) or any(_reaches(child, at) for child in inner.loops)):
                continue
            yield (
                depth + 1,
                {
                    "path": dict(inner.path),
                    "state": node_state(tree, loop, index),
                    "seconds": loop.seconds[index] if index < loop.count else None,
                    "image": index in loop.images,
                },
            )
            yield from _node(tree, inner, depth + 2, at)


def _reaches(loop: Loop, at: At) -> bool:
    """Whether a selected iteration may be in a loop execution."""
    for name, index in loop.parent.path:
        wanted = at.ranges.get(name)
        if wanted is not None and not wanted[0] <= index < wanted[1]:
            return False
    return True


def outline_text(tree: RunTree, at: At | None = None) -> Iterator[str]:
    """The outline as indented lines."""
    yield (
        f"run {printable(tree.run)}: {tree.status}, {tree.innermost_iterations()} innermost iterations, "
        f"LSN {tree.sessions[0]} to {tree.last_lsn}"
    )
    if tree.budget is not None:
        yield f"images may take {size_text(tree.budget)}"
    if tree.cached:
        yield "images go through the page cache, which costs more: the file system refuses O_DIRECT"
    if tree.failure is not None:
        yield printable(f"failed with {tree.failure.exception}: {tree.failure.message}"[:400])
    if tree.hooked:
        yield printable(f"for reading alone: loops of {tree.hooked} were recorded by its hooks"[:400])
    for difference in tree.forced:
        yield printable(f"resumed by force, though it differed from the recording: {difference}"[:400])
    for audit in tree.audits:
        yield printable(f"audited {audit.text}" if audit.outcome == EQUAL else f"audit: {audit.text}")[:400]
    for depth, facts in outline(tree, at):
        yield "  " * (depth + 1) + (_loop_line(facts) if "loop" in facts else _node_line(facts))


def _loop_line(facts: dict[str, Any]) -> str:
    parts = [f"{printable(facts['loop'])}: {facts['iterations']} iterations, {facts['state']}"]
    if facts["iterations"]:
        parts.append(
            f"{duration_text(facts['seconds'])} (median {duration_text(facts['median_seconds'])}, "
            f"slowest {duration_text(facts['slowest_seconds'])})"
        )
    if images := facts["images"]:
        listed = ", ".join(map(str, images[:_MAX_LISTED_IMAGES])) + (
            ", ..." if len(images) > _MAX_LISTED_IMAGES else ""
        )
        parts.append(f"images at {listed}")
    return ", ".join(parts)


def _node_line(facts: dict[str, Any]) -> str:
    name, index = list(facts["path"].items())[-1]
    cost = f", {duration_text(facts['seconds'])}" if facts["seconds"] is not None else ""
    return f"{printable(name)}={index}: {facts['state']}{cost}" + (", image" if facts["image"] else "")
