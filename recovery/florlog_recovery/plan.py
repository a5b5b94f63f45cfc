"""The redo plan: the least work that executes the requested atoms with the right state.

Model (``specs/planner.md`` has it with the proof).  A *position* is a place between two atoms of the
timeline.  From a position one can execute the next atom at its cost, or *restore*: inside loop execution L
one can leave whatever runs and go on at a later boundary of L that has an image, at the image's restore
cost.  From outside L, a boundary of L can be reached only through L's start, because the stack frames around L
must have executed the segments before it.  A plan is a walk from the run's start that executes every requested
atom, and the best plan is the one of least total cost.

A loop may be *skipped*, at no cost, if somebody knows that nothing requested depends on it.  A loop may be *entered
blindly* if somebody knows that the code of the iteration around it, up to it, can run on any state: from anywhere
inside the loop around, one can go there at the cost of that code.  The state is then not the recorded one, so next an
image must be restored in it.

Only a share of a requested atom may be needed.  A walk that restores next, or ends, leaves the atom there
and pays the share; one that runs on pays the rest as well.

Walks only go forward.  So the best walk is made of the best ways from each requested atom to the next, and
these are found from left to right.  The cost of reaching a boundary of L with an image is the lesser of running
there and of restoring from L's start (or from the last requested atom, if that lies in L).  Time is linear
in the number of atoms, and innermost iterations are handled as arrays.

The idea of restoring the nearest checkpoint and redoing only what a statement needs is Flor's (VLDB 2020,
section 4).  Flor works on whole epochs and takes the nearest checkpoint; this works on any nesting and minimises cost.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

from florlog_recovery.atoms import Atoms
from florlog_recovery.costs import CostModel
from florlog_recovery.tree import Loop, Node, RunTree
from florlog_recovery.walk import Enterable, Walk, no_loop


@dataclass(frozen=True, slots=True)
class Stretch:
    """Iterations ``first`` to ``last`` of a loop execution, run in a row; ``restore``: after restoring at ``first``.

    ``blind``: the first one begins on another state than the recorded one, and an image is restored in its first loop.
    ``left``: the last one, an innermost iteration, is left after its last requested statement.
    """

    first: int
    last: int
    restore: bool
    blind: bool = False
    left: bool = False


@dataclass(slots=True)
class LoopPlan:
    """What to do with one loop execution."""

    loop: Loop
    stretches: list[Stretch] = field(default_factory=list)
    nodes: dict[int, NodePlan] = field(default_factory=dict)  # by index: iterations with loops of their own
    restore_end: bool = False  # restore the image at the loop's end instead of running the rest
    finished: bool = False  # execution goes on after the loop; if not, the iteration around it is left
    skipped: bool = False  # execution goes on after the loop without running it


@dataclass(slots=True)
class NodePlan:
    """What to do in one iteration that has loops, or in the run."""

    node: Node
    loops: list[LoopPlan] = field(default_factory=list)  # those that are entered, in order
    complete: bool = False  # runs to its end
    left: bool = False  # left after its last requested statement, in the segment after ``loops``

    @property
    def segments(self) -> int:
        """How many of its segments are executed, at least in part."""
        return len(self.loops) + (self.complete or self.left)


@dataclass(slots=True)
class Plan:
    """A redo plan with its predicted cost and that of a full rerun, both in seconds."""

    tree: RunTree
    root: NodePlan
    seconds: float
    rerun_seconds: float


def plan_redo(
    tree: RunTree,
    atoms: Atoms,
    costs: CostModel | None = None,
    unusable: Collection[tuple[Loop, int]] = frozenset(),
    skippable: Collection[Loop] = frozenset(),
    enterable: Enterable = no_loop,
) -> Plan:
    """The cheapest plan that executes every one of ``atoms``; without atoms nothing is executed.

    ``unusable``: boundaries whose images must not be restored, because they lack something.  ``skippable``: loop
    executions that need not be run unless something in them is requested.  ``enterable`` says of the first loop in an
    iteration, in which images are, whether it may be entered blindly.
    """
    walk = Walk(atoms, costs or CostModel(), unusable, skippable, enterable)
    if not atoms:
        return Plan(tree, NodePlan(tree.root), 0.0, _cost(tree.root))
    walk.run(tree)
    return Plan(
        tree=tree,
        root=_Build(atoms, walk.jumps, walk.skips, walk.blind).node(tree.root, early=True),
        seconds=walk.total,
        rerun_seconds=_cost(tree.root),
    )


def planned_restores(plan: NodePlan) -> Iterator[tuple[Loop, int]]:
    """The boundaries whose images are restored in an iteration that has loops, or in the run, in order."""
    for loop in plan.loops:
        restores = {stretch.first for stretch in loop.stretches if stretch.restore}
        for index in sorted(restores | loop.nodes.keys()):
            if index in restores:
                yield loop.loop, index
            if index in loop.nodes:
                yield from planned_restores(loop.nodes[index])
        if loop.restore_end:
            yield loop.loop, loop.loop.count


def _cost(node: Node) -> float:
    return node.after + sum(loop.before + sum(loop.seconds) for loop in node.loops)


class _Build:
    """Turns the restores of the best walk into a plan for each loop execution."""

    def __init__(
        self,
        atoms: Atoms,
        jumps: dict[Loop, list[int]],
        skips: Collection[Loop],
        blind: Collection[tuple[Loop, int]],
    ) -> None:
        self.atoms = atoms
        self.skips = skips
        self.blind = blind
        self.inner: dict[Loop, list[int]] = {}  # its iterations that have loops, in order
        self.jumps = {loop: sorted(indices) for loop, indices in jumps.items()}

    def node(self, node: Node, *, early: bool) -> NodePlan:
        """``early``: the iteration is left after its last requested atom."""
        plan = NodePlan(node)
        if not early:
            plan.loops = [self.loop(loop, early=False) for loop in node.loops]
            plan.complete = True
            return plan
        number, in_loop = self.atoms.last_segment(node)
        plan.loops = [self.loop(loop, early=False) for loop in node.loops[:number]]
        if in_loop:
            plan.loops.append(self.loop(node.loops[number], early=True))
        elif self.atoms.segments[node][number] < 1.0:
            plan.left = True
        elif number < len(node.loops):
            plan.loops.append(LoopPlan(node.loops[number]))
        else:
            plan.complete = True
        return plan

    def loop(self, loop: Loop, *, early: bool) -> LoopPlan:
        if loop in self.skips:
            return LoopPlan(loop, finished=True, skipped=True)
        plan = LoopPlan(loop, finished=not early)
        end = self.atoms.last_index(loop) if early else loop.count - 1
        jumps = self.jumps.get(loop, [])
        requested = self.atoms.indices(loop) if jumps else []
        first, restore = 0, False
        for position, target in enumerate(jumps):
            before = bisect_left(requested, target)
            stop = requested[before - 1] if before else -1
            if position > 0 or stop >= 0:
                self._stretch(plan, first, stop, restore, early=True)
            first, restore = target, (loop, target) not in self.blind
        if first == loop.count and restore and not early:
            plan.restore_end = True
        else:
            self._stretch(plan, first, end, restore, early=early)
        return plan

    def _stretch(self, plan: LoopPlan, first: int, last: int, restore: bool, *, early: bool) -> None:
        if last < first:
            return
        leaf = early and last not in plan.loop.nodes
        left = leaf and self.atoms.leaf_share(plan.loop, last) < 1.0
        loop = plan.loop
        plan.stretches.append(Stretch(first, last, restore, (loop, first) in self.blind, left))
        if loop not in self.inner:
            self.inner[loop] = sorted(loop.nodes)
        inner = self.inner[loop]
        for index in inner[bisect_left(inner, first) : bisect_right(inner, last)]:
            plan.nodes[index] = self.node(loop.nodes[index], early=early and index == last)
