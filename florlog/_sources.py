"""The source text that a run was recorded from."""

from __future__ import annotations

from dataclasses import dataclass

from florlog_recovery import RunTree
from florlog_wal import Note, Store

from ._session import sessions_of


@dataclass(frozen=True, slots=True)
class Source:
    """A recorded file: its path when recorded, its module's name (``__main__`` for the script), its text."""

    path: str
    module: str
    text: str


def recorded_sources(store: Store, tree: RunTree) -> list[Source]:
    """The script first, then the local modules, those imported at the run's beginning before later ones."""
    files = {path: (module, digest) for path, module, digest in tree.begin.sources}
    for session in sessions_of(store, tree.run):
        if session.begin.kind == "replay":
            continue
        for path, module, digest in session.begin.sources:
            files.setdefault(path, (module, digest))
        for entry in store.scan(session.lsn, session.last_lsn + 1, types=[Note], session=session.lsn):
            if isinstance(entry.record, Note) and entry.record.kind == "source":
                data = entry.record.data
                files.setdefault(data["path"], (entry.record.text.rpartition(" ")[2], data["page"]))
    found = [
        Source(path, module, store.get_page(digest).decode(errors="replace"))
        for path, (module, digest) in files.items()
    ]
    return sorted(found, key=lambda source: source.module != "__main__")
