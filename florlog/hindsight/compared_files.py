"""A recorded program next to the present one, file by file."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from florlog_recovery import RunTree
from florlog_wal import Store

from florlog.errors import SourceChangedError
from florlog.program.environment import is_hands_free
from florlog.program.recorded_sources import recorded_sources
from florlog.source.diff.source_diff import SourceDiff, compare
from florlog.source.edit.rewrite import Rewrite, statements
from florlog.source.names.syntax import read_as


@dataclass(frozen=True, slots=True)
class Compared:
    """A file as it was recorded and as it is now."""

    recorded: str  # its path when recorded
    present: str
    module: str
    old: str
    new: str
    diff: SourceDiff


def compared(store: Store, tree: RunTree, script: str) -> list[Compared]:
    """Every recorded file of a run, compared with what ``script`` and the modules around it are now.

    Raises `SourceChangedError` where a recorded file is gone.
    """
    found = []
    hands_free = is_hands_free(tree.begin.environment)
    for source in recorded_sources(store, tree):
        path = script if source.module == "__main__" else present_path(source.path, tree.begin.script, script)
        try:
            new = Path(path).read_text(encoding="utf-8")
        except OSError as error:
            raise SourceChangedError(
                f"{path} was part of the recording and cannot be read: {error}"
            ) from None
        with read_in(statements if hands_free else None):
            diff = compare(source.text, new, filename=path)
        found.append(Compared(source.path, path, source.module, source.text, new, diff))
    return found


def read_in(how: Rewrite | None) -> AbstractContextManager[None]:
    """Within, trees are read as a hands-free recording has them; as they are for None."""
    return nullcontext() if how is None else read_as(how)


def present_path(recorded: str, recorded_script: str, script: str) -> str:
    """Where a recorded file is now, when the script may be a copy in another place."""
    relative = os.path.relpath(recorded, Path(recorded_script).parent)
    moved = Path(os.path.normpath(Path(script).parent / relative))
    return str(moved) if moved.exists() else recorded
