"""What recording costs the training's thread: images, and the bookkeeping of steps and loops."""

from __future__ import annotations

import time

_MAX_UNSEEN_FACTOR = 1.5
_MAX_UNSEEN_SECONDS = 3e-5
"""What the bookkeeping of a step costs beyond what is seen between two steps, its log statements and a start with
colder caches: seconds of a step, and relative to what is seen, whichever is less (docs/performance.md)."""


class ThreadCosts:
    """The sums of one run.

    Of steps the clock is read anyway.  Of images and loops it is CPU time: wall time would count what others do.
    """

    def __init__(self) -> None:
        self.images = 0.0
        """CPU seconds for images."""
        self._between_steps = 0.0  # seconds
        self._steps = 0  # innermost iterations
        self._loops = 0.0  # CPU seconds
        self._begun: set[str] = set()  # names of loops

    def now(self) -> float:
        """CPU seconds of this thread, without those for images."""
        return time.thread_time() - self.images

    def between_steps(self, seconds: float, steps: int) -> None:
        """The bookkeeping of so many innermost iterations took ``seconds``, as seen between them."""
        self._between_steps += seconds
        self._steps += steps

    def around_steps(self, since: float, *, begun: str = "") -> None:
        """What was done since `now` was that: a loop was ``begun``, by its name, or ended, or an iteration around it.

        The first beginning of a loop includes the analysis of its source.  That is done once, and not counted.
        """
        if begun and begun not in self._begun:
            self._begun.add(begun)
        else:
            self._loops += self.now() - since

    @property
    def bookkeeping(self) -> float:
        """Seconds of all bookkeeping."""
        unseen = min(_MAX_UNSEEN_FACTOR * self._between_steps, _MAX_UNSEEN_SECONDS * self._steps)
        return self._between_steps + unseen + self._loops
