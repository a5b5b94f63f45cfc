"""The policy, simulated: never dearer than asked for, whatever costs do; images where they are worth most."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

import florlog
from florlog.images.policy import GRACE_SECONDS, MIN_SPACING_SECONDS, Policy
from florlog.recording import session as _session


@dataclass
class Training:
    """A simulated run: ``step``, ``stall`` and ``persist`` give seconds by the fraction of the run done."""

    policy: Policy
    step: Callable[[float], float]
    stall: Callable[[float], float]
    persist: Callable[[float], float]
    slowdown: float  # true seconds lost for a second of persisting
    now: float = 0.0
    own: float = 0.0
    persisted: float = 0.0
    lost: float = 0.0
    left: list[float] = field(default_factory=list)  # persist seconds of the images on their way
    whole: list[float] = field(default_factory=list)
    taken: list[tuple[float, bool]] = field(default_factory=list)
    dearest: float = 0.0
    keeping: float = 0.0  # seconds of a step's bookkeeping
    kept: float = 0.0

    def run(self, steps: int, inner: int, noise: float = 0.05, seed: int = 1) -> None:
        draw = random.Random(seed)
        for number in range(steps):
            done = number / steps
            self.boundary(done, preferred=number % inner == 0)
            seconds = self.step(done) * draw.uniform(1 - noise, 1 + noise)
            self.compute(seconds)

    def compute(self, seconds: float) -> None:
        # A persist runs beside the step, and makes it longer by its share of the time that they overlap.
        busy = 0.0
        if self.left:
            busy = min(self.left[0], seconds * (1 + self.slowdown))
            self.left[0] -= busy
            self.persisted += busy
            if self.left[0] <= 1e-12:
                self.left.pop(0)
                self.policy.persisted(self.whole.pop(0))
        extra = self.slowdown * busy
        self.lost += extra
        self.now += seconds + extra + self.keeping
        self.kept += self.keeping
        self.policy.step("step", seconds + extra, busy)

    def boundary(self, done: float, *, preferred: bool) -> None:
        if len(self.left) >= 2:
            return
        if self.now < self.policy.due(preferred=preferred):
            return
        wants = self.policy.wants(
            now=self.now, own=self.own, persisted=self.persisted, pending=len(self.left), preferred=preferred,
            kept=self.kept,
        )  # fmt: skip
        if not wants:
            return
        stall, persist = self.stall(done), self.persist(done)
        self.dearest = max(self.dearest, stall + self.slowdown * persist)
        self.now += stall
        self.own += stall
        self.lost += stall
        self.left.append(persist)
        self.whole.append(persist)
        self.taken.append((self.now, preferred))
        self.policy.took(now=self.now, stall=stall)

    def overspent(self, overhead: float) -> float:
        """Seconds lost beyond the overhead."""
        return self.lost - overhead * (self.now - self.lost)


def constant(value: float) -> Callable[[float], float]:
    return lambda done: value


DRIFTS: dict[str, Callable[[float], float]] = {
    "constant": lambda done: 1.0,
    "rising": lambda done: 1 + 20 * done,
    "falling": lambda done: 21 - 20 * done,
    "waves": lambda done: 1 + 5 * (1 + math.sin(40 * done)),
    "jump": lambda done: 1.0 if done < 0.5 else 30.0,
    "spikes": lambda done: 40.0 if int(done * 1e5) % 997 == 0 else 1.0,
}


@pytest.mark.drawn(16)
@pytest.mark.parametrize("overhead", [0.005, 0.02, 0.1])
@pytest.mark.parametrize("slowdown", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("drift", DRIFTS)
def test_100_000_steps_of_drifting_costs_stay_within_the_overhead(
    drift: str, slowdown: float, overhead: float
) -> None:
    shape = DRIFTS[drift]
    training = Training(
        Policy(overhead),
        step=lambda done: 0.02 * shape(done * 0.77),
        stall=lambda done: 0.004 * shape(done),
        persist=lambda done: 0.05 * shape(1 - done),
        slowdown=slowdown,
    )
    training.run(100_000, inner=500)
    # The slack: the allowance, and images whose costs were not what their predecessors' were.
    assert training.overspent(overhead) <= 2 * GRACE_SECONDS + 3 * training.dearest
    assert len(training.taken) > 10


@pytest.mark.parametrize("first", [0.0, 0.2, 3.0])
def test_what_is_done_once_is_charged_so_that_the_overhead_holds_from_when_it_is_earned(first: float) -> None:
    """The first image is dear; from the moment at which it is 2 % of the run, images stay below 2 %."""
    training = Training(
        Policy(0.02),
        step=constant(0.01),
        stall=lambda done: 0.003 if training.taken else first,
        persist=constant(0.01),
        slowdown=0.7,
    )
    for _ in range(100):
        training.run(1_000, inner=100)
        if training.now * 0.02 > first + 2 * GRACE_SECONDS + 0.05:
            assert training.lost <= 0.02 * (training.now - training.lost)
    assert len(training.taken) > 10


@pytest.mark.parametrize("keeping", [0.0, 5e-6, 15e-6, 25e-6])
def test_images_and_the_bookkeeping_of_steps_stay_within_the_overhead_together(keeping: float) -> None:
    training = Training(Policy(0.02), constant(0.002), constant(0.003), constant(0.01), 0.5, keeping=keeping)
    training.run(100_000, inner=50)
    computed = training.now - training.lost - training.kept
    slack = 2 * GRACE_SECONDS + 3 * training.dearest
    assert training.lost + training.kept <= 0.02 * computed + slack
    assert training.lost <= max(0.01 * computed - training.kept, 0.0025 * computed) + slack


def test_steps_whose_bookkeeping_takes_the_whole_overhead_get_images_still() -> None:
    training = Training(Policy(0.02), constant(0.001), constant(0.003), constant(0.01), 0.5, keeping=30e-6)
    training.run(100_000, inner=50)
    assert 10 < len(training.taken) < 100
    assert training.lost <= 0.0025 * training.now + 2 * GRACE_SECONDS + 3 * training.dearest


def test_a_persist_that_costs_nothing_leads_to_more_images_than_one_that_costs_its_time() -> None:
    counts = {}
    for slowdown in (0.0, 1.0):
        training = Training(Policy(0.02), constant(0.05), constant(0.002), constant(0.4), slowdown)
        training.run(20_000, inner=100)
        counts[slowdown] = len(training.taken)
        assert training.policy.share == pytest.approx(slowdown, abs=0.15)
    assert counts[0.0] > 3 * counts[1.0]


def test_the_interval_follows_costs_both_ways_and_does_not_flutter() -> None:
    policy = Policy(0.02)
    policy.persisted(0.001)
    seen = []
    for number in range(300):
        cost = 0.2 if 100 <= number < 200 else 0.02 * (1 + 0.2 * (number % 2))
        policy.took(now=float(number), stall=cost)
        seen.append(policy.interval)
    assert seen[99] < 10
    assert seen[101] > 30
    assert seen[299] < 10
    assert len(set(seen[20:100])) == 1


def test_outer_boundaries_get_their_images_before_inner_ones() -> None:
    training = Training(Policy(0.02), constant(0.05), constant(0.01), constant(0.01), 1.0)
    training.run(20_000, inner=100)
    preferred = [kind for _, kind in training.taken]
    assert sum(preferred) >= 190  # of 200
    assert any(not kind for kind in preferred)


def test_a_short_run_gets_images_out_of_the_allowance() -> None:
    training = Training(Policy(0.02), constant(0.001), constant(0.001), constant(0.001), 1.0)
    training.run(100, inner=10)
    assert len(training.taken) == 10


def test_inner_boundaries_keep_their_distance() -> None:
    training = Training(Policy(0.5), constant(0.1), constant(0.0001), constant(0.0001), 0.0)
    training.run(2_000, inner=10**9)
    times = [when for when, _ in training.taken]
    assert min(b - a for a, b in itertools.pairwise(times)) >= MIN_SPACING_SECONDS - 0.2


def test_max_redo_bounds_the_distance_where_the_overhead_allows() -> None:
    policy = Policy(0.02, max_redo=10.0)
    training = Training(policy, constant(0.1), constant(0.07), constant(0.001), 1.0)
    training.run(20_000, inner=10**9)
    times = [when for when, _ in training.taken]
    gaps = [b - a for a, b in itertools.pairwise(times)]
    assert max(gaps[3:]) <= 10.5
    loose = Training(Policy(0.02), constant(0.1), constant(0.07), constant(0.001), 1.0)
    loose.run(20_000, inner=10**9)
    assert len(loose.taken) < len(times)


def test_an_overhead_that_does_not_allow_max_redo_is_kept_and_told() -> None:
    policy = Policy(0.01, max_redo=1.0)
    training = Training(policy, constant(0.1), constant(0.5), constant(0.1), 1.0)
    told = []
    for _ in range(20):
        training.run(1_000, inner=10**9)
        decision = policy.decision()
        told += [decision.text] if decision else []
    assert training.overspent(0.01) <= 2 * GRACE_SECONDS + 3 * training.dearest
    assert any("every 1 s would cost more than 1.00%" in text for text in told)
    assert len(told) < 6


def test_no_overhead_means_no_image_and_endless_overhead_means_all() -> None:
    none = Training(Policy(0.0), constant(0.1), constant(0.01), constant(0.01), 1.0)
    none.run(100, inner=10)
    assert len(none.taken) <= 1  # the first, whose cost nobody knows
    every = Policy(math.inf)
    assert all(every.wants(now=0, own=9, persisted=9, pending=1, preferred=False) for _ in range(3))


def test_costly_restores_leave_less_to_images() -> None:
    policy = Policy(0.9)
    policy.took(now=0.0, stall=9.0)
    policy.took(now=1.0, stall=1.0)
    assert policy.limit == pytest.approx(1 / 2.38)
    policy.restored(9.0)
    assert policy.limit == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("span", "seconds"), [("30s", 30), (2.5, 2.5), ("5min", 300), ("1h", 3600), (None, math.inf)]
)
def test_max_redo_is_a_time(span: float | str | None, seconds: float) -> None:
    assert _session._seconds(span) == seconds


@pytest.mark.parametrize("span", ["often", "-1s", 0, "1.2.3", ""])
def test_what_is_no_time_is_refused(span: float | str) -> None:
    with pytest.raises(florlog.FlorlogError, match="max_redo is a time"):
        _session._seconds(span)
