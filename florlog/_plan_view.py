"""A redo plan as people and programs read it: EXPLAIN."""

from __future__ import annotations

from typing import TypedDict

from florlog_recovery import Loop, LoopPlan, NodePlan, Plan, Request, Stretch
from florlog_wal import Path

from ._guide import where

Redo = TypedDict("Redo", {"from": dict[str, int], "to": dict[str, int], "part": str})
"""Iterations executed in a row; ``part``: "full", or "outer-only" for an iteration's own code."""


class Segment(TypedDict):
    """One restore and what is executed after it; an empty ``restore`` is the run's own start."""

    restore: dict[str, int]
    restore_at: str
    redo: list[Redo]


class PlanView(TypedDict):
    """The JSON shape of a plan."""

    run: str
    iterations_total: int
    iterations_redone: int
    answered_from_log: int
    answered_from_state: int
    segments: list[Segment]
    predicted_seconds: float
    full_rerun_seconds: float


class _Viewer:
    def __init__(self, plan: Plan, request: Request) -> None:
        self.request = request
        self.redone = 0
        self.from_state = 0
        self.segments: list[Segment] = [{"restore": {}, "restore_at": "start", "redo": []}]
        self._fresh = False  # no innermost iteration was executed since the last restore
        self.node(plan.root)

    def node(self, plan: NodePlan) -> None:
        wanted = self.request.segments.get(plan.node, set())
        for segment in range(len(plan.loops) + plan.complete):
            if plan.node.loop is not None and segment == 0:
                self._redo(plan.node.path, plan.node.path, "outer-only")
            if segment in wanted and self._fresh:
                self.from_state += 1
            if segment < len(plan.loops):
                self.loop(plan.loops[segment])

    def loop(self, plan: LoopPlan) -> None:
        for stretch in plan.stretches:
            if stretch.restore:
                self._restore(plan.loop, stretch.first)
            self._stretch(plan, stretch)
        if plan.restore_end:
            self._restore(plan.loop, plan.loop.count)

    def _stretch(self, plan: LoopPlan, stretch: Stretch) -> None:
        first = stretch.first
        for index in sorted(i for i in plan.nodes if first <= i <= stretch.last):
            self._leaves(plan.loop, first, index - 1)
            self.node(plan.nodes[index])
            first = index + 1
        self._leaves(plan.loop, first, stretch.last)

    def _leaves(self, loop: Loop, first: int, last: int) -> None:
        if first <= last:
            self.redone += last - first + 1
            self._fresh = False
            self._redo(loop.path(first), loop.path(last), "full")

    def _restore(self, loop: Loop, index: int) -> None:
        at_end = index == loop.count and loop.ended
        path = loop.path(index - 1 if at_end else index)
        self.segments.append({"restore": dict(path), "restore_at": "end" if at_end else "start", "redo": []})
        self._fresh = True

    def _redo(self, first: Path, last: Path, part: str) -> None:
        self.segments[-1]["redo"].append({"from": dict(first), "to": dict(last), "part": part})


def plan_view(plan: Plan, request: Request, answered_from_log: int = 0) -> PlanView:
    """The plan as its JSON shape; iterations are counted at the innermost loops."""
    viewer = _Viewer(plan, request)
    segments = viewer.segments
    return {
        "run": plan.tree.run,
        "iterations_total": plan.tree.innermost_iterations(),
        "iterations_redone": viewer.redone,
        "answered_from_log": answered_from_log,
        "answered_from_state": viewer.from_state,
        "segments": segments if segments[0]["redo"] or len(segments) == 1 else segments[1:],
        "predicted_seconds": plan.seconds,
        "full_rerun_seconds": plan.rerun_seconds,
    }


def plan_text(view: PlanView) -> str:
    """The plan as lines for a person."""
    total, redone = view["iterations_total"], view["iterations_redone"]
    lines = [
        f"plan for run {view['run']}",
        (
            f"  re-executes {redone} of {total} innermost iterations, predicted "
            f"{_seconds(view['predicted_seconds'])}; a full rerun took {_seconds(view['full_rerun_seconds'])}"
        ),
    ]
    if view["answered_from_state"]:
        lines.append(f"  answered by a restored state alone: {view['answered_from_state']}")
    if view["answered_from_log"]:
        lines.append(f"  answered from the log: {view['answered_from_log']}")
    for segment in view["segments"]:
        at = "end of " if segment["restore_at"] == "end" else "start of "
        place = where(tuple(segment["restore"].items()))
        restore = f"restore the state at the {at}{place}" if segment["restore"] else "from the run's start"
        redo = "; ".join(_redo_text(item) for item in segment["redo"])
        lines.append(f"    {restore}" + (f", run {redo}" if redo else ""))
    return "\n".join(_shortened(lines, 16))


def _redo_text(item: Redo) -> str:
    first, last = tuple(item["from"].items()), tuple(item["to"].items())
    if item["part"] == "outer-only":
        return f"{where(first)} around its loops"
    return where(first) if first == last else f"{where(first)} to {last[-1][1]}"


def _shortened(lines: list[str], limit: int) -> list[str]:
    if len(lines) <= limit:
        return lines
    head, tail = limit - 4, 2
    return [*lines[:head], f"    ... and {len(lines) - head - tail} more", *lines[-tail:]]


def _seconds(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms" if seconds < 1 else f"{seconds:.2f} s"
