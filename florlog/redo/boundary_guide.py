"""A guide that leads a run to boundaries, where the state is looked at, and not to what statements log.

A boundary is asked for as the atom after it with a share of nothing (`boundary_atoms`); here that atom is not
begun.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from florlog_recovery import Atoms, Loop, Plan, RunTree
from florlog_wal import RunLog

from florlog.following.guide import Guide, Restore
from florlog.following.shortcuts import SkipLoop
from florlog.following.stack import OpenLoop
from florlog.state.boundary_trees import States


class BoundaryGuide(Guide):
    """Leads a run to the boundaries of ``request`` and calls ``arrived`` at each; ``alarm`` gets every difference.

    ``steady_before`` says of a loop execution whether the code of the body around it, up to it, depends on the state
    alone.
    """

    def __init__(
        self,
        log: RunLog,
        tree: RunTree,
        plan: Plan,
        request: Atoms,
        arrived: Callable[[Loop, int, States], None],
        alarm: Callable[[str], None],
        steady_before: Callable[[Loop], bool],
    ) -> None:
        super().__init__(log, tree, plan, None)
        self._request = request
        self._arrived_at = arrived
        self.checks.alarm = alarm
        self._steady_before = steady_before

    def stands(self, loop: OpenLoop, index: int, trees: States) -> None:
        """Execution came to a boundary by itself."""
        if loop.recorded is not None and not loop.parent.abandoned and self._asked(loop.recorded, index):
            self._arrived_at(loop.recorded, index, trees)

    def next_index(self, loop: OpenLoop, restore: Restore, skip: SkipLoop) -> int | None:
        """As `Guide.next_index`, without iterations at whose start nothing but the state was asked for."""
        index = super().next_index(loop, restore, skip)
        while index is not None and self._ends_before(loop, index):
            loop.count = index + 1
            index = super().next_index(loop, restore, skip)
        return index

    def trust(self, loop: Loop, index: int, changes: Collection[str] = ()) -> tuple[str, str]:
        """How far the state at a boundary that was just reached is proven, and what is against more.

        ``changes``: what of the environment is not as it was recorded.
        """
        doubt = next(iter(changes), "")
        if index > 0 and not self.checks.sampled:
            doubt = doubt or "the last iteration has no sampled parameters to compare"
        if index == 0 and not self._steady_before(loop):
            doubt = doubt or "the code before the loop uses more than the recorded state"
        return self.checks.evidence.trust(doubt)

    def _asked(self, loop: Loop, index: int) -> bool:
        if index in loop.nodes:
            return 0 in self._request.segments.get(loop.nodes[index], ())
        mask = self._request.leaves.get(loop)
        return mask is not None and index < mask.size and bool(mask[index])

    def _ends_before(self, loop: OpenLoop, index: int) -> bool:
        """Whether the stretch in execution ends at the boundary before this iteration."""
        if loop.plan is None or loop.stretch == 0 or loop.plan.stretches[loop.stretch - 1].last != index:
            return False
        if (node := loop.plan.nodes.get(index)) is not None:
            return node.left and not node.loops
        return loop.plan.stretches[loop.stretch - 1].left and index < loop.plan.loop.count
