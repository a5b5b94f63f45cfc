"""What a replay may do that the source does not say, as one frozen value.

It is made once for a replay and passed to everything that compiles the program's code; `instrument` reads from it
what to change in a file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:  # recording does not wait for the analysis
    from florlog.source.reach.regions import Exit
    from florlog.source.skip.pieces import Piece

Position: TypeAlias = tuple[int, int]
"""Line, from 1, and column, from 0, at which a statement begins."""


@dataclass(frozen=True)
class Edits:
    """The edits of one replay; with none of them, florlog loops are wrapped and nothing else is changed.

    Files are absolute paths, as in the code that is compiled.
    """

    exits: tuple[Exit, ...] = ()  # where an iteration can be left
    added: Mapping[str, frozenset[Position]] = field(
        default_factory=dict
    )  # statements that draw from copies, by file
    may_fail: frozenset[tuple[str, int, int]] = frozenset()  # statements that may fail: file, line, column
    pieces: tuple[Piece, ...] = ()  # code that may be passed over; its number is its index
    unasked: frozenset[tuple[str, int, int]] = frozenset()  # statements to leave out: file, line, column

    def exits_in(self, file: str) -> dict[Position, int]:
        """The statements of a file after which an iteration can be left -> the line of the exit they belong to."""
        return {
            position: found.line for found in self.exits if found.file == file for position in found.points
        }

    def may_fail_in(self, file: str) -> frozenset[Position]:
        """The statements of a file that may fail after a skipped loop."""
        return frozenset((line, column) for name, line, column in self.may_fail if name == file)

    def unasked_in(self, file: str) -> frozenset[Position]:
        """The statements of a file that are left out."""
        return frozenset((line, column) for name, line, column in self.unasked if name == file)

    def pieces_in(self, file: str) -> dict[Position, tuple[int, Piece]]:
        """The pieces of a file with their numbers."""
        return {
            (piece.line, piece.column): (number, piece)
            for number, piece in enumerate(self.pieces)
            if piece.file == file
        }
