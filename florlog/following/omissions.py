"""What a replay did not execute, and what is not as recorded because of it.

Source analysis says what a loop or a piece of code would have left (`florlog.source.skip`).  Until an image is
restored, variables may lack it, and values that are logged from them are not compared.  A difference that is seen
before the state is known to be the recorded one again may come from what was left out: then it should not have been,
and the rest is redone in full.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from florlog.following.recorded_statements import RecordedStatements

if TYPE_CHECKING:  # source analysis is for replays; importing florlog does not wait for it
    from florlog.source.skip.skipping import Skipped


class Omissions:
    """The loops and pieces of code that one run did not execute."""

    def __init__(self, statements: RecordedStatements) -> None:
        self.passed: list[int] = []  # the number of each piece of code that was passed over
        self.undrawn = False  # code was passed over, and no random numbers were compared since
        self.mistaken = ""  # a difference that may come from what was skipped
        self.stale_statements: set[tuple[str, int]] = set()  # log statements whose values are stale
        self.stale_then: set[tuple[str, int]] = set()  # the same, as they were when recorded
        self.stale_names: set[tuple[str, str]] = set()  # variables that are not as recorded
        self.unconfirmed = ""  # the last skipped since the state was last known to be the recorded one
        self._last = ""  # the last skipped since an image was restored
        self._statements = statements

    @property
    def stale(self) -> bool:
        """Whether variables may lack what a skipped loop would have made."""
        return bool(self._last)

    def skipped(self, what: str, left: Skipped) -> None:
        """A loop or a piece was not run; ``left``: what is not as recorded then, until an image is restored."""
        self.unconfirmed = self._last = what
        self.stale_statements |= left.told
        self.stale_then |= {
            then for place in left.told if (then := self._statements.then(*place)) is not None
        }
        self.stale_names |= left.stale

    def passed_over(self, number: int, what: str, left: Skipped) -> None:
        """A piece was passed over, by its number; otherwise as `skipped`."""
        self.passed.append(number)
        self.skipped(what, left)
        self.undrawn = True

    def suspect(self, text: str) -> None:
        """Something differs: what was skipped may be the reason."""
        if self.unconfirmed and not self.mistaken:
            self.mistaken = f"{text}, and {self.unconfirmed} had been skipped"

    def failed(self, text: str) -> bool:
        """The script failed; whether that may come from what was skipped."""
        if self._last and not self.mistaken:
            self.mistaken = f"{text}, and {self._last} had been skipped"
        return bool(self.mistaken)

    def confirmed(self) -> None:
        """The state is the recorded one."""
        self.unconfirmed, self.undrawn = "", False

    def restored(self) -> None:
        """An image is in place."""
        self.confirmed()
        self._last = ""
        self.stale_statements, self.stale_then, self.stale_names = set(), set(), set()
