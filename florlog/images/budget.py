"""Room for a run's images: a bound on the bytes that they need in addition to what other runs need as well.

Before an image is stored there must be room for a whole state, since how much of it is new is known only afterwards.
Where there is none, images are dropped evenly over the run's time, down to half the bound, and later ones are taken
no closer together.  So the distance to the next image is bounded by a constant share of the time that has passed, as
good as can be had without knowing how long the run will be.  The newest image is never dropped before a newer one is
durable: a bound below two states ends with the images that fit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from florlog_wal import RunLog, thin


class Room:
    """The room for one run's images, ``budget`` bytes; used by the thread that stores them.

    ``fresh``: the run has no images yet.  ``tell`` gets a sentence and its numbers when images were dropped.
    """

    def __init__(
        self,
        store: RunLog,
        run: str,
        budget: int,
        *,
        fresh: bool,
        tell: Callable[[str, dict[str, Any]], None],
    ) -> None:
        self.budget = budget
        self._store = store
        self._run = run
        self._tell = tell
        self._used: int | None = 0 if fresh else None
        self._apart = 0.0

    def make(self, state: int) -> bool:
        """Make room for an image of a state of ``state`` bytes; returns whether there is room.  May drop images."""
        if self._used is None:
            self._used = thin(self._store, self._run, float("inf")).bytes
        if self._used + state <= self.budget:
            return True
        left = thin(self._store, self._run, max(0.0, min(self.budget / 2, self.budget - state)))
        self._used = left.bytes
        self._apart = max(self._apart, left.apart)
        fits = self._used + state <= self.budget
        data = {
            "budget": self.budget, "used": left.bytes, "images": left.images, "dropped": left.dropped,
            "apart": self._apart, "full": not fits,
        }  # fmt: skip
        if fits:
            text = f"images thinned to {left.images}, from now on {self._apart:.3g} s apart: the budget is "
        else:
            text = f"no more images: {left.images} are kept, a state has {state} bytes, and the budget is "
        self._tell(f"{text}{self.budget} bytes", data)
        return fits

    def took(self, written: int) -> None:
        """An image has written ``written`` bytes."""
        self._used = (self._used or 0) + written
