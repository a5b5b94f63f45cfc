"""The summary row of each session, so that listing runs does not read the log.

A row is written in the same LMDB transaction as the records it counts, so it always agrees with them.  Records
that are only in the tail are added on reading.  A row can be rebuilt from the log alone; `verify` does so to
check it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import msgpack
import xxhash

from florlog_wal.codec import check
from florlog_wal.errors import CorruptRecord
from florlog_wal.records import RECORD_TYPES, Record, RunBegin


@dataclass(slots=True)
class Summary:
    """What is known of a session without reading its records: its last LSN, its bytes, its records by type."""

    last_lsn: int = 0
    nbytes: int = 0
    counts: dict[int, int] = field(default_factory=dict)

    def add(self, lsn: int, kind: int, nbytes: int) -> None:
        """Count a record."""
        self.last_lsn = lsn
        self.nbytes += nbytes
        self.counts[kind] = self.counts.get(kind, 0) + 1

    def encode(self, session: int) -> bytes:
        """The row's value: checksum (over the session too) and a msgpack list."""
        body: bytes = msgpack.packb([self.last_lsn, self.nbytes, *sum(sorted(self.counts.items()), ())])
        return xxhash.xxh3_64_digest(body, session) + body

    @classmethod
    def decode(cls, session: int, data: bytes) -> Summary:
        """A row back; raises `CorruptRecord` for the session's first LSN."""
        body = data[8:]
        if xxhash.xxh3_64_digest(body, session) != data[:8]:
            raise CorruptRecord(session, "checksum mismatch in the session's summary row")
        items = msgpack.unpackb(body)
        return cls(items[0], items[1], dict(zip(items[2::2], items[3::2], strict=True)))


@dataclass(frozen=True, slots=True)
class SessionInfo:
    """A session as `RunLog.sessions` lists it."""

    lsn: int
    begin: RunBegin
    last_lsn: int
    nbytes: int
    counts: dict[type[Record], int]


def add_records(summaries: dict[int, Summary], records: dict[int, bytes], load: Any) -> None:
    """Count stored records in the summaries of their sessions; ``load`` gives a summary that is not there yet."""
    for lsn, data in records.items():
        kind, session, _ = check(lsn, data)
        session = session or lsn
        summary = summaries.get(session)
        if summary is None:
            summary = summaries[session] = load(session)
        summary.add(lsn, kind, len(data))


def info(lsn: int, begin: RunBegin, summary: Summary) -> SessionInfo:
    """The public form of a row."""
    counts = {RECORD_TYPES[kind]: count for kind, count in sorted(summary.counts.items())}
    return SessionInfo(lsn, begin, summary.last_lsn, summary.nbytes, counts)
