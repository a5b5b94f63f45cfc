"""The log as text and JSON: one record a line, as pg_waldump prints it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from typing import Any

from florlog_wal import Entry, Path, Store

from ._guide import where
from ._render import jsonable
from ._session import sessions_of


class Paths:
    """Iteration paths of records, which name their loop by LSN."""

    def __init__(self) -> None:
        self._loops: dict[int, tuple[Path, str]] = {}

    def of(self, entry: Entry) -> Path:
        """The path that a record belongs to."""
        record: Any = entry.record
        kind = type(record).__name__
        if kind == "LoopBegin":
            self._loops[entry.lsn] = (record.path, record.name)
            return tuple(record.path)
        if hasattr(record, "path") and not isinstance(record.path, str):
            return tuple(record.path)
        loop = getattr(record, "loop", 0)
        if loop in self._loops:
            parent, name = self._loops[loop]
            return parent if kind == "LoopEnd" else (*parent, (name, record.index))
        return ()


def inspect_records(store: Store, run: str, fmt: str) -> None:
    """Print every record of a run."""
    paths = Paths()
    for session in sessions_of(store, run):
        for entry in store.scan(session.lsn, session.last_lsn + 1, session=session.lsn):
            path = paths.of(entry)
            print(json.dumps(_as_json(entry, run, path)) if fmt == "json" else _as_text(entry, path))


def _as_json(entry: Entry, run: str, path: Path) -> dict[str, Any]:
    fields = {
        field.name: jsonable(_plain(getattr(entry.record, field.name)))
        for field in dataclasses.fields(entry.record)
    }
    fields.pop("path", None)
    fields.pop("run", None)
    return {
        "lsn": entry.lsn,
        "type": type(entry.record).__name__,
        "run": run,
        "path": dict(path),
        "prev_lsn": entry.prev_lsn,
        "bytes": entry.nbytes,
        **fields,
    }


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.hex()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return value


def _as_text(entry: Entry, path: Path) -> str:
    record: Any = entry.record
    details: dict[str, Callable[[], str]] = {
        "RunBegin": lambda: f"{record.kind} of {record.script}",
        "RunEnd": lambda: f"{record.status} after {record.seconds:.2f} s",
        "Statement": lambda: (
            f"#{record.id} {record.kind} {', '.join(record.names)} at {record.file}:{record.line}"
        ),
        "LoopBegin": lambda: f"{record.name} length={record.length} start={record.start}",
        "LoopEnd": lambda: f"count={record.count} left={record.left}",
        "Commit": lambda: f"{_values(record.values)} {record.seconds * 1000:.2f} ms",
        "Values": lambda: _values(record.values),
        "Abort": lambda: record.reason,
        "CheckpointBegin": lambda: f"boundary {record.index}",
        "CheckpointEnd": lambda: (
            f"of {record.begin}: state {record.state_bytes} B, written {record.written_bytes} B, "
            f"stall {record.snapshot_seconds * 1000:.2f} ms, persist {record.persist_seconds * 1000:.2f} ms"
        ),
        "Hindsight": lambda: f"{_values(record.values)} {record.trust} {record.detail}",
        "Note": lambda: f"{record.kind}: {record.text}",
    }
    detail = details.get(type(record).__name__, lambda: "")()
    place = where(path) if path else "-"
    return (
        f"lsn {entry.lsn:>8}  prev {entry.prev_lsn:>8}  {type(record).__name__:<15}  {entry.nbytes:>6} B  "
        f"{place:<24}  {_printable(detail)}"
    ).rstrip()


def _values(values: Any) -> str:
    return " ".join(f"{name}={json.dumps(jsonable(value))[:60]}" for _, name, value in values)


def _printable(text: str) -> str:
    """Text without control characters: a log may hold a terminal's escape sequences."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)
