"""When to take an image: decisions from measured costs, within the user's overhead.

**What an image costs** is what is measured of it, in CPU seconds: its stall, on the training thread, and the slowdown
of training while a background thread persists it, which is a share of what that thread uses (`slowdown`).  Time for
which either waits, for the disk or for another process, is not counted.

**The budget** is Flor's joint invariant (VLDB 2020, section 4.2), summed over the loops:
``(k + 1) M < n C min(1 / (1 + c), overhead)``.  What images have cost so far, with the next one, must stay
within the overhead's share of the time computed, and within what replay can win back.  ``c`` is the
cost of restoring an image relative to taking it: as this run's restores were, else as the store's log says of earlier
ones (`florlog_recovery.costs`).  `GRACE_SECONDS` are added, so that a short run has its images before it has earned
them; no more, because a run of seconds pays them in full.  Half of them becomes available over `GRACE_PERIOD_SECONDS`:
spent at once, all would give images of the first few steps, of which none is near a later question.  As much again is
allowed for the first image, which includes what is done only once; the second is expected to cost
`SECOND_COST_SECONDS`.  Everything beyond that is charged, so after an expensive image the next waits until it has been
earned.  The first image at each place includes the analysis of that place, and one into new memory its allocation: they
are charged, and say nothing of the next.

**Boundaries are not of equal worth.**

* One image in each iteration of the outermost loop, at its *main* boundary, is the normal case: most questions are
  answered by restoring it alone.  In an epoch that is the end of its training steps, where statements about the epoch
  come; without such a loop, where no image was taken there, or where an epoch is brief (then little comes after it, and
  a start can be restored without its code before the steps), it is the start of the next iteration.  Together with
  the bookkeeping of steps and loops these images may use `MAIN_SHARE` of the overhead, and the grace.  The rest is for
  what is not counted: opening the store, the first beginning of a loop, and the thread that writes the log.
* Whatever comes after an outermost loop can be reached only through its end.  So the image there may use all of the
  overhead, also what is left for what is not counted.
* All others share what is left of `INNER_SHARE` of the overhead.  An image costs no more than what is charged by then,
  which is at least the first one's.  So whenever the next main boundary comes, the rest of
  `MAIN_SHARE` pays for its image.
* Among those, the other boundaries of the outermost loop, and the *ends* of the loops directly inside it, come as they
  come.  Boundaries deeper inside keep an interval as in CheckFreq (FAST 2021, section 4.3): at least what a persist
  takes, and the time over which an image's cost is the given share.  It grows at once when costs grow, and shrinks by
  steps when they have clearly fallen (hysteresis).

Where steps or loops are so short that their bookkeeping takes all, images still get `MIN_SHARE` of these shares:
without them, nothing could be restored.

``max_redo`` asks for an image when the last one is more seconds ago than that.  It may use as much as the outermost
loop, not more: where both cannot be had the overhead is kept, and the decision says so.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from florlog.images.slowdown import MIN_UNDISTURBED_STEPS, Slowdown, StepTimes

GRACE_SECONDS = 0.1
"""What images may cost in addition to their share of the time, once in a run."""
GRACE_AT_ONCE_SECONDS = 0.05
"""What of it is available from the beginning."""
GRACE_PERIOD_SECONDS = 4.0
"""From the first image on, the time over which the rest of the grace becomes available."""
SECOND_COST_SECONDS = 0.02
"""What the second image is expected to cost, if the first one did not cost less."""
MAIN_SHARE = 0.8
"""Of the overhead: what bookkeeping and images may cost, for an image at a main boundary."""
INNER_SHARE = 0.5
"""Of the overhead: what they may cost for an image anywhere else."""
MIN_SHARE = 0.15
"""Of these shares: what images get, however much the bookkeeping takes."""
MIN_SPACING_SECONDS = 2.0
"""Between two images at inner boundaries."""
DEFAULT_RESTORE_FACTOR = 1.38
"""Seconds of a restore for a second of taking an image: Flor's, as long as no restore has been measured."""
_NEWEST_COST_WEIGHT = 0.4  # in the average of costs


