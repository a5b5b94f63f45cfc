"""What a process does with the runs that a script opens, if it is more than to record them.

A command sets one of these for the time in which it executes the script (`florlog.program.process.Process.in_role`);
`florlog.recording.session.run` looks for it.  Each is meant for one run, the one at its place among the program's runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from florlog_wal import RunLog

from florlog.errors import FlorlogError
from florlog.following.earlier_runs import EarlierRun
from florlog.following.guide import Guide
from florlog.following.hidden_files import HiddenFiles
from florlog.program.opened_runs import AND_MORE, MAX_EARLIER_RUNS, Earlier, is_same_name
from florlog.program.process import Role

if TYPE_CHECKING:  # recording a run does not wait for source analysis
    from florlog.source.edit.instrument import Instrumenter


@dataclass(slots=True, kw_only=True)
class Meant(Role):
    """A role that is meant for one run of the program."""

    run: str
    name: str
    earlier: Earlier
    """The runs that the program had opened before."""

    def place(self, name: str, opened: Earlier, *, counts: bool) -> Literal["earlier", "meant", "later"]:
        """Whether the run that the program opens now, after others, comes before the one that is meant, or is it.

        ``counts``: whether runs have places in this process; where not, the first one of its name is meant.
        Raises `FlorlogError` where another name was recorded here.
        """
        if self.taken:
            return "later"
        if not counts:
            return "meant" if is_same_name(name, self.name) else "later"
        if AND_MORE in self.earlier:
            raise FlorlogError(
                f"run {self.run} came after more than {MAX_EARLIER_RUNS} others of its process: its place in the "
                "program is not known"
            )
        then = [*(recorded for recorded, _ in self.earlier), self.name]
        for number, (now, recorded) in enumerate(
            zip([*(other for other, _ in opened), name], then, strict=False)
        ):
            if not is_same_name(now, recorded):
                raise FlorlogError(
                    f"run number {number + 1} of the program is called {now!r}, and was {recorded!r} when {self.run} "
                    f"was recorded, as number {len(then)}: this is not the program that it was"
                )
        return "meant" if len(opened) == len(self.earlier) else "earlier"

    def missing(self, script: str) -> str:
        """That a script came to its end without this run, as a line."""
        number = len(self.earlier) + 1
        which = f"a run named {self.name!r}" if number == 1 else f"its run number {number}, {self.name!r}"
        return f"{script} ended and did not open {which}: is it the script of run {self.run}?"


@dataclass(slots=True, kw_only=True)
class Replay(Meant):
    """A replay of one run, which ``guide`` leads."""

    guide: Guide
    instrumenter: Instrumenter
    """What instrumented the script, and knows which files are its own."""
    store: Path | None = None
    """Where the earlier runs lie."""
    runs_before: Sequence[EarlierRun] = ()
    """What becomes of each."""
    broken: list[str] = field(default_factory=list)
    """Why one that was passed over did not come to its end as it was recorded."""


@dataclass(slots=True, kw_only=True)
class Resume(Meant):
    """A resume of one run, given by its id."""

    extend: bool = False
    """Whether a complete run goes on in its outermost loop, which a break or return has left."""
    force: bool = False
    """Whether the run goes on though what was re-executed differs from the recording."""
    commanded: bool = True
    """Whether a command resumes it, and not the script itself."""
    anew: bool = False
    """Whether the training begins anew where this run cannot go on."""
    held: RunLog | None = None
    """Its log, locked so that no other process goes on with it meanwhile."""
    passed: list[str] = field(default_factory=list)
    """The earlier runs that were passed over."""
    hidden: HiddenFiles | None = None
    """What the set-up does not see, where that is known before the script opens the run."""

    def let_go(self) -> None:
        """Its log is not locked any more."""
        if self.held is not None:
            self.held.close()
            self.held = None
