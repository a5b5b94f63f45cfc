"""Labelling the values that a replay finds by what was compared around them.

The recording does not have these values, so they cannot be compared.  A value is kept as found, and waits for its label
until the whole state is compared, an image is restored, or the run ends: what differs up to there may have changed it.
What was compared comes from `florlog.following.checks`; the rules are in `florlog.following.trust`.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from florlog_wal import Path, StackFrame

from florlog.following.stack import OpenIteration, OpenLoop, has_sampled_item
from florlog.following.trust import (
    CONSISTENT,
    DIVERGED,
    PROVEN,
    RULES,
    UNVERIFIED,
    Circumstances,
    FoundValue,
    LoggedValue,
    Readings,
)
from florlog.program.process import this_process
from florlog.source.names.calls import COMPUTED_NAME

_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]{6,}")  # as `object.__repr__` writes it


class Evidence(NamedTuple):
    """What was compared up to a place of the run, and what came of it."""

    from_image: bool  # the state was an image's, or was compared with one
    compared: bool  # something was
    difference: str  # the first that counts
    local: str  # what of the state was not as recorded, and is no difference that counts
    skipped: str  # what was not executed since the state was last known to be the recorded one
    closed: int  # comparisons of what an iteration, or a state, was as a whole

    def trust(self, doubt: str) -> tuple[str, str]:
        """How far the state is proven at this place, and what is against more; ``doubt``: what else is."""
        if self.difference:
            return DIVERGED, self.difference
        if not self.from_image:
            why = "no image vouches for the state from which it was computed"
            return (CONSISTENT if self.compared else UNVERIFIED), why
        doubt = self.local or doubt
        return (CONSISTENT, doubt) if doubt else (PROVEN, "")


class FoundValues:
    """The values that one run found, in the order in which they were logged."""

    def __init__(self, readings: Readings) -> None:
        self.values: list[FoundValue] = []
        self._readings = readings
        self._waiting: list[FoundValue] = []

    @property
    def waiting(self) -> bool:
        """Whether a value has no label yet."""
        return bool(self._waiting)

    def keep(
        self,
        iteration: OpenIteration,
        site: tuple[str, int, str],
        name: str,
        value: Any,
        *,
        closed: int,
        received: bool,
        sampled: bool,
    ) -> None:
        """A statement at ``site`` (file, line, qualified name) logged a value that the recording does not have.

        ``closed``: comparisons of a whole iteration or state so far.  ``received``: every item so far was compared.
        ``sampled``: of one of them no more than a sample was.
        """
        file, line, qualname = site
        found = FoundValue(
            file, line, qualname, name, iteration.path, value, closed=closed, segment=iteration.segment
        )
        around = None if iteration.loop is None else _present(iteration.loop)
        here = self._logged(found)
        found.unsteady = next(
            (r for value in here if (r := self._readings.unsteady.get((around, value)))), ""
        )
        found.outside = self._read_from_outside(found)
        found.received = received
        found.reads_item = any(value in self._readings.items for value in here)
        found.sampled = sampled or has_sampled_item(iteration)
        self.values.append(found)
        self._waiting.append(found)

    def _read_from_outside(self, found: FoundValue) -> str:
        """What is read from outside for a value that is being logged, "" if nothing is."""
        here = self._logged(found)
        if read := next((r for value in here if (r := self._readings.outside.get(value))), ""):
            return read
        if isinstance(found.value, str) and _ADDRESS.search(found.value):
            return "contains the address of an object"
        if key := this_process.clock_key_in(found.value):
            return f"contains the clock's time, under {key!r}"
        if this_process.watch is None:  # as in an added function that recorded code calls
            return next((r for value in here if (r := self._readings.alone.get(value))), "")
        return str(this_process.watch.reason_of(found.name))

    @staticmethod
    def _logged(found: FoundValue) -> list[LoggedValue]:
        """The value in the text of its statement: under its name, or under one that the text does not say."""
        return [(found.file, found.line, name) for name in (found.name, COMPUTED_NAME)]

    def unread(self, path: Path) -> None:
        """The item of the iteration that ends now, at ``path``, could not be compared."""
        for found in reversed(self._waiting):
            if found.path != path:
                break
            found.received = False

    def lacks_fingerprint(self, closed: int) -> bool:
        """Whether a value waits for a later iteration's fingerprints, as its own was too short to have them.

        ``closed``: comparisons of a whole iteration or state so far.
        """
        for found in reversed(self._waiting):
            if found.closed != closed:
                break
            if found.unsteady or not found.received:
                return True
        return False

    def label(self, evidence: Evidence) -> None:
        """Label what waits for it."""
        for found in self._waiting:
            found.trust, found.detail = _labelled(found, evidence)
        self._waiting = []


def _labelled(found: FoundValue, evidence: Evidence) -> tuple[str, str]:
    """How far a value can be trusted, and what is against more."""
    if evidence.difference:
        return DIVERGED, evidence.difference
    if not evidence.from_image:
        return (CONSISTENT if evidence.compared else UNVERIFIED), found.outside
    here = Circumstances(evidence.local, evidence.skipped, found.closed == evidence.closed)
    doubt = next((doubt for rule in RULES.values() if (doubt := rule(found, here))), "")
    return (CONSISTENT, doubt) if doubt else (PROVEN, "")


def _present(loop: OpenLoop) -> StackFrame:
    code, line = loop.site
    return code.co_filename, code.co_qualname, line
