"""A record in its forms: a line of text, a JSON object, a row of CSV, and its type's colour."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import PurePath
from typing import Any, Final

from florlog_wal import Entry, Path

from florlog.following.trust import where
from florlog.program.units import duration_text, size_text
from florlog.reading.render import brief, jsonable, printable

TYPE_COLOURS: Final = {
    "RunBegin": "bright_blue",
    "RunEnd": "bright_blue",
    "Statement": "bright_black",
    "LoopBegin": "blue",
    "LoopEnd": "blue",
    "Begin": "bright_black",
    "Values": "green",
    "Commit": "green",
    "Abort": "red",
    "CheckpointBegin": "magenta",
    "CheckpointEnd": "magenta",
    "Hindsight": "cyan",
    "Note": "yellow",
}
"""A colour of the terminal's sixteen for each record type."""

SHORT_TYPES: Final = {"CheckpointBegin": "CkptBegin", "CheckpointEnd": "CkptEnd"}
"""Shorter names of the types for a narrow screen."""

TRUST_COLOURS: Final = {
    "RECORDED": "green",
    "PROVEN": "cyan",
    "CONSISTENT": "blue",
    "UNVERIFIED": "yellow",
    "DIVERGED": "red",
}
"""A colour for each trust label."""

CSV_COLUMNS: Final = ("lsn", "type", "run", "session", "prev_lsn", "bytes", "path", "detail")

_SGR: Final = {
    "red": 31, "green": 32, "yellow": 33, "blue": 34, "magenta": 35, "cyan": 36,
    "bright_black": 90, "bright_blue": 94,
}  # fmt: skip

_DETAILS: Final[dict[str, Callable[[Any], str]]] = {
    "RunBegin": lambda r: (
        f"{r.kind} of {r.script}" + (f", after {len(r.earlier)} other runs" if r.earlier else "")
    ),
    "RunEnd": lambda r: f"{r.status} after {r.seconds:.2f} s" + _failure(r.failure),
    "Statement": lambda r: f"#{r.id} {r.kind} {', '.join(r.names)} at {PurePath(r.file).name}:{r.line}",
    "LoopBegin": lambda r: f"{r.name} length={r.length} start={r.start}",
    "LoopEnd": lambda r: f"count={r.count} left={r.left}",
    "Commit": lambda r: f"{_values(r.values)} {duration_text(r.seconds)}".lstrip(),
    "Values": lambda r: _values(r.values),
    "Abort": lambda r: r.reason,
    "CheckpointBegin": lambda r: f"boundary {r.index}",
    "CheckpointEnd": lambda r: (
        f"of {r.begin}: state {size_text(r.state_bytes)}, written {size_text(r.written_bytes)}, "
        f"stall {duration_text(r.snapshot_seconds)}, persist {duration_text(r.persist_seconds)}"
    ),
    "Hindsight": lambda r: f"{_values(r.values)} {r.trust} {r.detail}".rstrip(),
    "Note": lambda r: f"{r.kind}: {r.text or brief(r.data, 200)}",
}


def coloured(text: str, colour: str) -> str:
    """Text in a colour, for a terminal."""
    return f"\x1b[{_SGR[colour]}m{text}\x1b[0m"


def detail(entry: Entry, width: int = 400) -> str:
    """What a record says, in one printable line."""
    text = printable(_DETAILS.get(type(entry.record).__name__, lambda _: "")(entry.record)[: 4 * width])
    return text if len(text) <= width else text[: width - 3] + "..."


def path_text(path: Path) -> str:
    """A path as text, ``-`` for the run itself."""
    return printable(where(path)) if path else "-"


def as_text(entry: Entry, path: Path, *, colour: bool = False) -> str:
    """A record as a line with stable columns."""
    name = type(entry.record).__name__
    kind = coloured(f"{name:<15}", TYPE_COLOURS[name]) if colour else f"{name:<15}"
    return (
        f"lsn {entry.lsn:>8}  prev {entry.prev_lsn:>8}  {kind}  {entry.nbytes:>6} B  "
        f"{path_text(path):<24}  {detail(entry)}"
    ).rstrip()


def as_json(entry: Entry, run: str, path: Path) -> dict[str, Any]:
    """A record as a JSON object."""
    fields = {
        field.name: _plain(field.name, getattr(entry.record, field.name))
        for field in dataclasses.fields(entry.record)
        if field.name not in ("path", "run")
    }
    return {
        "lsn": entry.lsn,
        "type": type(entry.record).__name__,
        "run": run,
        "path": dict(path),
        "prev_lsn": entry.prev_lsn,
        "bytes": entry.nbytes,
        **fields,
    }


def as_row(entry: Entry, run: str, path: Path) -> tuple[Any, ...]:
    """A record as `CSV_COLUMNS`."""
    name = type(entry.record).__name__
    return (
        entry.lsn,
        name,
        printable(run),
        entry.session,
        entry.prev_lsn,
        entry.nbytes,
        "" if not path else path_text(path),
        detail(entry, 10_000),
    )


def _plain(name: str, value: Any) -> Any:
    """A record's field: digests in hex, what was logged as `jsonable` has it."""
    if name in ("values", "params", "environment", "data"):
        return value.hex() if isinstance(value, bytes) else jsonable(value)
    if isinstance(value, bytes):
        return value.hex()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(f.name, getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, tuple):
        return [_plain("", item) for item in value]
    return jsonable(value)


def _values(values: Any) -> str:
    return " ".join(f"{name[:60]}={brief(value)}" for _, name, value in values[:12]) + (
        f" and {len(values) - 12} more" if len(values) > 12 else ""
    )


def _failure(failure: Any) -> str:
    return "" if failure is None else f": {failure.exception}: {failure.message}"
