"""The source text that a run was recorded from."""

from __future__ import annotations

from dataclasses import dataclass

from florlog_recovery import RunTree
from florlog_wal import Store


@dataclass(frozen=True, slots=True)
class Source:
    """A recorded file: its path when recorded, its module's name (``__main__`` for the script), its text."""

    path: str
    module: str
    text: str


def recorded_sources(store: Store, tree: RunTree) -> list[Source]:
    """The script first, then the local modules, those imported at the run's beginning before later ones."""
    found = [
        Source(path, module, store.get_page(digest).decode(errors="replace"))
        for path, (module, digest) in tree.sources.items()
    ]
    return sorted(found, key=lambda source: source.module != "__main__")
