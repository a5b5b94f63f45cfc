"""The redo set of a request for whole iterations: ``florlog inspect plan``."""

from __future__ import annotations

from florlog_recovery import Atoms, LoopPlan, NodePlan, Plan, RunTree, plan_redo
from florlog_wal import Path, RunLog

from florlog.errors import FlorlogError
from florlog.following.blind_entries import enterable_loops
from florlog.following.recorded_analysis import recorded_analysis
from florlog.inspect.selection import At


def request_for(tree: RunTree, at: At | None) -> Atoms:
    """Every part of the selected iterations (default: all).  Raises `FlorlogError` if there is none."""
    request = Atoms()
    for loop in tree.loops():
        leaves = (index for index in range(loop.count) if index not in loop.nodes)
        wanted = [index for index in leaves if at is None or at(loop.path(index))]
        if wanted:
            request.add_leaves(loop, wanted)
        for node in loop.nodes.values():
            if node.committed and (at is None or at(node.path)):
                for segment in range(len(node.loops) + 1):
                    request.add_segment(node, segment)
    if not request:
        raise FlorlogError(f"run {tree.run} has no iteration {at.text if at else ''}".rstrip())
    return request


class PlanOverlay:
    """Which iterations a plan executes."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self._ranges: dict[tuple[Path, str], list[tuple[int, int]]] = {}
        self.restores: set[Path] = set()  # iterations at whose start an image is restored
        self._node(plan.root)

    def __contains__(self, path: Path) -> bool:
        if not path:
            return True
        *parent, (name, index) = path
        return any(first <= index <= last for first, last in self._ranges.get((tuple(parent), name), ()))

    def _node(self, plan: NodePlan) -> None:
        for loop in plan.loops:
            self._loop(loop)

    def _loop(self, plan: LoopPlan) -> None:
        loop = plan.loop
        ranges = self._ranges.setdefault((loop.parent.path, loop.name), [])
        for stretch in plan.stretches:
            ranges.append((stretch.first, stretch.last))
            if stretch.restore:
                self.restores.add(loop.path(stretch.first))
        if plan.restore_end:
            self.restores.add(loop.path(loop.count))
        for inner in plan.nodes.values():
            self._node(inner)


def plan_for_iterations(log: RunLog, tree: RunTree, at: At | None) -> tuple[Plan, Atoms]:
    """The cheapest plan that executes the selected iterations.  Raises `FlorlogError` if there is none."""
    request = request_for(tree, at)
    enterable = enterable_loops(tree, lambda: recorded_analysis(log, tree))
    return plan_redo(tree, request, enterable=enterable.__contains__), request
