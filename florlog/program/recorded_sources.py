"""The source text that a run was recorded from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from florlog_recovery import RunTree
from florlog_wal import RunLog

StatementPlace: TypeAlias = tuple[str, int]
"""File and line of a statement."""


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A recorded file: its path when recorded, its module's name (``__main__`` for the script), its text."""

    path: str
    module: str
    text: str


def recorded_sources(log: RunLog, tree: RunTree) -> list[SourceFile]:
    """The script first, then the local modules, those imported at the run's beginning before later ones."""
    found = [
        SourceFile(path, module, log.get_page(digest).decode(errors="replace"))
        for path, (module, digest) in tree.sources.items()
    ]
    return sorted(found, key=lambda source: source.module != "__main__")
