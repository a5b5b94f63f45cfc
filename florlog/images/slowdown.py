"""How much a persist on its background thread slows training down: an estimate from the steps themselves.

With a spare core a persist costs training next to nothing, on busy cores all of its CPU time.  Steps that ran during
persists are compared with undisturbed ones of the same loop.  The estimate begins with what is known before anything
is measured, a share between nothing and all of the persist's CPU time (`_PRIOR_SHARE`, give or take as much).  Each
disturbed step moves it, the more so the longer the persist was busy and the less steps scatter by themselves.  What is
charged is the expected share and one standard deviation: all of it at first, the truth when it is known.

More than all of it is not believed: a thread displaces no more of training than it uses.  What looks like more is
scatter, or the place of those steps, such as the first of an epoch, which waits for its data.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field

MIN_UNDISTURBED_STEPS = 8
"""Undisturbed steps of a loop before others are compared with them."""
_PRIOR_SHARE = 0.5
_PRIOR_PRECISION = 1 / _PRIOR_SHARE**2
_MIN_SHARE = 0.02
_FADE_PER_STEP = 0.98  # of what earlier steps count
_MAX_UNSETTLED_STEPS = 256  # what is older weighs nothing


@dataclass(slots=True)
class StepTimes:
    """Undisturbed steps of one loop: recent mean and variance of their seconds."""

    count: int = 0
    mean: float = 0.0
    variance: float = 0.0
    recent: deque[float] = field(default_factory=lambda: deque(maxlen=_MAX_UNSETTLED_STEPS))
    """Seconds of steps that are not in the mean yet: added together, later, they cost less."""

    def settle(self) -> None:
        """Add the recent ones."""
        for seconds in self.recent:
            self._add(seconds)
        self.recent.clear()

    def _add(self, seconds: float) -> None:
        self.count += 1
        weight = max(0.05, 1 / self.count)
        change = seconds - self.mean
        self.mean += weight * change
        self.variance = (1 - weight) * (self.variance + weight * change * change)


@dataclass(slots=True)
class Slowdown:
    """How much longer steps took during persists; old evidence fades."""

    _busy: float = 0.0  # CPU seconds of persisting
    _extra: float = 0.0  # seconds that the steps took longer
    _variance: float = 0.0  # of that, as steps scatter by themselves

    def add(self, seconds: float, busy: float, clear: StepTimes) -> None:
        """A step took ``seconds`` while a persist used ``busy`` CPU seconds; ``clear`` are those without."""
        self._busy = self._busy * _FADE_PER_STEP + busy
        self._extra = self._extra * _FADE_PER_STEP + seconds - clear.mean
        self._variance = self._variance * _FADE_PER_STEP + clear.variance

    @property
    def share(self) -> float:
        """Seconds of training lost for a CPU second of persisting, as they are to be charged."""
        weight = _PRIOR_PRECISION * self._variance + self._busy**2
        if weight <= 0:
            return 1.0
        expected = (_PRIOR_PRECISION * self._variance * _PRIOR_SHARE + self._extra * self._busy) / weight
        return min(1.0, max(_MIN_SHARE, expected + math.sqrt(self._variance / weight)))
