"""Atoms are split among workers so that the last worker is done as early as any split allows."""

from __future__ import annotations

from itertools import combinations

import pytest
from florlog_recovery import CostModel, plan_redo
from florlog_recovery.split import AtomSequence, split
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.recovery.trees import atom_sets, trees

COSTS = CostModel(fixed=0.0, bandwidth=1.0)


@settings(max_examples=200, deadline=None)
@given(st.data(), st.integers(1, 4))
def test_no_split_into_consecutive_parts_is_done_earlier(data: st.DataObject, workers: int) -> None:
    tree = data.draw(trees())
    atoms = data.draw(atom_sets(tree))
    sequence = AtomSequence(tree, atoms)

    def cost(first: int, stop: int) -> float:
        return plan_redo(tree, sequence.part(first, stop), COSTS).seconds

    found = split(tree, atoms, workers, COSTS)
    assert [first for first, _ in found] == [0, *(stop for _, stop in found[:-1])]
    assert found[-1][1] == len(sequence)
    assert len(found) <= workers
    makespan = max(cost(*part) for part in found)
    least = min(
        max(cost(a, b) for a, b in zip((0, *cuts), (*cuts, len(sequence)), strict=True))
        for parts in range(1, min(workers, len(sequence)) + 1)
        for cuts in combinations(range(1, len(sequence)), parts - 1)
    )
    assert makespan == pytest.approx(least, rel=1e-6, abs=1e-9)


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_the_parts_together_are_the_atoms(data: st.DataObject) -> None:
    tree = data.draw(trees())
    atoms = data.draw(atom_sets(tree))
    sequence = AtomSequence(tree, atoms)
    cut = data.draw(st.integers(0, len(sequence)))
    segments = []
    leaves = []
    for part in (sequence.part(0, cut), sequence.part(cut, len(sequence))):
        segments += [(node, segment) for node, held in part.segments.items() for segment in held]
        leaves += [(loop, i) for loop, mask in part.leaves.items() for i in mask.nonzero()[0].tolist()]
    assert sorted(map(repr, segments)) == sorted(
        repr((node, segment)) for node, held in atoms.segments.items() for segment in held
    )
    assert set(leaves) == {
        (loop, i) for loop, mask in atoms.leaves.items() for i in mask.nonzero()[0].tolist()
    }
    assert len(leaves) == len(set(leaves))
