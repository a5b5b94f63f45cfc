"""What a plan leaves out of the iterations that it executes: loops, pieces of code, and what comes after the last
statement that is asked for.

Left-out code may be executed all the same: where its results cannot be put in place without it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING

from florlog_recovery import Loop, Node
from florlog_wal import Commit, RunLog

from florlog.following.omissions import Omissions
from florlog.following.stack import OpenIteration, OpenLoop
from florlog.following.trust import where

if TYPE_CHECKING:  # source analysis is for replays; importing florlog does not wait for it
    from florlog.source.reach.regions import Exit
    from florlog.source.skip.acts import Act
    from florlog.source.skip.pieces import Piece
    from florlog.source.skip.skipping import Skipped

SkipLoop = Callable[[OpenLoop, Commit], str]
PassOver = Callable[["Sequence[Act]"], str]
PassedPieces = Mapping[Loop | tuple[Node, int], Collection[int]]
"""The numbers of the pieces that are passed over in a loop's innermost iterations, or in a segment of another one."""


class Shortcuts:
    """The omissions that one plan allows.

    ``exits``: after which statement the innermost iterations of a loop, or a segment of another iteration, may be left;
    ``skippable``: the loops that may be skipped; ``pieces``: of the program; ``passing``: where which are passed over.
    """

    def __init__(
        self,
        exits: Mapping[Loop | tuple[Node, int], Exit] | None = None,
        skippable: Mapping[Loop, Skipped] | None = None,
        pieces: Sequence[Piece] = (),
        passing: PassedPieces | None = None,
    ) -> None:
        self._exits = exits or {}
        self._skippable = skippable or {}
        self._pieces = pieces
        self._passing = passing or {}
        self.ran: list[str] = []
        """Loops and pieces that the plan leaves out and that were run, and why."""

    def skip(self, loop: OpenLoop, skip: SkipLoop, log: RunLog, omissions: Omissions) -> bool:
        """Skip a loop that has just begun, if what it would leave behind can be put in its place."""
        recorded = loop.recorded
        assert recorded is not None
        last = log.record(recorded.commits[-1]).record
        assert isinstance(last, Commit)
        what = f"loop {loop.name!r} of {where(loop.parent.path)}"
        if why := skip(loop, last):
            self.ran.append(f"{what} was run, not skipped: {why}")
            return False
        loop.count = recorded.count
        omissions.skipped(what, self._skippable[recorded])
        return True

    def is_exit(self, iteration: OpenIteration, file: str, line: int) -> bool:
        """Whether the statement of that place is the last one planned of an iteration of the recording."""
        loop, found = iteration.loop, None
        assert loop is not None
        assert loop.recorded is not None
        assert loop.plan is not None
        if iteration.plan is not None:
            if iteration.plan.left and iteration.segment == len(iteration.plan.loops):
                found = self._exits.get((iteration.plan.node, iteration.segment))
        elif loop.stretch > 0:
            stretch = loop.plan.stretches[loop.stretch - 1]
            if stretch.left and stretch.last == iteration.index:
                found = self._exits.get(loop.recorded)
        return found is not None and (found.file, found.line) == (file, line)

    def passes(
        self, iteration: OpenIteration, number: int, pass_over: PassOver, omissions: Omissions
    ) -> bool:
        """Pass over a piece in an iteration of the recording, if the plan does and what it leaves can be put there.

        ``pass_over`` does what the piece would have left; it returns why that cannot be done, "" if it is done.
        """
        loop, node = iteration.loop, iteration.recorded
        assert loop is not None
        assert loop.recorded is not None
        if number not in self._passing.get(loop.recorded if node is None else (node, iteration.segment), ()):
            return False
        piece = self._pieces[number]
        what = f"{piece.text} (line {piece.line}) of {where(iteration.path)}"
        if why := pass_over(piece.acts):
            self.ran.append(f"{what} was run, not skipped: {why}")
            return False
        omissions.passed_over(number, what, piece.left)
        return True
