"""The order in which a plan restores images is known before it is followed."""

from __future__ import annotations

from florlog_recovery import Loop, plan_redo, planned_restores
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.recovery.test_plan import COSTS, Walked
from tests.recovery.trees import atom_sets, trees


class Restores(Walked):
    """Follows a plan and notes where it restores."""

    def restore(self, loop: Loop, index: int) -> None:
        self.places = [*getattr(self, "places", []), (loop, index)]
        super().restore(loop, index)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_the_planned_restores_are_those_that_are_restored_in_order(data: st.DataObject) -> None:
    tree = data.draw(trees())
    atoms = data.draw(atom_sets(tree))
    skippable = {loop for loop in tree.loops() if data.draw(st.booleans())}
    enterable = {loop for loop in tree.loops() if data.draw(st.booleans())}
    plan = plan_redo(tree, atoms, COSTS, skippable=skippable, enterable=enterable.__contains__)
    restored = getattr(Restores(plan, atoms), "places", [])
    assert list(planned_restores(plan.root)) == restored
    assert len(set(restored)) == len(restored)
