"""The records of a run in order, selected; also while they are being written."""

from __future__ import annotations

import time
from collections.abc import Iterator

from florlog_wal import Entry, Path, RunEnd, RunLog, SessionInfo

from florlog.inspect.record_paths import Paths
from florlog.inspect.selection import RecordSelection
from florlog.program.stores import sessions_of

FoundRecord = tuple[Entry, Path]


def selected(
    store: RunLog, run: str, selection: RecordSelection, *, reverse: bool = False
) -> Iterator[FoundRecord]:
    """The run's selected records, with the path of each.

    Raises `florlog_wal.CorruptRecord` at a record that is damaged, after those before it.
    """
    sessions = sessions_of(store, run)
    paths = Paths(store)
    for session in reversed(sessions) if reverse else sessions:
        yield from _of_session(store, session, selection, paths, session.lsn, reverse)


def _of_session(
    store: RunLog,
    session: SessionInfo,
    selection: RecordSelection,
    paths: Paths,
    start: int,
    reverse: bool = False,
) -> Iterator[FoundRecord]:
    first = max(start, session.lsn, selection.start or 0)
    last = session.last_lsn if selection.stop is None else min(session.last_lsn, selection.stop)
    scan = store.scan(first, last + 1, types=selection.types, session=session.lsn, reverse=reverse)
    for entry in scan:
        path = paths.of(entry)
        if selection(entry, path):
            yield entry, path


def followed(
    store: RunLog, run: str, selection: RecordSelection, *, poll: float = 0.2
) -> Iterator[FoundRecord]:
    """`selected`, and then what is written, until the run ends or nobody writes to the store.

    ``poll``: seconds between two readings.
    """
    paths = Paths(store)
    seen = 0
    while True:
        alive = store.writer() is not None  # before reading: so what a writer wrote last is read
        sessions = sessions_of(store, run)
        for session in sessions:
            if session.last_lsn > seen:
                yield from _of_session(store, session, selection, paths, seen + 1)
        seen = max(seen, *(session.last_lsn for session in sessions))
        recording = [session for session in sessions if session.begin.kind != "replay"]
        if RunEnd in recording[-1].counts or not alive:
            return
        time.sleep(poll)


def open_end(store: RunLog, run: str) -> str | None:
    """A sentence on where and why a run's log ends without the run's end; None when it has its end."""
    recording = [session for session in sessions_of(store, run) if session.begin.kind != "replay"]
    newest = recording[-1]
    if RunEnd in newest.counts:
        return None
    if store.writer() is not None and newest.lsn == _newest_session(store):
        return f"the log ends at LSN {newest.last_lsn}: the run is still being recorded"
    return f"the log ends at LSN {newest.last_lsn} without the run's end: it was killed; florlog resume continues it"


def _newest_session(store: RunLog) -> int:
    return store.sessions()[-1].lsn
