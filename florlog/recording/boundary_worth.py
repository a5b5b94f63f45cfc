"""What an image at a boundary would be worth: which kind of place the boundary is, for the policy.

An image inside an iteration is only worth much if a replay or resume can go to it without executing the iterations
before it: in a loop that comes first in its iteration and may be entered blindly (`florlog.source.skip.entering`).
Where that cannot be, the start of the next iteration is the better place.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from florlog_wal import RunLog

from florlog.following.recorded_analysis import recorded_analysis
from florlog.following.stack import OpenLoop
from florlog.images.policy import Boundary
from florlog.program.stores import tree_of
from florlog.recording.once import from_signal_handler

if TYPE_CHECKING:  # importing florlog does not wait for source analysis
    from florlog.source.reach.regions import ProgramAnalysis

BRIEF_ITERATION_SECONDS = 0.1
"""Of the outermost loop: an image at its start is as good as one after the steps in it."""
ANALYSIS_AFTER_SECONDS = 5.0
"""A run's age from which on it is worth a few hundredths of a second to analyse which loops may be entered blindly."""

_Place = tuple[str, str, int]


class BoundaryWorth:
    """Answers for the boundaries of one run, which come in their order; ``log``: what it writes."""

    def __init__(self, log: RunLog | None) -> None:
        self._log = log
        self._started = time.perf_counter()
        self._imaged = self._around = (0, -1)
        """Iterations of outermost loops, by LSN and index: that of the last image inside, and of the last inner end."""
        self._length = self._longest = 0.0
        """Seconds from the start of an outermost iteration to the last end of a loop inside: of this one, the last."""
        self._has_analysed = False
        self._analysis: ProgramAnalysis | None = None
        self._entered: dict[tuple[_Place, ...], bool] = {}
        self.analysed = 0.0  # CPU seconds that analysis has taken

    def at(self, loop: OpenLoop, index: int, *, end: bool) -> Boundary:
        """What kind of place a boundary is."""
        if loop.depth == 1:
            if end:
                return Boundary.LAST
            return Boundary.END if self._imaged == (loop.lsn, index - 1) else Boundary.MAIN
        if loop.depth > 2 or not end:
            return Boundary.INNER
        assert loop.parent.loop is not None
        around, before = (loop.parent.loop.lsn, loop.parent.index), self._length
        self._length = time.perf_counter() - loop.parent.started
        if around != self._around:
            self._around, self._longest = around, before
        # It ends before what takes most of the time, or a start of the next iteration is as near.
        early = self._length < max(self._longest / 2, BRIEF_ITERATION_SECONDS)
        if early or self._imaged == around or not self._may_enter(loop):
            return Boundary.END
        return Boundary.MAIN

    def imaged(self, loop: OpenLoop) -> None:
        """An image is taken where `at` has said that it is a main boundary."""
        if loop.depth == 2:
            self._imaged = self._around

    def _may_enter(self, loop: OpenLoop) -> bool:
        """Whether a loop in an outermost one may be entered blindly, as far as that is known yet."""
        if loop.order > 0:
            return False
        around = loop.parent.loop
        if self._log is None or around is None or not (loop.stack and around.stack):
            return True
        place = (around.stack[0], *loop.stack)
        if place not in self._entered:
            if time.perf_counter() - self._started < ANALYSIS_AFTER_SECONDS:
                return True
            began = time.thread_time()
            self._entered[place] = loop.form == around.form == "for" and self._analysed_entry(*place)
            self.analysed += time.thread_time() - began
        return self._entered[place]

    def _analysed_entry(self, around: _Place, *stack: _Place) -> bool:
        assert self._log is not None
        try:
            if not self._has_analysed:
                self._has_analysed = True
                self._analysis = recorded_analysis(self._log, tree_of(self._log))
            return self._analysis is not None and self._analysis.may_enter(around, stack, frozenset())
        except Exception as error:  # whatever analysis cannot do: the training goes on
            if from_signal_handler(error):
                raise
            return False
