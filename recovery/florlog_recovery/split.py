"""Splitting a request among workers, so that the last one is done as early as possible.

Each worker is a process of its own: it begins at the run's start, restores the images that it likes and redoes
its part.  This is hindsight parallelism (Flor, VLDB 2020, section 5.3), whose G parts are equal numbers of
epochs; here the parts are consecutive requested atoms of any nesting, cut so that the *makespan*, the largest
predicted cost of a part, is least.

Let f(i, j) be the least cost of a plan for the requested atoms i to j - 1 (`plan_redo`).  A plan for more atoms
answers fewer, so f grows with j and falls with i; hence a makespan T can be met if and only if the greedy
split, whose every part is as long as T allows, needs no more parts than there are workers, and the least T is
found by bisection.  A plan is made of its gaps (``specs/planner.md``), so
f(i, j) = f(i, m) - f(0, m) + f(0, j): plans from the first atom and to the last one are enough.

Consecutive parts are the best of the parts that share work: neighbours are reached by running on.  Where every
atom is restored by itself, arbitrary parts may be more even; finding those is NP-hard (two workers: PARTITION).
"""

from __future__ import annotations

from collections.abc import Collection
from functools import cache
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from .atoms import Atoms
from .plan import CostModel, plan_redo
from .tree import Loop, Node, RunTree

CUTS = 256
"""Places where a request of more atoms is cut at most: a part is even to 1/256 of the atoms."""


class AtomSequence:
    """The requested atoms in the order in which they are executed."""

    def __init__(self, tree: RunTree, request: Atoms) -> None:
        self._request = request
        # Innermost iterations of a loop execution in a row, or one segment of another iteration.
        self._runs: list[tuple[Node | Loop, npt.NDArray[np.int64]]] = []
        self._node(tree.root)
        self._ends = np.cumsum([0, *(numbers.size for _, numbers in self._runs)])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def before(self, loop: Loop, index: int) -> int:
        """How many of the atoms lie before a boundary."""
        place = (*_place(loop.parent), (loop.order, index))
        count = 0
        for held, numbers in self._runs:
            if isinstance(held, Node):
                count += (*_place(held), (int(numbers[0]), -1)) < place
            else:
                around = _place(held.parent)
                count += sum((*around, (held.order, int(number))) < place for number in numbers)
        return count

    def part(self, first: int, stop: int) -> Atoms:
        """A request for the atoms ``first`` to ``stop`` - 1."""
        request = Atoms()
        for place, run in enumerate(self._runs):
            start, end = int(self._ends[place]), int(self._ends[place + 1])
            if end <= first or start >= stop:
                continue
            held, asked = run
            if isinstance(held, Node):
                segment = int(asked[0])
                request.add_segment(held, segment, self._request.segments[held][segment])
                continue
            asked = asked[max(0, first - start) : stop - start]
            shares = self._request.leaf_shares(held, asked)
            for share in np.unique(shares):
                request.add_leaves(held, asked[shares == share].tolist(), float(share))
        return request

    def _node(self, node: Node) -> None:
        wanted = self._request.segments.get(node, {})
        for segment in range(len(node.loops) + 1):
            if segment in wanted:
                self._runs.append((node, np.array([segment])))
            if segment < len(node.loops):
                self._loop(node.loops[segment])

    def _loop(self, loop: Loop) -> None:
        mask = self._request.leaves.get(loop)
        wanted = np.zeros(0, dtype=np.int64) if mask is None else np.flatnonzero(mask)
        first = 0
        for index in [*sorted(loop.nodes), loop.count + 1]:
            run = wanted[(wanted >= first) & (wanted < index)]
            if run.size:
                self._runs.append((loop, run))
            if index in loop.nodes:
                self._node(loop.nodes[index])
            first = index + 1


def _place(node: Node) -> tuple[tuple[int, int], ...]:
    """Where an iteration lies on the timeline: places compare as their beginnings do."""
    return () if node.loop is None else (*_place(node.loop.parent), (node.loop.order, node.index))


def split(
    tree: RunTree,
    request: Atoms,
    parts: int,
    costs: CostModel | None = None,
    unusable: Collection[tuple[Loop, int]] = frozenset(),
    skippable: Collection[Loop] = frozenset(),
) -> list[tuple[int, int]]:
    """Cut the request's atoms into at most ``parts`` ranges ``(first, stop)`` with the least makespan."""
    atoms = AtomSequence(tree, request)
    count = len(atoms)
    cuts = np.unique(np.linspace(0, count, min(count, CUTS) + 1).astype(np.int64))

    def seconds(first: int, stop: int) -> float:
        return plan_redo(tree, atoms.part(first, stop), costs, unusable, skippable).seconds

    whole = seconds(0, count)

    @cache
    def upto(cut: int) -> float:
        return seconds(0, int(cuts[cut]))

    @cache
    def onwards(cut: int) -> float:
        return whole if cut == 0 else seconds(int(cuts[cut]), count)

    def cost(first: int, stop: int) -> float:
        return onwards(first) - whole + (whole if stop == len(cuts) - 1 else upto(stop))

    def furthest(first: int, makespan: float) -> int:
        """The longest part from a cut on that costs no more."""
        low, high = first, len(cuts) - 1
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if cost(first, middle) <= makespan else (low, middle - 1)
        return low

    def greedy(makespan: float) -> list[int] | None:
        ends = [0]
        while ends[-1] < len(cuts) - 1:
            if len(ends) > parts or (end := furthest(ends[-1], makespan)) == ends[-1]:
                return None
            ends.append(end)
        return ends if len(ends) <= parts + 1 else None

    low, high, best = 0.0, whole * (1 + 1e-12), [0, len(cuts) - 1]
    while high - low > 1e-9 * whole:
        middle = (low + high) / 2
        found = greedy(middle)
        if found is None:
            low = middle
        else:
            best = found
            high = max(cost(a, b) for a, b in pairwise(found))
            if high <= low:
                break
    return [(int(cuts[a]), int(cuts[b])) for a, b in pairwise(best)]
