"""The crash harness, a sample of its points; `make crash` tries them all and prints the counts."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.wal import crash, injection, legal, power, workload
from tests.wal.injection import Point

STEPS = 6
REASON = injection.why_not()
pytestmark = [
    pytest.mark.drawn_in_file(4),
    pytest.mark.crash,
    pytest.mark.skipif(REASON is not None, reason=REASON or ""),
]


@pytest.fixture
def choose() -> Iterator[random.Random]:
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    return random.Random(seed)


def judge(outcomes: list[crash.Outcome], at_least: int) -> None:
    assert [outcome for outcome in outcomes if outcome.wrong] == []
    assert sum(outcome.reached for outcome in outcomes) >= at_least


def test_what_was_promised_and_is_missing_counts_as_lost(tmp_path: Path) -> None:
    workload.record(tmp_path / "store", tmp_path / "acks", 2)
    acks = legal.read_acks((tmp_path / "acks").read_text() + f"page {bytes(16).hex()}\n1000\n")
    found = legal.check(tmp_path / "store", acks, 2, power_cut=False)
    report = crash.Report("kill")
    report.add(crash.Outcome("here", True, found))
    report.add(crash.Outcome("there", True, ["something else"]))
    assert (len(found), report.tried, report.lost, report.wrong) == (2, 2, 1, 1)


@pytest.mark.parametrize("durability", ["group", "sync"])
def test_a_kill_at_any_system_call(durability: workload.Durability, choose: random.Random) -> None:
    points = crash.kill_points(STEPS, durability)
    assert {"pwrite64", "fdatasync", "rename", "fallocate"} <= {point.call for point in points}
    writes = [point for point in points if point.call in crash.WRITES]
    some: list[Point] = choose.sample(writes, 20) + choose.sample(points, 15)
    judge([crash.kill_at(point, STEPS, durability) for point in some], 25)


def test_an_error_at_any_write_or_sync(choose: random.Random) -> None:
    faults = choose.sample(list(crash.error_points(STEPS)), 35)
    judge([crash.fail_at(*fault, STEPS) for fault in faults], 12)


def test_a_kill_inside_gc(choose: random.Random, tmp_path: Path) -> None:
    crash.make_gc_run(tmp_path / "store")
    points = [point for point in crash.gc_points(tmp_path / "store") if point.call in crash.WRITES]
    judge([crash.kill_gc_at(point, tmp_path / "store") for point in choose.sample(points, 25)], 20)


def test_a_power_cut_inside_gc(choose: random.Random, tmp_path: Path) -> None:
    crash.make_gc_run(tmp_path / "store")
    events, standing = crash.gc_trace(tmp_path)
    assert len(events) > standing + 20
    cuts = [(choose.randint(standing, len(events)), choose.randrange(10**6)) for _ in range(40)]
    judge([crash.cut_gc_at(events, cut) for cut in cuts], 40)


@pytest.mark.parametrize("durability", ["group", "sync"])
def test_a_power_cut_after_any_event(durability: workload.Durability, choose: random.Random) -> None:
    events = power.trace(STEPS, durability)
    assert {"write", "through", "sync", "move", "ack"} <= {event.kind for event in events}
    cuts = [(choose.randint(1, len(events)), choose.randrange(10**6)) for _ in range(60)]
    judge([crash.cut_at(events, cut, STEPS, durability) for cut in cuts], 60)
