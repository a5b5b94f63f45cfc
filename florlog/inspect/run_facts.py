"""What is known of each run without reading its records: its first record, its last, and its summary rows."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

from florlog_recovery import FORCED
from florlog_wal import Commit, Note, RunBegin, RunEnd, RunLog, SessionInfo


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


def facts_of(store: RunLog) -> Iterator[RunFacts]:
    """Every run, oldest first."""
    by_run: dict[str, list[SessionInfo]] = {}
    newest = 0
    for session in store.sessions():
        by_run.setdefault(session.begin.run, []).append(session)
        if session.begin.kind != "replay":
            newest = session.lsn
    holder = store.writer()
    for run, sessions in by_run.items():
        recording = [session for session in sessions if session.begin.kind != "replay"]
        if recording:
            live = holder is not None and holder.pid != os.getpid() and recording[-1].lsn == newest
            yield RunFacts(
                run,
                recording[0].begin,
                _status(store, recording[-1], live),
                sum(session.counts.get(Commit, 0) for session in recording),
                sum(sum(session.counts.values()) for session in sessions),
                sum(session.nbytes for session in sessions),
                any(_is_forced(store, session) for session in recording),
            )


def _status(store: RunLog, newest: SessionInfo, live: bool) -> str:
    if RunEnd in newest.counts:
        ends = store.scan(newest.lsn, newest.last_lsn + 1, types=(RunEnd,), session=newest.lsn, reverse=True)
        for entry in ends:
            assert isinstance(entry.record, RunEnd)
            return entry.record.status
    return "running" if live else "crashed"


def _is_forced(store: RunLog, session: SessionInfo) -> bool:
    if session.begin.kind != "resume" or Note not in session.counts:
        return False
    notes = store.scan(session.lsn, session.last_lsn + 1, types=(Note,), session=session.lsn)
    return any(isinstance(entry.record, Note) and entry.record.kind == FORCED for entry in notes)
