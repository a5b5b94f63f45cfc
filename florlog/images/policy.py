"""When to take an image: decisions from measured costs, within the user's overhead.

**What an image costs.**  Its stall, on the training thread, and the slowdown of training while a background
thread persists it, both in CPU seconds.  The second is not simply what the thread used: with a spare core it is next
to nothing, on busy cores all of it or more.  So the steps that ran during a persist are compared with those
that did not, and the *share* of its CPU time by which they took longer is charged, with a margin for the
noise.  Until enough is measured, all of it is charged.

**The budget** is Flor's joint invariant (VLDB 2020, section 4.2), summed over the loops:
``(k + 1) M < n C min(1 / (1 + c), overhead)``.  What images have cost so far, with the next one, must stay
within the overhead's share of the time computed, and within what replay can win back.  ``c`` is the
cost of restoring an image relative to taking it: as this run's restores were, else as the store's log says of earlier
ones (`florlog_recovery.costs`).  `GRACE_SECONDS` are added, so that a short run gets its first images; no more, because
a run of seconds pays them in full.  As much again is allowed for the first image, which includes what is done only
once.  Everything beyond that is charged, so after an expensive image the next waits until it has been earned.  Images
and the bookkeeping of steps together aim at `AIMED_SHARE` of the overhead; the rest is for opening the store, and for
costs that turn out higher than they were.  Where steps are so short that their bookkeeping takes more, images still get
`MIN_SHARE_OF_AIM` of that aim: without them, nothing could be restored.

**Boundaries are not of equal worth.**  The outermost loop's, and the ends of the loops directly inside it, are
where most questions are answered by restoring alone, so they may use the whole budget.  Those deeper inside
may use half of it, and keep an interval as in CheckFreq (FAST 2021, section 4.3): at least the time that a
persist takes, so that none has to wait for another, and the time over which an image's cost is the given share.  The
interval grows at once when costs grow, and shrinks by steps when they have clearly fallen (hysteresis).

``max_redo`` asks for an image when the last one is more seconds ago than that.  It may use the whole budget,
not more: where both cannot be had the overhead is kept, and the decision says so.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

GRACE_SECONDS = 0.05
"""What images may cost in addition to their share of the time, once in a run."""
AIMED_SHARE = 0.5
"""Of the overhead: what images and bookkeeping aim at."""
MIN_SHARE_OF_AIM = 0.25
"""Of that aim: what images get, however much the bookkeeping takes."""
MIN_SPACING_SECONDS = 2.0
"""Between two images at inner boundaries."""
DEFAULT_RESTORE_FACTOR = 1.38
"""Seconds of a restore for a second of taking an image: Flor's, as long as no restore has been measured."""
_NEWEST_COST_WEIGHT = 0.2  # in the average of costs
_MIN_MEASURED_STEPS = 8  # during persists, before their slowdown is believed
_FADE_PER_STEP = 0.98  # of what earlier steps count
_MAX_UNSETTLED_STEPS = 256  # what is older weighs nothing


@dataclass(slots=True)
class _StepTimes:
    """Undisturbed steps of one loop: recent mean and variance of their seconds."""

    count: int = 0
    mean: float = 0.0
    variance: float = 0.0
    recent: deque[float] = field(default_factory=lambda: deque(maxlen=_MAX_UNSETTLED_STEPS))
    """Seconds of steps that are not in the mean yet: added together, later, they cost less."""

    def settle(self) -> None:
        for seconds in self.recent:
            self.add(seconds)
        self.recent.clear()

    def add(self, seconds: float) -> None:
        self.count += 1
        weight = max(0.05, 1 / self.count)
        change = seconds - self.mean
        self.mean += weight * change
        self.variance = (1 - weight) * (self.variance + weight * change * change)


@dataclass(slots=True)
class _Slowdown:
    """How much longer steps took during persists; old evidence fades."""

    count: float = 0.0
    busy: float = 0.0  # seconds of persisting
    extra: float = 0.0  # seconds that the steps took longer
    variance: float = 0.0

    def add(self, seconds: float, busy: float, clear: _StepTimes) -> None:
        self.count = self.count * _FADE_PER_STEP + 1
        self.busy = self.busy * _FADE_PER_STEP + busy
        self.extra = self.extra * _FADE_PER_STEP + seconds - clear.mean
        self.variance = self.variance * _FADE_PER_STEP + clear.variance

    @property
    def share(self) -> float:
        """Seconds of training lost for a second of persisting."""
        if self.count < _MIN_MEASURED_STEPS or self.busy <= 0:
            return 1.0
        return min(4.0, max(0.02, (self.extra + 2 * math.sqrt(self.variance)) / self.busy))


@dataclass(slots=True)
class Decision:
    """What the policy does from now on: a sentence and the numbers, for the log."""

    text: str
    data: dict[str, Any] = field(default_factory=dict)


