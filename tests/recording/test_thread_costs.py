"""What loops cost when they begin and end is charged, except what is done once."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

import florlog
from florlog.recording.thread_costs import ThreadCosts


def _work(seconds: float) -> None:
    ends_at = time.thread_time() + seconds
    while time.thread_time() < ends_at:
        pass


class SlowToLookAt:
    """Ten items, and asking for their number takes 5 ms of CPU."""

    def __len__(self) -> int:
        _work(0.005)
        return 10

    def __getitem__(self, index: int) -> int:
        if index == 10:
            raise IndexError
        return index


def _recorded(folder: Path, *, leave: bool) -> float:
    items = SlowToLookAt()
    with florlog.run("costs", store=folder) as run:
        for _ in run.loop("epoch", range(11)):
            for item in run.loop("step", items):
                if leave and item == 5:
                    break
        return run._states.costs.bookkeeping


@pytest.mark.parametrize("leave", [False, True])
def test_each_beginning_of_a_loop_but_the_first_is_charged(tmp_path: Path, leave: bool) -> None:
    charged = _recorded(tmp_path, leave=leave)
    assert 0.05 <= charged < 0.09


def test_ends_of_loops_and_commits_around_them_are_charged(tmp_path: Path) -> None:
    with florlog.run("costs", store=tmp_path) as run:
        costs = run._states.costs
        committed = 0.0
        for _ in run.loop("epoch", range(3)):
            begun = costs.bookkeeping
            assert (begun > committed) == (begun > 0.0)
            for _ in run.loop("step", ()):
                pass
            committed = costs.bookkeeping
            assert committed > begun


def test_what_an_image_costs_is_not_bookkeeping() -> None:
    costs = ThreadCosts()
    since = costs.now()
    _work(0.02)
    costs.images += 0.02
    costs.around_steps(since)
    assert costs.bookkeeping < 0.01


def test_what_waits_costs_nothing() -> None:
    costs = ThreadCosts()
    since = costs.now()
    time.sleep(0.05)
    costs.around_steps(since)
    assert costs.bookkeeping < 0.01


def test_of_steps_more_is_charged_than_is_seen_between_them() -> None:
    costs = ThreadCosts()
    costs.between_steps(1e-5, 1)
    assert costs.bookkeeping == pytest.approx(2.5e-5)
    costs.between_steps(1e-3 - 1e-5, 9)
    assert costs.bookkeeping == pytest.approx(1e-3 + 10 * 3e-5)
