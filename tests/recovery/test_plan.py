"""The redo plan is the cheapest walk, executes the requested atoms, and has nothing in it that could be dropped."""

from __future__ import annotations

from florlog_recovery import (
    Atoms,
    CostModel,
    Image,
    Loop,
    LoopPlan,
    Node,
    NodePlan,
    Plan,
    RunTree,
    boundary_atoms,
    plan_redo,
    resume_atoms,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from specs.planner_model import cheapest
from tests.recovery.trees import BEGIN, atom_sets, new_loop, trees

COSTS = CostModel(fixed=1.0, bandwidth=1.0)

Atom = tuple[Node | Loop, int]


class Walked:
    """Executes a plan on the tree: what runs, what it costs, and whether the state is right at each atom."""

    def __init__(self, plan: Plan, atoms: Atoms) -> None:
        self.requested = atoms
        self.cost = 0.0
        self.restores = 0
        self.executed: list[Atom] = []
        self.skipped: set[Loop] = set()
        self.proper = True
        self.blind = False  # the atom that comes is executed on some state, and then an image is restored
        self.entered: set[Loop] = set()
        self.wrong: list[Atom] = []
        self.node(plan.root)

    def atom(self, place: Node | Loop, number: int, cost: float) -> None:
        self.cost += cost
        self.executed.append((place, number))
        if not self.proper and not (self.blind and (place, number) not in requested(self.requested)):
            self.wrong.append((place, number))

    def node(self, plan: NodePlan) -> None:
        node = plan.node
        for loop in plan.loops:
            number = loop.loop.order
            self.atom(node, number, node.loops[number].before)
            if self.blind:
                self.entered.add(loop.loop)
            self.loop(loop)
            assert not self.blind
        number = len(plan.loops)
        if plan.complete:
            assert number == len(node.loops)
            self.atom(node, number, node.after)
        if plan.left:
            whole = node.after if number == len(node.loops) else node.loops[number].before
            self.atom(node, number, whole * self.requested.segments[node][number])

    def restore(self, loop: Loop, index: int) -> None:
        self.cost += COSTS.restore(loop.images[index])
        self.restores += 1
        self.proper, self.blind = True, False

    def loop(self, plan: LoopPlan) -> None:
        loop = plan.loop
        if plan.skipped:
            assert self.proper
            self.skipped.add(loop)
            return
        at = 0
        for stretch in plan.stretches:
            if stretch.restore:
                self.restore(loop, stretch.first)
            elif stretch.blind:
                assert stretch.first in plan.nodes
                self.proper, self.blind = False, True
            else:
                assert stretch.first == at
            for index in range(stretch.first, stretch.last + 1):
                if index in plan.nodes:
                    self.node(plan.nodes[index])
                else:
                    assert index not in loop.nodes
                    left = stretch.left and index == stretch.last
                    share = self.requested.leaf_share(loop, index) if left else 1.0
                    self.atom(loop, index, share * loop.seconds[index] if index < loop.count else 0.0)
            at = stretch.last + 1
            ended = plan.nodes[stretch.last].complete if stretch.last in plan.nodes else not stretch.left
            self.proper = self.proper and ended
        if plan.restore_end:
            self.restore(loop, loop.count)
        elif plan.finished:
            assert at == loop.count


def requested(atoms: Atoms) -> set[Atom]:
    found: set[Atom] = {(node, s) for node, segments in atoms.segments.items() for s in segments}
    for loop, mask in atoms.leaves.items():
        found |= {(loop, index) for index in range(len(mask)) if mask[index]}
    return found


@settings(max_examples=600, deadline=None)
@given(st.data())
def test_no_walk_is_cheaper_than_the_plan(data: st.DataObject) -> None:
    tree = data.draw(trees())
    atoms = data.draw(atom_sets(tree))
    skippable = {loop for loop in tree.loops() if data.draw(st.booleans())}
    enterable = {loop for loop in tree.loops() if data.draw(st.booleans())}
    plan = plan_redo(tree, atoms, COSTS, skippable=skippable, enterable=enterable.__contains__)
    walked = Walked(plan, atoms)
    assert requested(atoms) <= set(walked.executed)
    assert not walked.wrong
    assert walked.skipped <= skippable
    assert walked.entered <= enterable
    assert walked.cost == plan.seconds
    assert plan.seconds == cheapest(tree, atoms, COSTS, skippable, enterable)


@settings(max_examples=300, deadline=None)
@given(st.data(), st.booleans())
def test_a_boundary_is_reached_by_the_cheapest_walk_and_nothing_after_it_is_executed(
    data: st.DataObject, crashed: bool
) -> None:
    tree = data.draw(trees(crashed=crashed))
    loop, index = data.draw(
        st.sampled_from([(loop, index) for loop in tree.loops() for index in range(loop.count + 1)])
    )
    atoms = boundary_atoms([(loop, index)])
    enterable = {loop for loop in tree.loops() if data.draw(st.booleans())}
    plan = plan_redo(tree, atoms, COSTS, enterable=enterable.__contains__)
    walked = Walked(plan, atoms)
    assert walked.executed[-1] == ((loop.nodes[index], 0) if index in loop.nodes else (loop, index))
    assert not walked.wrong
    assert walked.cost == plan.seconds == cheapest(tree, atoms, COSTS, enterable=enterable)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_a_resume_continues_at_the_first_atom_the_log_lacks(data: st.DataObject) -> None:
    tree = data.draw(trees(crashed=True))
    atoms, node, place = resume_atoms(tree)
    enterable = {loop for loop in tree.loops() if data.draw(st.booleans())}
    plan = plan_redo(tree, atoms, COSTS, enterable=enterable.__contains__)
    walked = Walked(plan, atoms)
    assert walked.executed[-1] == ((place, place.count) if isinstance(place, Loop) else (node, place))
    assert not walked.wrong
    assert walked.cost == plan.seconds == cheapest(tree, atoms, COSTS, enterable=enterable)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_no_iteration_of_the_plan_can_be_dropped(data: st.DataObject) -> None:
    """Every executed atom is requested, leads to one, or is cheaper than any restore that would spare it."""
    tree = data.draw(trees())
    atoms = data.draw(atom_sets(tree))
    enterable = {loop for loop in tree.loops() if data.draw(st.booleans())}.__contains__
    plan = plan_redo(tree, atoms, COSTS, enterable=enterable)
    spared = [atom for atom in Walked(plan, atoms).executed if atom not in requested(atoms)]
    for place, number in spared:
        if isinstance(place, Loop) and place.seconds[number] > 0:
            seconds = place.seconds[number]
            place.seconds[number] = 1e6
            assert plan_redo(tree, atoms, COSTS, enterable=enterable).seconds > plan.seconds
            place.seconds[number] = seconds


def one_loop(count: int) -> tuple[RunTree, Loop]:
    root = Node((), None, 0)
    loop = new_loop(root, "step")
    root.loops.append(loop)
    loop.seconds.extend([0.001] * count)
    loop.commits.extend(range(count))
    loop.ended = True
    for index in range(0, count, 1000):
        loop.images[index] = Image(1, b"", 0, 0.0)
    return RunTree("r", BEGIN, [1], root, {1: {}}, "complete", None, [], 0, 0), loop


def test_a_point_query_restores_the_nearest_image_and_redoes_from_there() -> None:
    tree, loop = one_loop(10_000)
    atoms = Atoms()
    atoms.add_leaves(loop, [5_432])
    plan = plan_redo(tree, atoms, CostModel(fixed=0.002))
    (stretch,) = plan.root.loops[0].stretches
    assert (stretch.first, stretch.last, stretch.restore) == (5_000, 5_432, True)
    assert not plan.root.loops[0].finished


def epochs(count: int, steps: int) -> tuple[RunTree, Loop]:
    """A run of epochs, each with a loop over its steps and an image at that loop's end."""
    root = Node((), None, 0)
    loop = new_loop(root, "epoch")
    root.loops.append(loop)
    for epoch in range(count):
        node = Node((("epoch", epoch),), loop, epoch)
        inner = new_loop(node, "step")
        inner.seconds.extend([0.01] * steps)
        inner.commits.extend(range(steps))
        inner.ended, inner.images[steps] = True, Image(1, b"", 0, 0.0)
        node.loops.append(inner)
        loop.nodes[epoch] = node
        loop.seconds.append(0.01 * steps)
        loop.commits.append(0)
    loop.ended = True
    return RunTree("r", BEGIN, [1], root, {1: {}}, "complete", None, [], 0, 0), loop


def test_a_point_query_restores_one_image_where_the_loop_inside_may_be_entered_blindly() -> None:
    tree, loop = epochs(300, 100)
    atoms = Atoms()
    atoms.add_leaves(loop.nodes[250].loops[0], [50])
    walked = Walked(plan_redo(tree, atoms, CostModel(fixed=0.002), enterable=lambda loop: True), atoms)
    assert walked.restores == 1
    assert len(walked.executed) == 2 + 51 + 2  # the set-up, and the epochs 249 and 250 around their steps
    walked = Walked(plan_redo(tree, atoms, CostModel(fixed=0.002)), atoms)
    assert walked.restores == 250


def test_scattered_atoms_share_stretches_where_that_is_cheaper_than_restoring() -> None:
    tree, loop = one_loop(10_000)
    atoms = Atoms()
    atoms.add_leaves(loop, [2_500, 2_999, 3_001, 7_001])
    plan = plan_redo(tree, atoms, CostModel(fixed=0.002))
    found = [(s.first, s.last, s.restore) for s in plan.root.loops[0].stretches]
    assert found == [(2_000, 3_001, True), (7_000, 7_001, True)]
