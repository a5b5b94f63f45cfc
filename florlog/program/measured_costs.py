"""The cost model of a run, fitted to what all of its sessions measured, replays included."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from florlog_recovery import CostModel, RunTree, fitted
from florlog_recovery.costs import KIND
from florlog_wal import Note, RunLog


def costs_of(store: RunLog, tree: RunTree) -> CostModel:
    """What a restore and the set-up of this run cost."""
    return fitted([*tree.costs, *_measured_by_replays(store, tree)])


def _measured_by_replays(store: RunLog, tree: RunTree) -> Iterator[dict[str, Any]]:
    sessions = {session.lsn: session for session in store.sessions()}
    for lsn in tree.replays:
        for entry in store.scan(lsn, sessions[lsn].last_lsn + 1, types=(Note,), session=lsn):
            if isinstance(entry.record, Note) and entry.record.kind == KIND:
                yield entry.record.data