class Policy:
    """Decides at each boundary; all times are seconds, ``now`` since the run began."""

    def __init__(
        self, overhead: float, max_redo: float = math.inf, restore: Callable[[int], float] | None = None
    ) -> None:
        """``restore``: the seconds that a state of so many bytes took to restore earlier."""
        self.overhead = overhead
        self.max_redo = max_redo
        self._restore = restore
        self.interval = MIN_SPACING_SECONDS
        self._last = -math.inf
        self._stall = 0.0  # expected seconds of the next image
        self._persist = 0.0
        self._restored = 0.0
        self._steps: dict[str, _StepTimes] = {}
        self._slowdown = _Slowdown()
        self._reported_interval = 0.0  # seconds
        self._missed = False
        self._first_allowance = 0.0  # seconds of the first image's stall that are not charged
        self._refused_until = {
            True: -math.inf,
            False: -math.inf,
        }  # by ``preferred``, if nothing new is measured

    # -- what is measured --------------------------------------------------------------------------

    def undisturbed(self, loop: str) -> Callable[[float], None]:
        """A function that takes the seconds of an innermost iteration of ``loop`` without a persist."""
        return self._steps.setdefault(loop, _StepTimes()).recent.append

    def step(self, loop: str, seconds: float, busy: float) -> None:
        """An innermost iteration took ``seconds``, during which a persist ran for ``busy`` CPU seconds."""
        if busy <= 0.0:
            self.undisturbed(loop)(seconds)
            return
        steps = self._steps.get(loop)
        if steps is not None:
            steps.settle()
            if steps.count >= _MIN_MEASURED_STEPS:
                self._slowdown.add(seconds, busy, steps)
                self._refused_until = {True: -math.inf, False: -math.inf}

    def took(self, *, now: float, stall: float, size: int = 0) -> None:
        """An image of ``size`` bytes was taken."""
        if self._restore is not None:
            self._restored = self._restore(size)
        if self._last == -math.inf:  # its cost includes what is done once: source analysed, buffers made
            self._first_allowance = min(stall, GRACE_SECONDS)
        else:
            self._stall = _expected(self._stall, stall)
        self._last = now
        self._adapt()

    def persisted(self, seconds: float) -> None:
        """An image was persisted."""
        self._persist = _expected(self._persist, seconds)
        self._adapt()

    def restored(self, seconds: float) -> None:
        """An image was restored."""
        self._refused_until = {True: -math.inf, False: -math.inf}
        self._restored = _expected(self._restored, seconds)
        self._restore = None  # those of earlier runs no longer count

    # -- what follows from it ----------------------------------------------------------------------

    @property
    def share(self) -> float:
        """Seconds of training lost for a second of persisting."""
        return self._slowdown.share

    @property
    def cost(self) -> float:
        """Seconds that the next image will cost training."""
        return self._stall + self.share * self._persist

    @property
    def limit(self) -> float:
        """The share of computing time that images may cost."""
        cost = self._stall + self._persist
        factor = self._restored / cost if self._restored and cost else DEFAULT_RESTORE_FACTOR
        return min(AIMED_SHARE * self.overhead, 1 / (1 + factor))

    def charged(self, own: float, persisted: float, pending: int) -> float:
        """Seconds that images have cost, those that are still being persisted included."""
        return own + self.share * (persisted + pending * self._persist)

    def wants(
        self, *, now: float, own: float, persisted: float, pending: int, preferred: bool, kept: float = 0.0
    ) -> bool:
        """Whether to take an image now.

        ``own``: seconds that images have held up the training thread; ``persisted``: seconds of persisting so
        far; ``pending``: images that are still being persisted; ``kept``: seconds of the bookkeeping of steps.
        """
        if self.overhead == math.inf:
            return True
        if now < self._refused_until[preferred]:
            return False
        if not preferred and now - self._last < min(self.interval, self.max_redo):
            self._refused_until[False] = self._last + min(self.interval, self.max_redo)
            return False
        late = not preferred and now - self._last >= self.max_redo
        part = 1.0 if preferred or late else 0.5
        allowance = GRACE_SECONDS + self._first_allowance if self.overhead > 0 and part == 1.0 else 0.0
        needed = self.charged(own, persisted, pending) + self.cost - allowance
        spent = own + kept + self.share * persisted
        computed = max(0.0, now - spent)
        bookkeeping = kept / computed if computed else 0.0
        limit = part * max(self.limit - bookkeeping, MIN_SHARE_OF_AIM * self.limit)
        fits = needed <= limit * computed
        if late:
            self._missed = self._missed or not fits
        if not fits and self.max_redo == math.inf and not late:
            self._refused_until[preferred] = spent + needed / limit if limit > 0 else math.inf
        return fits

    def due(self, *, preferred: bool) -> float:
        """The time until which `wants` would refuse by what is known already: before it, nothing need be measured."""
        return self._refused_until[preferred]

    def _adapt(self) -> None:
        self._refused_until = {True: -math.inf, False: -math.inf}
        wanted = max(
            MIN_SPACING_SECONDS, self._persist, 2 * self.cost / self.limit if self.limit else math.inf
        )
        if wanted > self.interval:
            self.interval = wanted
        elif wanted < 0.7 * self.interval:
            self.interval = max(wanted, 0.8 * self.interval)

    def decision(self) -> Decision | None:
        """What to report, if it differs enough from the last report; else None."""
        changed = not self._reported_interval / 2 < self.interval < 2 * self._reported_interval
        missed, self._missed = self._missed, False
        if not changed and not missed:
            return None
        self._reported_interval = self.interval
        text = f"an image costs {1e3 * self.cost:.3g} ms: inner boundaries {self.interval:.3g} s apart"
        if missed:
            text += f"; every {self.max_redo:g} s would cost more than {self.overhead:.2%}"
            self.max_redo = math.inf if self.limit <= 0 else max(2 * self.max_redo, self.cost / self.limit)
        data = {
            "interval": self.interval, "stall": self._stall, "persist": self._persist, "share": self.share,
            "limit": self.limit, "restore": self._restored, "max_redo": self.max_redo,
        }  # fmt: skip
        return Decision(text, data)


def _expected(before: float, newest: float) -> float:
    """The cost to expect next: recent ones averaged, never less than the newest."""
    return max(newest, before + _NEWEST_COST_WEIGHT * (newest - before))
