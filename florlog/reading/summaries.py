"""What a list of runs shows of each: ``florlog runs``, `florlog.RunView.summary`, the table ``runs`` of `Log.sql`."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from typing import Any, Final

from florlog_recovery import RunTree
from florlog_wal import Array, Commit, RunLog, Store, Values

from florlog.program.catalogue import Catalogue
from florlog.program.stores import tree_of
from florlog.program.units import moment
from florlog.reading.render import jsonable
from florlog.state.readable_values import readable

_MAX_RECORDS_READ: Final = 10_000
"""From the log's end backwards, for the last value of each name."""


def summaries(store: Store) -> Iterator[dict[str, Any]]:
    """`summary_of` of every run, oldest first; one that cannot be read is left out, with a line that says so."""
    with Catalogue(store) as catalogue:
        for listed in catalogue.runs():
            if (found := catalogue.summary(listed.run, summary_of)) is not None:
                yield found


def summary_of(log: RunLog) -> dict[str, Any]:
    """What ``florlog runs`` shows, as plain values."""
    sessions, tree = log.sessions(), tree_of(log)
    first = sessions[0].begin
    started = moment(first.started, dt.UTC)
    return {
        "run": tree.run,
        "name": first.name,
        "script": first.script,
        "status": tree.status,
        "started": started.isoformat(timespec="seconds") if started else "",
        "iterations": tree.innermost_iterations(),
        "bytes": sum(session.nbytes for session in sessions),
        "params": {key: jsonable(value) for key, value in first.params.items()},
        "last": _last_values(log, tree),
        "forced": tree.forced[0] if tree.forced else "",
        "audited": tree.audits[-1].text if tree.audits else "",
        "ranks": first.world_size,
        "budget": tree.budget,
    }


def _last_values(log: RunLog, tree: RunTree) -> dict[str, Any]:
    """The last value of each name that was logged as a number, text or truth value, in order of the statements."""
    wanted = dict.fromkeys(
        name for table in tree.statements.values() for held in table.values() for name in held.names
    )
    found: dict[str, Any] = {}
    newest = log.last_lsn
    scanned = log.scan(max(1, newest - _MAX_RECORDS_READ), newest + 1, types=(Commit, Values), reverse=True)
    for entry in scanned:
        assert isinstance(entry.record, Commit | Values)
        for _, name, value in reversed(list(entry.record.values)):
            if name not in found and (scalar := _scalar(value)) is not None:
                found[name] = scalar
        if len(found) >= len(wanted):
            break
    return {name: found[name] for name in [*wanted, *found] if name in found}


def _scalar(value: Any) -> Any:
    """A number, text or truth value as JSON has it, also that of an array with one item; None for anything else."""
    if isinstance(value, Array):
        if value.shape:
            return None
        held = readable(value)
        value = None if isinstance(held, Array) else held.tolist()
    return jsonable(value) if isinstance(value, bool | int | float | str) else None