class Boundary(enum.Enum):
    """A kind of place where an image can be taken."""

    LAST = "last"  # the end of an outermost loop
    MAIN = "main"  # the one of each iteration of the outermost loop
    END = "end"  # another of the outermost loop, or at the end of a loop directly inside it
    INNER = "inner"


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
        self._first = -math.inf  # when the first image was taken
        self._last = -math.inf
        self._stall = 0.0  # expected seconds of the next image
        self._persist = 0.0
        self._restored = 0.0
        self._steps: dict[str, StepTimes] = {}
        self._slowdown = Slowdown()
        self._reported_interval = 0.0  # seconds
        self._missed = False
        self._first_allowance = 0.0  # seconds of the first image's stall that are not charged
        self._unknown_stall = 0.0  # seconds: the first one's, until a second one is known
        self._refused_until: dict[Boundary, float] = {}  # if nothing new is measured

    # -- what is measured --------------------------------------------------------------------------

    def undisturbed(self, loop: str) -> Callable[[float], None]:
        """A function that takes the seconds of an innermost iteration of ``loop`` without a persist."""
        return self._steps.setdefault(loop, StepTimes()).recent.append

    def step(self, loop: str, seconds: float, busy: float) -> None:
        """An innermost iteration took ``seconds``, during which a persist ran for ``busy`` CPU seconds."""
        if busy <= 0.0:
            self.undisturbed(loop)(seconds)
            return
        steps = self._steps.get(loop)
        if steps is not None:
            steps.settle()
            if steps.count >= MIN_UNDISTURBED_STEPS:
                self._slowdown.add(seconds, busy, steps)
                self._refused_until.clear()

    def took(self, *, now: float, stall: float, size: int = 0, once: bool = False) -> None:
        """An image of ``size`` bytes was taken.

        ``once``: its stall has what is done only once, at a place or for new memory.
        """
        if self._restore is not None:
            self._restored = self._restore(size)
        if self._last == -math.inf:  # its cost includes what is done once: source analysed, buffers made
            self._first = now
            self._first_allowance = min(stall, GRACE_SECONDS)
            self._unknown_stall = stall
        elif not once or not self._persist:
            self._stall = _expected(self._stall, stall)
            self._unknown_stall = 0.0
        self._last = now
        self._adapt()

    def persisted(self, seconds: float) -> None:
        """An image was persisted."""
        self._persist = _expected(self._persist, seconds)
        self._adapt()

    def restored(self, seconds: float) -> None:
        """An image was restored."""
        self._refused_until.clear()
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

    def limit(self, share: float = INNER_SHARE) -> float:
        """The share of computing time that bookkeeping and images may cost, given their share of the overhead."""
        cost = self._stall + self._persist
        factor = self._restored / cost if self._restored and cost else DEFAULT_RESTORE_FACTOR
        return min(share * self.overhead, 1 / (1 + factor))

    def charged(self, own: float, persisted: float, pending: int) -> float:
        """Seconds that images have cost, those that are still being persisted included."""
        return own + self.share * (persisted + pending * self._persist)

    def wants(
        self, at: Boundary, *, now: float, own: float, persisted: float, pending: int, kept: float = 0.0
    ) -> bool:
        """Whether to take an image now.

        ``own``: seconds that images have held up the training thread; ``persisted``: seconds of persisting so
        far; ``pending``: images that are still being persisted; ``kept``: seconds of the bookkeeping of steps and
        loops.
        """
        if self.overhead == math.inf:
            return True
        if now < self.due(at):
            return False
        if at is Boundary.INNER and now - self._last < min(self.interval, self.max_redo):
            self._refused_until[at] = self._last + min(self.interval, self.max_redo)
            return False
        outermost = at in (Boundary.MAIN, Boundary.LAST)
        late = not outermost and now - self._last >= self.max_redo
        spent = own + kept + self.share * persisted
        bookkeeping = kept / (now - spent) if now > spent else 0.0
        needed, grace = self.charged(own, persisted, pending) + self.cost, 0.0
        if late or outermost:
            limit = self.limit(1.0 if at is Boundary.LAST else MAIN_SHARE)
            needed += min(self._unknown_stall, SECOND_COST_SECONDS)
            if self.overhead > 0:
                needed -= self._first_allowance + GRACE_AT_ONCE_SECONDS
                grace = GRACE_SECONDS - GRACE_AT_ONCE_SECONDS
        else:
            limit = self.limit(INNER_SHARE)
            needed += self._unknown_stall
        limit = max(limit - bookkeeping, MIN_SHARE * limit)
        if limit > 0:
            until = spent + (needed - grace) / limit
            if grace and until < self._first + GRACE_PERIOD_SECONDS:  # a part of it is enough
                a_second = grace / GRACE_PERIOD_SECONDS
                until = (needed + limit * spent + a_second * self._first) / (limit + a_second)
        else:
            until = math.inf if needed > 0 else -math.inf
        fits = until <= max(now, spent)
        if late:
            self._missed = self._missed or not fits
        if not fits and self.max_redo == math.inf and not late:
            self._refused_until[at] = until
        return fits

    def due(self, at: Boundary) -> float:
        """The time until which `wants` would refuse by what is known already: before it, nothing need be measured."""
        return self._refused_until.get(at, -math.inf)

    def _adapt(self) -> None:
        self._refused_until.clear()
        limit = self.limit()
        wanted = max(MIN_SPACING_SECONDS, self._persist, self.cost / limit if limit else math.inf)
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
            limit = self.limit(MAIN_SHARE)
            text += f"; every {self.max_redo:g} s would cost more than {self.overhead:.2%}"
            self.max_redo = math.inf if limit <= 0 else max(2 * self.max_redo, self.cost / limit)
        data = {
            "interval": self.interval, "stall": self._stall, "persist": self._persist, "share": self.share,
            "limit": self.limit(), "restore": self._restored, "max_redo": self.max_redo,
        }  # fmt: skip
        return Decision(text, data)


def _expected(before: float, newest: float) -> float:
    """The cost to expect next: recent ones averaged, never less than the newest."""
    return max(newest, before + _NEWEST_COST_WEIGHT * (newest - before))
