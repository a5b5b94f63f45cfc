"""The records of a run in order, selected; also while they are being written."""

from __future__ import annotations

import time
from collections.abc import Iterator

from florlog_wal import Entry, Path, RunEnd, RunLog, SessionInfo

from florlog.inspect.record_paths import Paths
from florlog.inspect.selection import RecordSelection

FoundRecord = tuple[Entry, Path]


def selected(log: RunLog, selection: RecordSelection, *, reverse: bool = False) -> Iterator[FoundRecord]:
    """The selected records of a log, with the path of each.

    Raises `florlog_wal.CorruptRecord` at a record that is damaged, after those before it.
    """
    sessions = log.sessions()
    paths = Paths(log)
    for session in reversed(sessions) if reverse else sessions:
        yield from _of_session(log, session, selection, paths, session.lsn, reverse)


def _of_session(
    log: RunLog,
    session: SessionInfo,
    selection: RecordSelection,
    paths: Paths,
    start: int,
    reverse: bool = False,
) -> Iterator[FoundRecord]:
    first = max(start, session.lsn, selection.start or 0)
    last = session.last_lsn if selection.stop is None else min(session.last_lsn, selection.stop)
    scan = log.scan(first, last + 1, types=selection.types, session=session.lsn, reverse=reverse)
    for entry in scan:
        path = paths.of(entry)
        if selection(entry, path):
            yield entry, path


def followed(log: RunLog, selection: RecordSelection, *, poll: float = 0.2) -> Iterator[FoundRecord]:
    """`selected`, and then what is written, until the run ends or nobody writes to the log.

    ``poll``: seconds between two readings.
    """
    paths = Paths(log)
    seen = 0
    while True:
        alive = log.writer() is not None  # before reading: so what a writer wrote last is read
        sessions = log.sessions()
        for session in sessions:
            if session.last_lsn > seen:
                yield from _of_session(log, session, selection, paths, seen + 1)
        seen = max(seen, *(session.last_lsn for session in sessions))
        if RunEnd in sessions[-1].counts or not alive:
            return
        time.sleep(poll)


def open_end(log: RunLog) -> str | None:
    """A sentence on where and why a run's log ends without the run's end; None when it has its end."""
    alive = log.writer() is not None  # before reading
    newest = log.sessions()[-1]
    if RunEnd in newest.counts:
        return None
    if alive:
        return f"the log ends at LSN {newest.last_lsn}: the run is still being recorded"
    return f"the log ends at LSN {newest.last_lsn} without the run's end: it was killed; florlog resume continues it"
