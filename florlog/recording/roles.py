"""What a process does with the run that a script opens, if it is more than to record it.

A command sets one of these for the time in which it executes the script (`florlog.program.process.Process.in_role`);
`florlog.recording.session.run` looks for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from florlog.following.guide import Guide
from florlog.program.process import Role

if TYPE_CHECKING:  # recording a run does not wait for source analysis
    from florlog.source.edit.instrument import Instrumenter


@dataclass(slots=True, kw_only=True)
class Replay(Role):
    """A replay of one run; ``guide`` leads the script's first run of that name."""

    name: str
    guide: Guide
    instrumenter: Instrumenter
    """What instrumented the script, and knows which files are its own."""


@dataclass(slots=True, kw_only=True)
class Resume(Role):
    """A resume of one run, given by its id."""

    run: str
    extend: bool = False
    """Whether a complete run goes on in its outermost loop, which a break or return has left."""
    force: bool = False
    """Whether the run goes on though what was re-executed differs from the recording."""
