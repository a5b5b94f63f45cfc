"""How a recorded program is read: which of its loops are florlog's, and whether its statements record values.

Of a program that was recorded hands-free all files are rewritten (`florlog.source.edit.rewrite`).  A script that opens
its run itself is read as it is; where that run is around a framework's training, the excerpts of the framework's
modules are rewritten, and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping

from florlog.source.edit.loop_choice import choose
from florlog.source.edit.rewrite import Rewrite, reading
from florlog.source.names.excerpts import excerpt_of, loops_of_excerpt

Loops = Mapping[str, Mapping[int, str]]
"""File -> line -> name."""


def recorded_loops(texts: Mapping[str, str], *, hands_free: bool) -> dict[str, dict[int, str]] | None:
    """The loops that were rewritten in a program with these texts; None where nothing was."""
    if hands_free:
        return choose(texts).loops
    return {file: loops_of_excerpt(text) for file, text in texts.items() if excerpt_of(text)} or None


def recorded_reading(texts: Mapping[str, str], *, hands_free: bool) -> Rewrite | None:
    """How a program with these texts was read; None where it is read as it is."""
    loops = recorded_loops(texts, hands_free=hands_free)
    return None if loops is None else reading(loops, excerpts_alone=not hands_free)
