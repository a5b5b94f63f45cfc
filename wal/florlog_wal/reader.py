"""Reading the log: LMDB, with the valid frames of the tail laid over its end.

The tail is read before LMDB.  Whatever a live writer does in between, frames LMDB has by then are dropped
as known, and the rest must follow LMDB's last record without a gap; if the writer went round in between,
they do not, and then LMDB has newer records than were seen at first, so the look is repeated.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Final

from florlog_wal import log, tail
from florlog_wal.codec import check, decode, decode_checked, lsn_key
from florlog_wal.environment import Environment
from florlog_wal.errors import CorruptRecord, NoSuchRecord
from florlog_wal.log import RECORDS, SESSIONS
from florlog_wal.records import Entry, Record, RunBegin
from florlog_wal.sessions import SessionInfo, Summary, add_records, info

BATCH: Final = 1024


class LogReader:
    """Reads the log of one store directory."""

    def __init__(self, env: Environment, directory: Path) -> None:
        self._env, self._directory = env, directory

    def last(self) -> int:
        """The last record's LSN; 0 in an empty log."""
        return self.range()[1]

    def range(self) -> tuple[int, int]:
        """First and last LSN; (1, 0) for an empty log."""
        first, last, over = self._look()
        return first, last + len(over)

    def _look(self) -> tuple[int, int, dict[int, bytes]]:
        """First and last LSN in LMDB, and what the tail has beyond."""
        while True:
            found = tail.frames(self._directory)
            with self._env.read() as txn:
                first, last = log.bounds(self._env, txn)
            newer = {lsn: data for lsn, data in found.items() if lsn > last}
            if not newer or last + 1 in newer:
                over: dict[int, bytes] = {}
                while (data := newer.get(last + len(over) + 1)) is not None:
                    over[last + len(over) + 1] = data
                return first, last, over
            again = log.last_durable(self._env)
            if again == last:  # no writer: frames after a torn one
                return first, last, {}

    def record(self, lsn: int) -> Entry:
        """The record at an LSN."""
        with self._env.read() as txn:
            found = txn.get(lsn_key(lsn), db=self._env.dbs[RECORDS]) if 0 < lsn < 2**64 else None
            data = None if found is None else bytes(found)
        if data is None:
            first, last, over = self._look()
            data = over.get(lsn)
            if data is None and first <= lsn <= last:
                with self._env.read() as txn:  # committed since the first look
                    found = txn.get(lsn_key(lsn), db=self._env.dbs[RECORDS])
                    data = None if found is None else bytes(found)
                if data is None:
                    raise CorruptRecord(lsn, "it is missing from the log")
            if data is None:
                raise NoSuchRecord(lsn, first, last + len(over))
        return decode(lsn, data)

    def scan(
        self,
        start: int,
        stop: int | None,
        types: Collection[type[Record]] | None,
        session: int | None,
        reverse: bool,
    ) -> Iterator[Entry]:
        """See `Store.scan`."""
        first, last = self.range()
        end = last + 1
        start = max(start, first)
        stop = end if stop is None else min(stop, end)
        numbers = None if types is None else frozenset(cls.TYPE for cls in types)
        while start < stop:
            if reverse:
                batch = self._batch(max(start, stop - BATCH), stop)
                stop -= len(batch)
                batch.reverse()
            else:
                batch = self._batch(start, min(stop, start + BATCH))
                start += len(batch)
            for lsn, data in batch:
                kind, owner, prev = check(lsn, data)
                if (numbers is None or kind in numbers) and (session is None or (owner or lsn) == session):
                    yield decode_checked(lsn, data, kind, owner, prev)

    def _batch(self, start: int, stop: int) -> list[tuple[int, bytes]]:
        """The stored records of a range that the log is known to cover."""
        batch: list[tuple[int, bytes]] = []
        over: dict[int, bytes] | None = None
        while True:
            with self._env.read() as txn, txn.cursor(self._env.dbs[RECORDS]) as cursor:
                at = start + len(batch)
                if at < stop and cursor.set_range(lsn_key(at)):
                    for key, value in cursor.iternext():
                        if int.from_bytes(key, "big") != at or at >= stop:
                            break
                        batch.append((at, bytes(value)))
                        at += 1
            if over is not None:
                while at < stop and at in over:
                    batch.append((at, over[at]))
                    at += 1
            if at >= stop:
                return batch
            known = over
            _, last, over = self._look()
            if known is not None and at <= last:
                raise CorruptRecord(at, "it is missing from the log")

    def sessions(self) -> list[SessionInfo]:
        """All sessions, oldest first."""
        found = tail.frames(self._directory)
        summaries: dict[int, Summary] = {}
        with self._env.read() as txn:
            _, last = log.bounds(self._env, txn)
            with txn.cursor(self._env.dbs[SESSIONS]) as cursor:
                for key, value in cursor:
                    lsn = int.from_bytes(key, "big")
                    summaries[lsn] = Summary.decode(lsn, bytes(value))
        over: dict[int, bytes] = {}
        while (data := found.get(last + len(over) + 1)) is not None:
            over[last + len(over) + 1] = data
        add_records(summaries, over, lambda _: Summary())
        result = []
        for lsn, summary in sorted(summaries.items()):
            begin = self.record(lsn).record
            if not isinstance(begin, RunBegin):
                raise CorruptRecord(lsn, "a session does not start with RunBegin")
            result.append(info(lsn, begin, summary))
        return result
