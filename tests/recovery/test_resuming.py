"""Where a resume starts: before the newest image, if that is not too dear."""

from __future__ import annotations

from array import array

import pytest
from florlog_recovery import CostModel, Image, Loop, Plan, RunTree, plan_redo, plan_resume, resume_atoms
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.recovery.test_plan import Walked, one_loop
from tests.recovery.trees import trees

COSTS = CostModel(fixed=1.0, bandwidth=1.0)


def killed_run(count: int, images: list[int]) -> tuple[RunTree, Loop]:
    """A run of one loop of iterations of a second, killed after ``count`` of them."""
    tree, loop = one_loop(count)
    loop.ended = False
    loop.seconds = array("d", [1.0] * count)
    loop.images = {index: Image(index + 1, b"", 0, 0.0) for index in images}
    return tree, loop


def start_of(plan: Plan) -> int:
    """The iteration at which a run of one loop starts."""
    (loop,) = plan.root.loops
    return loop.stretches[-1].first


@pytest.mark.parametrize(
    ("count", "images", "seconds", "printed", "start"),
    [
        (10, [0, 4, 8], 100.0, range(10), 4),  # the image at 8 lies on the way
        (10, [0, 4, 8], 3.0, range(10), 8),  # that costs 4 s: two iterations are compared
        (10, [0, 4, 10], 3.0, range(10), 4),  # nothing would be re-executed from 10, whatever it costs
        (10, [0, 4, 8], 3.0, range(8), 4),  # those after 8 have no fingerprints
        (10, [0], 100.0, range(10), 0),
        (10, [0, 10], 0.0, range(10), 0),
        (0, [0], 100.0, range(0), 0),
    ],
)
def test_a_resume_starts_where_it_proves_most_for_what_it_may_cost(
    count: int, images: list[int], seconds: float, printed: range, start: int
) -> None:
    tree, loop = killed_run(count, images)
    plan, frontier = plan_resume(
        tree, COSTS, (), proof_seconds=seconds, has_fingerprint=lambda _, index: index in printed
    )
    assert start_of(plan) == start
    assert frontier == (tree.root, loop)


def test_an_image_that_is_not_restored_is_compared() -> None:
    tree, loop = killed_run(10, [0, 4, 8])
    plan, _ = plan_resume(
        tree, COSTS, [(loop, 8)], proof_seconds=100.0, has_fingerprint=lambda loop, index: True
    )
    assert start_of(plan) == 4
    plan, _ = plan_resume(
        tree, COSTS, [(loop, 4), (loop, 8)], proof_seconds=100.0, has_fingerprint=lambda loop, index: True
    )
    assert start_of(plan) == 0


def test_where_the_image_at_the_start_cannot_be_used_the_program_runs_without_one() -> None:
    tree, loop = killed_run(2, [0])
    plan, _ = plan_resume(
        tree, COSTS, [(loop, 0)], proof_seconds=0.0, has_fingerprint=lambda loop, index: True
    )
    (only,) = plan.root.loops
    assert [(stretch.first, stretch.restore) for stretch in only.stretches] == [(0, False)]


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_a_resume_re_executes_something_recorded_and_comes_to_its_frontier(data: st.DataObject) -> None:
    tree = data.draw(trees(crashed=True))
    seconds = data.draw(st.sampled_from([0.0, 3.0, 100.0]))
    atoms, node, place = resume_atoms(tree)
    plan, frontier = plan_resume(
        tree, COSTS, (), proof_seconds=seconds, has_fingerprint=lambda loop, index: True
    )
    walked = Walked(plan, atoms)
    assert frontier == (node, place)
    assert walked.executed[-1] == ((place, place.count) if isinstance(place, Loop) else (node, place))
    assert not walked.wrong
    innermost = [at for at in walked.executed[:-1] if isinstance(at[0], Loop)]
    assert innermost or tree.innermost_iterations() == 0
    if seconds == 0.0:
        assert plan.seconds >= plan_redo(tree, atoms, COSTS).seconds
