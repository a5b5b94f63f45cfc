"""When to take an image: a fixed policy within the user's overhead.

An image costs its snapshot (training stands still) and its persist (a background thread competes for
cores).  Both are charged in full against ``overhead`` x elapsed time, plus an allowance that lets the first
images of a short run through: `GRACE` seconds in all, which no one notices.

The boundaries of a run are not of equal worth.  The boundaries of the outermost loop, and the ends of the
loops directly inside it, are where most questions are answered by restoring alone, so they may use the
whole budget.  Boundaries deeper inside may use half of it, and only when the last image is `SPACING`
seconds away.
"""

from __future__ import annotations

GRACE = 0.5
SPACING = 2.0


class Policy:
    """Decides at each boundary; times are seconds since the run began."""

    def __init__(self, overhead: float) -> None:
        self.overhead = overhead
        self._last = -SPACING
        self._cost = 0.0

    def wants(self, *, now: float, spent: float, preferred: bool) -> bool:
        """Whether to take an image now; ``spent``: seconds that images have cost so far."""
        if self.overhead == float("inf"):
            return True
        budget = self.overhead * now
        if not preferred:
            return now - self._last >= SPACING and spent + self._cost <= budget / 2
        return spent + self._cost <= budget + GRACE

    def took(self, *, now: float, cost: float) -> None:
        """An image was taken; ``cost``: seconds it is expected to cost in all."""
        self._last = now
        self._cost = cost
