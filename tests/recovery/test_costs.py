"""The cost model fits the measurements of sessions: a line through their restores, and the newest set-up."""

from __future__ import annotations

import pytest
from florlog_recovery import CostModel, Image, Measured, fitted
from hypothesis import example, given
from hypothesis import strategies as st


def predicted(model: CostModel, size: int) -> float:
    return model.restore(Image(1, b"", size, 0.0))


@given(
    st.floats(1e-4, 1.0),
    st.floats(1e6, 1e11),
    st.lists(st.integers(1, 10**10), min_size=2, max_size=8, unique=True),
)
def test_restores_on_a_line_give_that_line(fixed: float, bandwidth: float, sizes: list[int]) -> None:
    sessions = []
    for size in sizes:
        session = Measured()
        session.restored(size, fixed + size / bandwidth)
        sessions.append(session.data)
    model = fitted(sessions)
    worst = max(sizes)
    assert predicted(model, worst) == pytest.approx(fixed + worst / bandwidth, rel=0.05)


@given(st.lists(st.tuples(st.integers(0, 10**10), st.floats(0, 100)), max_size=8))
@example([(0, 0.0), (1, 0.0)])  # faster than the clock ticks
def test_whatever_was_measured_a_restore_costs_something(restores: list[tuple[int, float]]) -> None:
    session = Measured()
    for size, seconds in restores:
        session.restored(size, seconds)
    model = fitted([session.data])
    assert predicted(model, 0) > 0
    assert predicted(model, 10**9) >= predicted(model, 0)


def test_restores_of_one_size_are_predicted_as_measured_and_the_newest_set_up_counts() -> None:
    session, later = Measured(), Measured()
    session.setup, later.setup = 3.0, 2.0
    for _ in range(4):
        session.restored(10**8, 0.5)
    model = fitted([session.data, later.data])
    assert predicted(model, 10**8) == pytest.approx(0.5)
    assert model.setup == 2.0
    assert fitted([]) == CostModel()
