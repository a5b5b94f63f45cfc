"""What is known of a run without reading its records: its first record, its last, and its summary rows."""

from __future__ import annotations

from dataclasses import dataclass

from florlog_recovery import FORCED
from florlog_wal import Commit, Note, RunBegin, RunEnd, RunLog, SessionInfo

from florlog.program.stores import is_written


@dataclass(frozen=True, slots=True)
class RunFacts:
    """A run in a list."""

    run: str
    begin: RunBegin
    status: str  # "complete", "failed", "crashed", "running"
    commits: int  # iterations of any loop
    records: int
    nbytes: int
    forced: bool  # resumed though it differed from the recording


def facts_of(log: RunLog) -> RunFacts:
    """The facts of a run."""
    live = is_written(log)  # before reading
    sessions = log.sessions()
    return RunFacts(
        sessions[0].begin.run,
        sessions[0].begin,
        _status(log, sessions[-1], live),
        sum(session.counts.get(Commit, 0) for session in sessions),
        sum(sum(session.counts.values()) for session in sessions),
        sum(session.nbytes for session in sessions),
        any(_is_forced(log, session) for session in sessions),
    )


def _status(log: RunLog, newest: SessionInfo, live: bool) -> str:
    if RunEnd in newest.counts:
        ends = log.scan(newest.lsn, newest.last_lsn + 1, types=(RunEnd,), session=newest.lsn, reverse=True)
        for entry in ends:
            assert isinstance(entry.record, RunEnd)
            return entry.record.status
    return "running" if live else "crashed"


def _is_forced(log: RunLog, session: SessionInfo) -> bool:
    if session.begin.kind != "resume" or Note not in session.counts:
        return False
    notes = log.scan(session.lsn, session.last_lsn + 1, types=(Note,), session=session.lsn)
    return any(isinstance(entry.record, Note) and entry.record.kind == FORCED for entry in notes)
