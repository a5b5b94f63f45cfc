"""The log by column: batches of records, without an object for each commit.

Nearly every record is the `Commit` of an innermost iteration.  A table of logged values needs only its loop, its
index and its values, column by column.  So the fields of a batch are turned from rows into columns by ``zip``, and
the types of a whole column are checked at once.  That takes a third of the time of a scan.  A batch with
anything unusual in it is decoded record by record, which names the record that is wrong.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgpack

from florlog_wal.codec import HEADER_SIZE, check, decode, decode_checked
from florlog_wal.fields import box
from florlog_wal.records import Commit, Entry

_COMMIT_FIELDS: Final = 9
_VALUE_TYPES: Final = frozenset(
    {type(None), bool, int, float, str, bytes, tuple}
)  # a tuple boxes an extension


@dataclass(slots=True)
class LoggedColumn:
    """What the commits of a batch logged at one statement under one name."""

    statement: int
    name: str
    commits: Sequence[int]  # the positions in the batch of the commits that logged it
    values: Sequence[Any]  # one for each of these commits


@dataclass(slots=True)
class Batch:
    """Consecutive records: the commits by column, the others as entries.

    ``lsns``, ``loops`` and ``indices`` have one item for each commit.
    """

    lsns: list[int] = field(default_factory=list)
    loops: Sequence[int] = ()
    indices: Sequence[int] = ()
    logged: list[LoggedColumn] = field(default_factory=list)
    others: list[Entry] = field(default_factory=list)


def batch_of(stored: Iterable[tuple[int, bytes]], session: int | None) -> Batch:
    """The batch of some stored records, of all sessions or of the one given.  Raises `CorruptRecord`."""
    batch = Batch()
    commits: list[bytes] = []
    for lsn, data in stored:
        kind, owner, prev = check(lsn, data)
        if session is None or (owner or lsn) == session:
            if kind == Commit.TYPE:
                batch.lsns.append(lsn)
                commits.append(data)
            else:
                batch.others.append(decode_checked(lsn, data, kind, owner, prev))
    if commits and not _quickly(batch, commits):
        _one_by_one(batch, commits)
    return batch


def _quickly(batch: Batch, stored: list[bytes]) -> bool:
    """Fill a batch, and return True, if every commit is of the usual form."""
    unpack = msgpack.unpackb
    try:
        rows = [unpack(data[HEADER_SIZE:], ext_hook=box, unicode_errors="surrogatepass") for data in stored]
        columns = list(zip(*rows, strict=True))
    except Exception:  # msgpack raises an open set of exceptions; decoding one by one names the record
        return False
    if set(map(type, rows)) != {list} or len(columns) != _COMMIT_FIELDS:
        return False
    kinds = [set(map(type, column)) for column in columns]
    if kinds != [{int}, {int}, {int}, {list}, {float}, {bytes}, {bytes}, {bytes}, {bool}]:
        return False
    logged = _logged(columns[3])
    if logged is None:
        return False
    batch.loops, batch.indices, batch.logged = columns[0], columns[1], logged
    return True


def _logged(flats: Sequence[list[Any]]) -> list[LoggedColumn] | None:
    """The flat logged values (statement, name, value, statement, ...) of commits, by column; None if any is unusual."""
    by_length: dict[int, list[int]] = {}
    for position, flat in enumerate(flats):
        by_length.setdefault(len(flat), []).append(position)
    found: list[LoggedColumn] = []
    for length, positions in by_length.items():
        if length % 3:
            return None
        columns = list(zip(*[flats[position] for position in positions], strict=True))
        for at in range(0, length, 3):
            statements, names = columns[at : at + 2]
            values: Sequence[Any] = columns[at + 2]
            if set(map(type, statements)) != {int} or set(map(type, names)) != {str}:
                return None
            kinds = set(map(type, values))
            if not kinds <= _VALUE_TYPES:
                return None
            if tuple in kinds:
                values = [value[0] if type(value) is tuple else value for value in values]
            if len(set(names)) == 1 and len(set(statements)) == 1:
                found.append(LoggedColumn(statements[0], names[0], positions, values))
            else:
                _sorted(found, positions, statements, names, values)
    return found


def _sorted(
    found: list[LoggedColumn],
    positions: Sequence[int],
    statements: Sequence[int],
    names: Sequence[str],
    values: Sequence[Any],
) -> None:
    """Split a column in which the commits logged different statements or names."""
    parts: dict[tuple[int, str], tuple[list[int], list[Any]]] = {}
    for position, statement, name, value in zip(positions, statements, names, values, strict=True):
        part = parts.setdefault((statement, name), ([], []))
        part[0].append(position)
        part[1].append(value)
    found.extend(LoggedColumn(*key, *part) for key, part in parts.items())


def _one_by_one(batch: Batch, stored: list[bytes]) -> None:
    """Fill a batch from decoded records."""
    loops, indices = [], []
    parts: dict[tuple[int, int, str], tuple[list[int], list[Any]]] = {}
    for position, (lsn, data) in enumerate(zip(batch.lsns, stored, strict=True)):
        record = decode(lsn, data).record
        assert isinstance(record, Commit)
        loops.append(record.loop)
        indices.append(record.index)
        for place, (statement, name, value) in enumerate(record.values):
            part = parts.setdefault((place, statement, name), ([], []))
            part[0].append(position)
            part[1].append(value)
    batch.loops, batch.indices = loops, indices
    batch.logged = [LoggedColumn(statement, name, *part) for (_, statement, name), part in parts.items()]
