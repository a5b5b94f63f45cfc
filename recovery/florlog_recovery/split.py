"""Splitting the requested atoms among workers, so that the last one is done as early as possible.

Each worker is a process of its own: it begins at the run's start, restores images as it likes, and redoes its part.
This is hindsight parallelism (Flor, VLDB 2020, section 5.3), whose G parts are equal numbers of epochs.  Here the
parts are consecutive requested atoms of any nesting, cut so that the *makespan*, the largest predicted cost of a
part, is least.

Let f(i, j) be the least cost of a plan for the requested atoms i to j - 1 (`plan_redo`).  A plan for more atoms
also executes fewer, so f grows with j and falls with i.  Hence a makespan T can be met if and only if the greedy
split, whose every part is as long as T allows, needs no more parts than there are workers; the least T is
found by bisection.  A plan is the sum of its gaps (``specs/planner.md``), so
f(i, j) = f(i, m) - f(0, m) + f(0, j), where m is the number of atoms: plans from the first atom and plans to the
last one are enough.

Among parts that share work, consecutive ones are best: neighbours are reached by running on.  If every atom is
restored by itself, arbitrary parts may be more even; finding those is NP-hard (two workers: PARTITION).
"""

from __future__ import annotations

from collections.abc import Collection
from functools import cache
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from florlog_recovery.atoms import Atoms
from florlog_recovery.costs import CostModel
from florlog_recovery.plan import plan_redo
from florlog_recovery.tree import Loop, Node, RunTree
from florlog_recovery.walk import Enterable, no_loop

MAX_CUTS = 256
"""Places at which atoms may be cut, at most: parts are even to 1/256 of the atoms."""


class AtomSequence:
    """The requested atoms in the order in which they are executed."""

    def __init__(self, tree: RunTree, atoms: Atoms) -> None:
        self._atoms = atoms
        # Innermost iterations of a loop execution in a row, or one segment of another iteration.
        self._runs: list[tuple[Node | Loop, npt.NDArray[np.int64]]] = []
        self._node(tree.root)
        self._ends = np.cumsum([0, *(numbers.size for _, numbers in self._runs)])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def before(self, loop: Loop, index: int) -> int:
        """How many of the atoms lie before boundary ``index`` of ``loop``."""
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
        """The atoms ``first`` to ``stop`` - 1, with their shares."""
        part = Atoms()
        for place, run in enumerate(self._runs):
            start, end = int(self._ends[place]), int(self._ends[place + 1])
            if end <= first or start >= stop:
                continue
            held, numbers = run
            if isinstance(held, Node):
                segment = int(numbers[0])
                part.add_segment(held, segment, self._atoms.segments[held][segment])
                continue
            numbers = numbers[max(0, first - start) : stop - start]
            shares = self._atoms.leaf_shares(held, numbers)
            for share in np.unique(shares):
                part.add_leaves(held, numbers[shares == share].tolist(), float(share))
        return part

    def _node(self, node: Node) -> None:
        wanted = self._atoms.segments.get(node, {})
        for segment in range(len(node.loops) + 1):
            if segment in wanted:
                self._runs.append((node, np.array([segment])))
            if segment < len(node.loops):
                self._loop(node.loops[segment])

    def _loop(self, loop: Loop) -> None:
        mask = self._atoms.leaves.get(loop)
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
    """Where an iteration lies on the timeline: places compare as the beginnings of iterations do."""
    return () if node.loop is None else (*_place(node.loop.parent), (node.loop.order, node.index))


def split(
    tree: RunTree,
    atoms: Atoms,
    parts: int,
    costs: CostModel | None = None,
    unusable: Collection[tuple[Loop, int]] = frozenset(),
    skippable: Collection[Loop] = frozenset(),
    enterable: Enterable = no_loop,
) -> list[tuple[int, int]]:
    """Cut the atoms into at most ``parts`` ranges ``(first, stop)`` of their sequence, with the least makespan.

    The other arguments are those of `plan_redo`.
    """
    sequence = AtomSequence(tree, atoms)
    count = len(sequence)
    cuts = np.unique(np.linspace(0, count, min(count, MAX_CUTS) + 1).astype(np.int64))

    def seconds(first: int, stop: int) -> float:
        return plan_redo(tree, sequence.part(first, stop), costs, unusable, skippable, enterable).seconds

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
        """The end of the longest part that starts at cut ``first`` and costs at most ``makespan``."""
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
