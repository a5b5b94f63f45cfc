"""The policy, simulated: never dearer than asked for, whatever costs do; images where they are worth most."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import florlog
from florlog.images.policy import (
    GRACE_SECONDS,
    MAIN_SHARE,
    MIN_SHARE,
    MIN_SPACING_SECONDS,
    Boundary,
    Policy,
)
from florlog.recording.run_arguments import seconds_of


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
    taken: list[tuple[float, Boundary]] = field(default_factory=list)
    dearest: float = 0.0
    keeping: float = 0.0  # seconds of a step's bookkeeping
    around: float = 0.0  # seconds for an inner loop that ends, the commit around it, and one that begins
    kept: float = 0.0

    def run(
        self,
        steps: int,
        inner: int,
        noise: float = 0.05,
        seed: int = 1,
        *,
        inside: bool = True,
        ends: bool = False,
    ) -> None:
        """``inner`` steps are an iteration of the outermost loop; ``ends``: they are followed by a boundary, too."""
        draw = random.Random(seed)
        for number in range(steps):
            done = number / steps
            if number % inner == 0:
                self.now += self.around
                self.kept += self.around
                if ends and number:
                    self.boundary(done, Boundary.END)
                self.boundary(done, Boundary.MAIN)
            elif inside:
                self.boundary(done, Boundary.INNER)
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

    def boundary(self, done: float, at: Boundary) -> None:
        if len(self.left) >= (2 if at is Boundary.MAIN else 1):
            return
        if self.now < self.policy.due(at):
            return
        wants = self.policy.wants(
            at, now=self.now, own=self.own, persisted=self.persisted, pending=len(self.left), kept=self.kept
        )
        if not wants and not (at is Boundary.MAIN and not self.taken):
            return
        stall, persist = self.stall(done), self.persist(done)
        self.dearest = max(self.dearest, stall + self.slowdown * persist)
        self.now += stall
        self.own += stall
        self.lost += stall
        self.left.append(persist)
        self.whole.append(persist)
        self.taken.append((self.now, at))
        self.policy.took(now=self.now, stall=stall)

    def count(self, at: Boundary) -> int:
        return sum(kind is at for _, kind in self.taken)

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


@pytest.mark.drawn(10)
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
    assert training.lost <= max(MAIN_SHARE * 0.02 * computed - training.kept, 0.0025 * computed) + slack


@pytest.mark.parametrize("around", [0.0, 0.001, 0.003])
def test_images_and_the_bookkeeping_of_loops_stay_within_the_overhead_together(around: float) -> None:
    """Epochs of 0.2 s, of which a loop's beginning and end may take all of the overhead's share."""
    training = Training(
        Policy(0.02), constant(0.004), constant(0.003), constant(0.01), 0.5, keeping=5e-6, around=around
    )
    training.run(50_000, inner=50)
    computed = training.now - training.lost - training.kept
    slack = 2 * GRACE_SECONDS + 3 * training.dearest
    assert training.lost + training.kept <= 0.02 * computed + slack
    assert (len(training.taken) > 200) == (around < 0.002)


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
    assert seen[101] > 15
    assert seen[299] < 10
    assert len(set(seen[20:100])) == 1


def test_the_end_of_an_outermost_loop_has_its_image_whatever_was_taken_before() -> None:
    draw = random.Random(7)
    wanted = {Boundary.LAST: 0, Boundary.MAIN: 0}
    for seed in range(100):
        stall, persist = draw.uniform(0.001, 0.3), draw.uniform(0.001, 0.3)
        step = draw.uniform(0.01, 0.5)
        training = Training(
            Policy(0.02), constant(step), constant(stall), constant(persist), draw.uniform(0, 0.5)
        )
        steps, inner = draw.randrange(2000, 4000), draw.randrange(5, 50)
        training.run(steps, inner, seed=seed, inside=draw.random() < 0.5)
        while training.left:  # a loop's end waits for the images before it
            training.compute(step)
        now = {"now": training.now, "own": training.own, "persisted": training.persisted}
        for at in wanted:
            wanted[at] += training.policy.wants(at, pending=0, **now)
    assert wanted[Boundary.LAST] > 95
    assert wanted[Boundary.MAIN] < 75


@pytest.mark.parametrize("ends", [False, True])
@pytest.mark.parametrize("dear", [0.012, 0.05])
def test_outermost_boundaries_get_their_images_before_others(dear: float, ends: bool) -> None:
    """An epoch of 5 s earns 80 ms: one image of 35 or 73 ms fits, and others only beside it."""
    training = Training(Policy(0.02), constant(0.05), constant(0.023), constant(dear), 1.0)
    training.run(20_000, inner=100, ends=ends)
    assert training.count(Boundary.MAIN) == 200
    assert (training.count(Boundary.INNER) + training.count(Boundary.END) > 50) == (dear < 0.02)


def test_inner_boundaries_expect_the_stall_of_the_first_image_until_they_know_better() -> None:
    policy = Policy(0.02)
    policy.took(now=0.0, stall=1.0)
    for at, when in ((Boundary.MAIN, 52.0), (Boundary.INNER, 203.0)):
        asked = [now for now in range(300) if policy.wants(at, now=now, own=1.0, persisted=0.0, pending=0)]
        assert asked[0] == pytest.approx(when, abs=2)


def test_long_iterations_of_the_outermost_loop_have_images_inside() -> None:
    """Where the next one is an hour away, and where it never comes, others use the time until then."""
    for inner in (70_000, 10**9):
        training = Training(Policy(0.02), constant(0.05), constant(0.02), constant(0.02), 1.0)
        training.run(200_000, inner=inner)
        assert training.count(Boundary.MAIN) == len(range(0, 200_000, inner))
        assert training.count(Boundary.INNER) > 0.8 * training.now * 0.01 / 0.04


@pytest.mark.parametrize("slowdown", [0.3, 1.0])
def test_a_short_run_has_one_image_an_epoch(slowdown: float) -> None:
    """10 s, 8 epochs, 10 MB.  Stall and persist are scaled from those of 18 MB, the bookkeeping of a step is assumed.

    With the grace such a run may cost more than its overhead.
    """
    training = Training(
        Policy(0.02),
        step=constant(0.0125),
        stall=lambda done: 0.004 if training.taken else 0.1,
        persist=constant(0.008),
        slowdown=slowdown,
        keeping=90e-6,
    )
    training.run(800, inner=100, noise=0.3, ends=True)
    assert training.count(Boundary.MAIN) == 8
    assert training.lost + training.kept <= 0.02 * (training.now - training.lost) + 2 * GRACE_SECONDS


@given(
    step=st.floats(1e-3, 1.0),
    inner=st.integers(2, 300),
    stall=st.floats(1e-3, 0.3),
    persist=st.floats(1e-3, 1.0),
    slowdown=st.floats(0.0, 1.0),
    keeping=st.floats(0.0, 1e-4),
    noise=st.floats(0.0, 0.5),
    ends=st.booleans(),
    seed=st.integers(0, 99),
)
@example(
    step=0.9453125,
    inner=81,
    stall=0.0078125,
    persist=0.75,
    slowdown=1.0,
    keeping=0.0,
    noise=0.0,
    ends=False,
    seed=0,
)
@example(
    step=1.0, inner=75, stall=0.125, persist=1.0, slowdown=1.0, keeping=0.0, noise=0.0, ends=False, seed=0
)
@settings(max_examples=50, deadline=None)
def test_images_come_at_each_outermost_boundary_where_they_fit_and_never_cost_more(
    *, step: float, inner: int, stall: float, persist: float, slowdown: float, keeping: float, noise: float,
    ends: bool, seed: int,
) -> None:  # fmt: skip
    with_inner, alone = (
        Training(Policy(0.02), constant(step), constant(stall), constant(persist), slowdown, keeping=keeping)
        for _ in range(2)
    )
    with_inner.run(2000, inner=inner, noise=noise, ends=ends, seed=seed)
    alone.run(2000, inner=inner, noise=noise, seed=seed, inside=False)
    for training in (with_inner, alone):
        share = max(0.02, keeping / step + 0.02 * MIN_SHARE)
        assert training.overspent(share) + training.kept <= 2 * GRACE_SECONDS + 3 * training.dearest
    earned = 0.95 * inner * (0.02 * MAIN_SHARE * step - 1.1 * keeping)  # in an iteration
    if stall + persist <= earned and persist < 0.5 * step * inner:
        late = 2 * (stall + persist) > earned + GRACE_SECONDS  # the first one is not yet earned at the second
        assert alone.count(Boundary.MAIN) >= len(range(0, 2000, inner)) - late
        assert with_inner.count(Boundary.MAIN) >= alone.count(Boundary.MAIN) - late


def test_the_slowdown_is_believed_the_sooner_the_less_steps_scatter() -> None:
    counts = []
    for noise in (0.01, 0.9):
        training = Training(Policy(0.02), constant(0.02), constant(0.005), constant(0.015), 0.1)
        assert training.policy.share == 1.0
        while training.policy.share > 0.5 and len(training.taken) < 100:
            training.run(100, inner=50, noise=noise, seed=len(training.taken))
        counts.append(len(training.taken))
    assert counts[0] <= 3
    assert counts[0] < counts[1] < 100


def test_steps_that_are_slow_by_themselves_are_not_charged_beyond_the_cpu_of_the_persist() -> None:
    policy = Policy(0.02)
    for _ in range(20):
        policy.undisturbed("step")(0.01)
    policy.step("step", 3.0, 0.005)  # the first of an epoch, whose loader starts processes
    assert policy.share == 1.0


def test_inner_boundaries_keep_their_distance() -> None:
    training = Training(Policy(0.5), constant(0.1), constant(0.0001), constant(0.0001), 0.0)
    training.run(2_000, inner=10**9)
    times = [when for when, _ in training.taken]
    assert min(b - a for a, b in itertools.pairwise(times)) >= MIN_SPACING_SECONDS - 0.2


def test_max_redo_bounds_the_distance_where_the_overhead_allows() -> None:
    policy = Policy(0.02, max_redo=10.0)
    training = Training(policy, constant(0.1), constant(0.12), constant(0.001), 1.0)
    training.run(20_000, inner=10**9)
    times = [when for when, _ in training.taken]
    gaps = [b - a for a, b in itertools.pairwise(times)]
    assert max(gaps[3:]) <= 10.5
    loose = Training(Policy(0.02), constant(0.1), constant(0.12), constant(0.001), 1.0)
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
    assert all(every.wants(Boundary.INNER, now=0, own=9, persisted=9, pending=1) for _ in range(3))


def test_costly_restores_leave_less_to_images() -> None:
    policy = Policy(0.9)
    policy.took(now=0.0, stall=9.0)
    policy.took(now=1.0, stall=1.0)
    assert policy.limit() == pytest.approx(1 / 2.38)
    policy.restored(9.0)
    assert policy.limit() == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("span", "seconds"), [("30s", 30), (2.5, 2.5), ("5min", 300), ("1h", 3600), (None, math.inf)]
)
def test_max_redo_is_a_time(span: float | str | None, seconds: float) -> None:
    assert seconds_of(span) == seconds


@pytest.mark.parametrize("span", ["often", "-1s", 0, "1.2.3", ""])
def test_what_is_no_time_is_refused(span: float | str) -> None:
    with pytest.raises(florlog.FlorlogError, match="max_redo is a time"):
        seconds_of(span)


def test_what_the_first_image_at_a_place_costs_is_charged_and_not_expected_of_the_next() -> None:
    policies = []
    for once in (True, False):
        policy = Policy(0.02)
        policy.took(now=0.0, stall=0.01)
        policy.persisted(0.01)
        policy.took(now=10.0, stall=0.005)
        policy.took(now=20.0, stall=1.0, once=once)
        policies.append(policy)
    there, again = policies
    assert there.cost < 0.02
    assert again.cost > 0.9
    assert not there.wants(Boundary.MAIN, now=21.0, own=1.015, persisted=0.01, pending=0)
    assert there.wants(Boundary.MAIN, now=90.0, own=1.015, persisted=0.01, pending=0)
    assert not again.wants(Boundary.MAIN, now=90.0, own=1.015, persisted=0.01, pending=0)
