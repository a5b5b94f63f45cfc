"""EXPLAIN shows the plan that is executed: its restores, its iterations, in their order."""

from __future__ import annotations

from florlog_recovery import CostModel, Loop, plan_redo
from hypothesis import given, settings
from hypothesis import strategies as st

from florlog.hindsight.plan_text import plan_text
from florlog.hindsight.plan_view import plan_view
from tests.recovery.test_plan import Walked
from tests.recovery.trees import atom_sets, trees

COSTS = CostModel(fixed=1.0, bandwidth=1.0)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_the_view_counts_what_the_plan_executes(data: st.DataObject) -> None:
    tree = data.draw(trees())
    request = data.draw(atom_sets(tree))
    plan = plan_redo(
        tree, request, COSTS, skippable={loop for loop in tree.loops() if data.draw(st.booleans())}
    )
    view = plan_view(plan, request, COSTS)
    walked = Walked(plan, request)
    iterations = [atom for atom in walked.executed if isinstance(atom[0], Loop)]
    assert view["iterations_redone"] == len(iterations)
    shown = [
        (*tuple(item["from"].items())[:-1], (loop, index))
        for segment in view["segments"]
        for item in segment["redo"]
        if item["part"] in ("full", "prefix")
        for loop, first in [list(item["from"].items())[-1]]
        for index in range(first, item["to"][loop] + 1)
    ]
    assert shown == [place.path(index) for place, index in iterations if isinstance(place, Loop)]
    assert view["predicted_seconds"] == walked.cost
    parts = [segment["predicted_seconds"] for segment in view["segments"]]
    assert sum(parts) + view["setup_seconds"] == walked.cost
    restored = [segment for segment in view["segments"] if segment["restore"]]
    assert len(restored) == walked.restores
    assert f"re-executes {len(iterations)} of" in plan_text(view)
