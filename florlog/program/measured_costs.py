"""What restores and set-ups cost: fitted to what a run's own sessions measured, or recalled from other runs.

``restores`` in the store's directory (`florlog.program.hint_file`) has what the newest replays and resumes of any run
measured, the newest last.  It is for a new run, which has measured nothing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from florlog_recovery import CostModel, RunTree, fitted
from florlog_recovery.costs import KIND
from florlog_wal import Note, RunLog, WalError

from florlog.program.hint_file import read_hint, write_hint
from florlog.program.stores import answers_of, store_of

_NAME: Final = "restores"
_MAX_MEASURED: Final = 16
_MAX_BYTES: Final = 1 << 20


def costs_of(log: RunLog, tree: RunTree) -> CostModel:
    """What a restore and the set-up of this run cost."""
    return fitted([*tree.costs, *_measured_by_replays(log)])


def _measured_by_replays(log: RunLog) -> Iterator[dict[str, Any]]:
    for answers, session in answers_of(log):
        for entry in answers.scan(session.lsn, session.last_lsn + 1, types=(Note,), session=session.lsn):
            if isinstance(entry.record, Note) and entry.record.kind == KIND:
                yield entry.record.data


def remember(log: RunLog, measured: Mapping[str, Any]) -> None:
    """Remember, for later runs of the store, what a replay or resume of a run has measured."""
    where = store_of(log)
    if where is None or not measured.get("restores", [0.0])[0]:
        return
    with contextlib.suppress(OSError):  # nothing depends on it
        write_hint(where / _NAME, [*_remembered(where), dict(measured)][-_MAX_MEASURED:])


def restore_costs(store: Path) -> Callable[[int], float] | None:
    """What restores have cost in this store, in seconds by the bytes of the state; None if none was measured."""
    found = _remembered(store)
    return fitted(found).seconds if found else None


def _remembered(store: Path) -> list[dict[str, Any]]:
    with contextlib.suppress(OSError, WalError, TypeError, ValueError):
        found = read_hint(store / _NAME, _MAX_BYTES)
        fitted(found)
        return list(found)
    return []
