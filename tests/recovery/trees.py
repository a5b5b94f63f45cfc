"""Random run trees, and sets of their atoms, for the planner's tests."""

from __future__ import annotations

from florlog_recovery import Atoms, Image, Loop, Node, RunTree
from florlog_wal import RunBegin
from hypothesis import strategies as st

BEGIN = RunBegin("r", "r", "record", "/s.py", (), "/", {}, {}, (), 0.0, 0, 1, 0)


def new_loop(parent: Node, name: str) -> Loop:
    site = ("/s.py", "<module>", len(parent.loops) + 1)
    return Loop(parent, len(parent.loops), name, 0, site, (site,), "for", -1, {}, 0.0)


def fill(draw: st.DrawFn, node: Node, depth: int, *, last: bool) -> None:
    """Give a node loops; ``last``: it lies at the open end of a crashed run, and may be open too."""
    for number in range(draw(st.integers(1, 2)) if depth else 0):
        loop = new_loop(node, f"depth{depth}-{number}")
        node.loops.append(loop)
        loop.before = draw(COSTS)
        count = draw(st.integers(0, 4 if depth == 1 else 3))
        for index in range(count):
            loop.commits.append(0)
            loop.seconds.append(draw(COSTS))
            if depth > 1 and draw(st.booleans()):
                inner = loop.nodes[index] = Node(loop.path(index), loop, index, committed=True)
                fill(draw, inner, depth - 1, last=False)
                inner.after = draw(COSTS)
        for index in range(count + 1):
            if draw(st.integers(0, 2)) == 0:
                loop.images[index] = Image(1, b"", draw(st.integers(0, 6)), 0.0)
        loop.ended = True
    node.after = draw(COSTS)
    if last and node.loops:
        loop = node.loops[-1]
        loop.ended = False
        if depth > 1 and draw(st.booleans()):
            inner = loop.nodes[loop.count] = Node(loop.path(loop.count), loop, loop.count)
            fill(draw, inner, depth - 1, last=True)


COSTS = st.integers(0, 9).map(float)
SHARES = st.sampled_from([0.0, 0.25, 0.5, 1.0])  # exact in binary, as costs are: sums have no rounding


@st.composite
def trees(draw: st.DrawFn, *, crashed: bool = False) -> RunTree:
    root = Node((), None, 0)
    fill(draw, root, draw(st.integers(1, 3)), last=crashed)
    return RunTree("r", BEGIN, [1], root, {1: {}}, "complete", None, [], 0, 0)


@st.composite
def atom_sets(draw: st.DrawFn, tree: RunTree) -> Atoms:
    """Some atoms of a tree, at least one, with shares."""
    all_atoms: list[tuple[Node | Loop, int]] = []

    def collect(node: Node) -> None:
        all_atoms.extend((node, segment) for segment in range(len(node.loops) + 1))
        for loop in node.loops:
            for index in range(loop.count):
                if index in loop.nodes:
                    collect(loop.nodes[index])
                else:
                    all_atoms.append((loop, index))

    collect(tree.root)
    chosen = draw(st.lists(st.sampled_from(all_atoms), min_size=1, max_size=6, unique=True))
    atoms = Atoms()
    for place, number in chosen:
        share = draw(SHARES)
        if isinstance(place, Node):
            atoms.add_segment(place, number, share)
        else:
            atoms.add_leaves(place, [number], share)
    return atoms
