"""Room for a run's images: a bound on the bytes of the pages that only they need.

Before an image is stored there must be room for a whole state, since how much of it is new is known only afterwards.
Where there is none, images are dropped, down to half the bound: by the rule of `florlog_wal.thinning`, which keeps them
dense near the present and sparse before.  The newest image is never dropped before a newer one is durable: a bound
below two states ends with the images that fit.

A run whose user gave no bound has one all the same, so that no training fills a disk unasked.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from florlog_wal import RunLog, Thinner

from florlog.program.units import size_text

DEFAULT_SHARE_OF_FREE_SPACE: Final = 0.1
"""Of what is free when a run starts: what its images may take if its user has not said."""


def default_budget(store: Path) -> int | None:
    """The bytes that a run's images may take by default; None where the free space cannot be read."""
    try:
        found = os.statvfs(store)
    except OSError:
        return None
    free = found.f_bavail * found.f_frsize
    return int(DEFAULT_SHARE_OF_FREE_SPACE * free) if free > 0 else None


def default_text(budget: int) -> str:
    """What the person at the terminal is told of a bound that is the default."""
    return f"images may take {size_text(budget)}, {DEFAULT_SHARE_OF_FREE_SPACE:.0%} of the free space"


class Room:
    """The room for one run's images, ``budget`` bytes; used by the thread that stores them.

    ``fresh``: the run has no images yet.  ``tell`` gets a sentence and its numbers when images were dropped.
    """

    def __init__(
        self, log: RunLog, budget: int, *, fresh: bool, tell: Callable[[str, dict[str, Any]], None]
    ) -> None:
        self.budget = budget
        self._thinner = Thinner(log)
        self._tell = tell
        self._used: int | None = 0 if fresh else None

    def make(self, state: int) -> bool:
        """Make room for an image of a state of ``state`` bytes; returns whether there is room.  May drop images."""
        if self._used is None:
            self._used = self._thinner.thin(float("inf")).bytes
        if self._used + state <= self.budget:
            return True
        left = self._thinner.thin(max(0.0, min(self.budget / 2, self.budget - state)))
        self._used = left.bytes
        fits = self._used + state <= self.budget
        data = {
            "budget": self.budget, "used": left.bytes, "images": left.images, "dropped": left.dropped, "full": not fits,
        }  # fmt: skip
        if fits:
            text = f"images thinned to {left.images}: the budget is "
        else:
            text = f"no more images: {left.images} are kept, a state has {state} bytes, and the budget is "
        self._tell(f"{text}{self.budget} bytes", data)
        return fits

    def took(self, written: int) -> None:
        """An image has written ``written`` bytes."""
        self._used = (self._used or 0) + written
