"""What a changed script asks of a recorded run: one frozen value, made of parts that each answer one question.

`florlog.hindsight.requesting` makes it, `plan_for` plans it, `florlog.redo.answer` executes the plan.  Nothing is
filled in later: who has to ask otherwise, as after a failed attempt, makes another request with
`dataclasses.replace`.  The mappings are not changed after construction.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeAlias

from florlog_recovery import Atoms, CostModel, Loop, Node, Plan, RunTree, plan_redo
from florlog_wal import Path as IterationPath

from florlog.following.earlier_runs import EarlierRun
from florlog.following.failed_images import Boundary
from florlog.following.shortcuts import PassedPieces
from florlog.following.trust import FoundValue, Readings
from florlog.hindsight.select import Chosen
from florlog.program.recorded_sources import StatementPlace
from florlog.source.edit.rewrite import Rewrite, reading
from florlog.source.reach.regions import Exit
from florlog.source.skip.pieces import Piece
from florlog.source.skip.skipping import Skipped

AtomGroup: TypeAlias = Loop | tuple[Node, int]
"""The innermost iterations of a loop execution, or one segment of another iteration."""


@dataclass(frozen=True, slots=True)
class AddedLog:
    """A log statement that the recording does not have."""

    file: str  # present path
    line: int
    qualname: str  # of the code that it stands in
    names: tuple[str, ...]

    def __str__(self) -> str:
        return f"{', '.join(self.names)} ({Path(self.file).name}:{self.line}, {self.qualname})"


@dataclass(frozen=True, slots=True)
class PresentFile:
    """A file of the program as it is now, next to what was recorded."""

    recorded: str  # its path when recorded
    module: str
    line_map: Mapping[int, int]  # present line -> recorded line
    apart: frozenset[tuple[int, int]]  # line and column of the statements all of which is new


@dataclass(frozen=True, slots=True)
class PresentProgram:
    """What is executed: the script and its local modules as they are now, each with what the recording had."""

    script: str
    files: Mapping[str, PresentFile]  # by present path
    loops: Mapping[str, Mapping[int, str]] | None = None  # file -> line -> name; None: it is read as it is
    hands_free: bool = False
    shown: Mapping[str, str] = field(
        default_factory=dict
    )  # present file -> what to call it, where that differs

    @property
    def modules(self) -> dict[str, str]:
        """Module -> present file."""
        return {file.module: path for path, file in self.files.items() if file.module != "__main__"}

    @property
    def lines(self) -> dict[str, tuple[str, Mapping[int, int]]]:
        """Present file -> recorded file, and present line -> recorded line."""
        return {path: (file.recorded, file.line_map) for path, file in self.files.items()}

    @property
    def apart(self) -> dict[str, frozenset[tuple[int, int]]]:
        """Present file -> line and column of the statements all of which is new."""
        return {path: file.apart for path, file in self.files.items()}

    @property
    def reading(self) -> Rewrite | None:
        """How it is read; None for a script that is read as it is."""
        return None if self.loops is None else reading(self.loops, excerpts_alone=not self.hands_free)

    def name(self, file: str) -> str:
        """What to call a present file."""
        return self.shown.get(file, file)


@dataclass(frozen=True, slots=True)
class WantedAtoms:
    """Which iterations are asked for, and what of them has to be executed."""

    chosen: Chosen  # asked for, whether their values are known by now or not
    atoms: Atoms  # to execute, for the values that are not known
    exits: Mapping[AtomGroup, Exit]  # where these iterations can be left early
    reasons: Mapping[AtomGroup, tuple[str, ...]]  # the names asked for there
    readings: Readings  # of the added statements


@dataclass(frozen=True, slots=True)
class Skippable:
    """What may be left out, because nothing that is asked for depends on it."""

    loops: Mapping[Loop, Skipped] = field(default_factory=dict)
    pieces: tuple[Piece, ...] = ()
    passing: PassedPieces = field(default_factory=dict)  # which of the pieces run where


@dataclass(frozen=True, slots=True)
class Earlier:
    """How this request meets those of earlier and later replays."""

    keys: Mapping[StatementPlace, bytes]  # identities of the added statements
    values: tuple[FoundValue, ...]  # what earlier replays found


@dataclass(frozen=True, slots=True)
class Remarks:
    """Lines for the person who asks."""

    images: tuple[str, ...] = ()  # which images are not used, and why
    altering: tuple[str, ...] = ()  # added code that does more than observe, as far as its form shows
    changes: tuple[str, ...] = ()  # what else differs from the recording, and what that may invalidate


@dataclass(frozen=True, slots=True)
class Doubts:
    """Which change of recorded code may have run for a value, where the request is made nonetheless.

    Changes have their places in ``changes`` as numbers.
    """

    changes: tuple[str, ...]
    inside: Mapping[Loop | Node, int]
    """The first change that may run in a loop's innermost iterations, or directly in another iteration."""
    before_end: int | None  # in the run itself, before its last loop ended
    anywhere: int | None  # in the run itself

    def of(self, tree: RunTree, path: IterationPath) -> str:
        """The change that may have run for a value of an iteration, "" if none may."""
        around = [place for depth in range(1, len(path) + 1) if (place := tree.locate(path[:depth]))]
        numbers = [self.before_end if around else self.anywhere]
        numbers += [self.inside.get(loop.nodes.get(index, loop)) for loop, index in around]
        return next((self.changes[number] for number in sorted(n for n in numbers if n is not None)), "")


@dataclass(frozen=True, slots=True)
class Request:
    """What was added to a script since a run was recorded, and which iterations are asked for."""

    tree: RunTree
    program: PresentProgram
    added: tuple[AddedLog, ...]
    wanted: WantedAtoms
    skippable: Skippable
    unusable: frozenset[Boundary]  # images that lack something which is now needed
    enterable: frozenset[Loop]  # that may be entered blindly
    earlier: Earlier
    costs: CostModel
    remarks: Remarks
    doubts: Doubts | None = None  # None: no recorded code was changed
    unasked: frozenset[tuple[str, int, int]] = frozenset()
    """Added statements that are not executed, by file, line and column: images without what they read are used."""
    runs_before: tuple[EarlierRun, ...] = ()
    """What becomes of the runs that the program opened before."""

    def wants(self, path: IterationPath) -> bool:
        """Whether an iteration was asked for."""
        return self.wanted.chosen.holds(self.tree, path)

    def limited_to(self, atoms: Atoms) -> Request:
        """The same request, with only these atoms to execute."""
        return replace(self, wanted=replace(self.wanted, atoms=atoms))

    @property
    def passes_over_runs(self) -> bool:
        """Whether a run that the program opened before is passed over."""
        return any(run.passed_over for run in self.runs_before)

    def executing_runs_before(self) -> Request:
        """The same request, with all runs executed that the program opened before."""
        return replace(self, runs_before=tuple(run.executed() for run in self.runs_before))

    def without_skipping(self) -> Request:
        """The same request, with everything on the way executed."""
        return replace(self, skippable=Skippable())


def plan_for(request: Request) -> Plan:
    """The cheapest plan that answers a request."""
    return plan_redo(
        request.tree,
        request.wanted.atoms,
        request.costs,
        request.unusable,
        request.skippable.loops.keys(),
        request.enterable.__contains__,
    )
