"""Reading the log: LMDB, with the valid frames of the tail laid over its end.

The tail is read before LMDB.  Whatever a live writer does in between, frames LMDB has by then are dropped
as known, and the rest must follow LMDB's last record without a gap; if the writer went round in between,
they do not, and then LMDB has newer records than were seen at first, so the look is repeated.

LSNs are dense but for the ranges that gc noted, so a record that the tree does not give is corruption and
not absence.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Final, NamedTuple

from florlog_wal import log, tail
from florlog_wal.btree import Damage, Snapshot
from florlog_wal.codec import check, decode, decode_checked, lsn_key
from florlog_wal.columns import Batch, batch_of
from florlog_wal.directory import read_end
from florlog_wal.environment import Environment
from florlog_wal.errors import CorruptRecord, CorruptStore, NoSuchRecord
from florlog_wal.log import RECORDS, SESSIONS
from florlog_wal.records import Entry, Record, RunBegin
from florlog_wal.sessions import SessionInfo, Summary, add_records, info

BATCH: Final = 1024
COLUMN: Final = 170  # of two lists each: more would set off the garbage collector for every batch


class _View(NamedTuple):
    """What the log covers at one moment."""

    last: int  # in LMDB
    certain: bool  # whether everything agrees on that
    over: dict[int, bytes]  # what the tail has beyond
    removed: list[tuple[int, int]]

    @property
    def first(self) -> int:
        return self.removed[0][1] if self.removed and self.removed[0][0] == 1 else 1

    @property
    def end(self) -> int:
        return self.last + len(self.over)

    def next_present(self, lsn: int) -> int:
        """The LSN itself, or the first after the removed range that it lies in."""
        for start, stop in self.removed:
            if start <= lsn < stop:
                return stop
        return lsn


class LogReader:
    """Reads the log of one store directory."""

    def __init__(self, env: Environment, directory: Path) -> None:
        self._env = env
        self._tail = tail.TailReader(directory)
        self._floor = 0  # LMDB has everything up to here
        self._lock = threading.Lock()
        self._unlisted = log.unlisted(env)
        try:
            self._closed_at = read_end(directory)
        except CorruptStore:
            self._closed_at = 0  # verify tells it; all else can be read without

    def _frames(self) -> dict[int, bytes]:
        """What the tail holds beyond what LMDB is known to have."""
        with self._lock:
            if not self._floor:
                with self._env.read() as snapshot:
                    self._floor = log.extent(snapshot)[0]
            return {**self._unlisted, **self._tail.frames(self._floor)}

    @property
    def _reached(self) -> int:
        """How far the log is known to have reached."""
        return max(self._closed_at, self._tail.floor)

    def range(self) -> tuple[int, int]:
        """First and last LSN; (1, 0) for an empty log."""
        look = self._look()
        if not look.certain:
            raise CorruptRecord(look.end, "the log does not reach as far as it once did, or says it does")
        return look.first, look.end

    def reach(self) -> tuple[int, int]:
        """Like `range`, but of a damaged log too, where the last LSN may be of a record that is lost."""
        look = self._look()
        return look.first, look.end

    def removed(self) -> list[tuple[int, int]]:
        """The ranges of LSNs that gc removed."""
        return self._look().removed

    def stored(self, start: int, stop: int) -> Iterator[tuple[int, bytes]]:
        """The stored records of a range that lies within the log, unchecked."""
        while start < stop:
            high = min(stop, start + BATCH)
            yield from self._batch(start, high)
            start = high

    def _look(self) -> _View:
        while True:
            found = self._frames()
            with self._env.read() as snapshot:
                (last, certain), removed = log.extent(snapshot), log.removed_in(snapshot)
            over = tail.following(found, last)
            if last + len(over) < self._reached:
                last, certain, over = self._reached, False, {}
            self._floor = max(self._floor, last)
            if over or not any(lsn > last for lsn in found):
                return _View(last, certain, over, removed)
            with self._env.read() as snapshot:
                again = log.extent(snapshot)[0]
            if again <= last:  # no writer moved on: these lie behind a torn frame
                return _View(last, certain, {}, removed)

    def record(self, lsn: int) -> Entry:
        """The record at an LSN."""
        return decode(lsn, self._stored(lsn))

    def _stored(self, lsn: int) -> bytes:
        if 0 < lsn < 2**63:
            data = self._from_lmdb(lsn)
            if data is not None:
                return data
        look = self._look()
        if lsn in look.over:
            return look.over[lsn]
        if not 0 < lsn <= look.end or look.next_present(lsn) != lsn:
            raise NoSuchRecord(lsn, look.first, look.end)
        data = self._from_lmdb(lsn)  # it may have been committed since the first try
        if data is None:
            raise CorruptRecord(lsn, "it is missing from the log")
        return data

    def _from_lmdb(self, lsn: int) -> bytes | None:
        with self._env.read() as snapshot:
            try:
                return snapshot.get(RECORDS, lsn_key(lsn))
            except Damage as error:
                raise CorruptRecord(lsn, str(error)) from None

    def scan(
        self,
        start: int,
        stop: int | None,
        types: Collection[type[Record]] | None,
        session: int | None,
        reverse: bool,
    ) -> Iterator[Entry]:
        """See `Store.scan`."""
        look = self._look()
        start = max(start, look.first)
        stop = look.end + 1 if stop is None else min(stop, look.end + 1)
        numbers = None if types is None else frozenset(cls.TYPE for cls in types)
        while start < stop:
            if reverse:
                low = max(start, stop - BATCH)
                batch = self._batch(low, stop)
                batch.reverse()
                stop = low
            else:
                high = min(stop, start + BATCH)
                batch = self._batch(start, high)
                start = high
            for lsn, data in batch:
                kind, owner, prev = check(lsn, data)
                if (numbers is None or kind in numbers) and (session is None or (owner or lsn) == session):
                    yield decode_checked(lsn, data, kind, owner, prev)

    def batches(self, start: int, stop: int | None, session: int | None) -> Iterator[Batch]:
        """See `Store.batches`."""
        look = self._look()
        start = max(start, look.first)
        stop = look.end + 1 if stop is None else min(stop, look.end + 1)
        while start < stop:
            high = min(stop, start + BATCH)
            stored = self._batch(start, high)
            for at in range(0, len(stored), COLUMN):
                yield batch_of(stored[at : at + COLUMN], session)
            start = high

    def _batch(self, start: int, stop: int) -> list[tuple[int, bytes]]:
        """The stored records of a range that lies within the log."""
        with self._env.read() as snapshot:
            batch, at = _consecutive(snapshot, start, stop)
        if at >= stop:
            return batch
        look = self._look()
        while at < stop:
            at = look.next_present(at)
            if at in look.over:
                batch.append((at, look.over[at]))
                at += 1
            elif at <= look.last and at < stop:
                with self._env.read() as snapshot:
                    more, reached = _consecutive(snapshot, at, stop)
                if reached == at:
                    raise CorruptRecord(at, "it is missing from the log")
                batch += more
                at = reached
            elif at < stop:
                look = self._look()
        return batch

    def sessions(self) -> list[SessionInfo]:
        """All sessions, oldest first."""
        found = self._frames()
        summaries: dict[int, Summary] = {}
        with self._env.read() as snapshot:
            last, certain = log.extent(snapshot)
            for leaf in snapshot.leaves(SESSIONS):
                for key, value in leaf:
                    lsn = int.from_bytes(key, "big")
                    summaries[lsn] = Summary.decode(lsn, value)
            entries = snapshot.tree(RECORDS).entries
        summed = sum(sum(summary.counts.values()) for summary in summaries.values())
        over = tail.following(found, last)
        if not certain or last + len(over) < self._reached or entries != summed:
            raise CorruptRecord(last, f"the sessions' summary rows do not add up to {entries} records")
        add_records(summaries, over, lambda _: Summary())
        result = []
        for lsn, summary in sorted(summaries.items()):
            begin = self.record(lsn).record
            if not isinstance(begin, RunBegin):
                raise CorruptRecord(lsn, "a session does not start with RunBegin")
            result.append(info(lsn, begin, summary))
        return result


def _consecutive(snapshot: Snapshot, start: int, stop: int) -> tuple[list[tuple[int, bytes]], int]:
    """Records from ``start`` on as far as LMDB has them without a gap, and the LSN after them."""
    batch: list[tuple[int, bytes]] = []
    at = start
    try:
        for leaf in snapshot.leaves(RECORDS, lsn_key(start)):
            for key, data in leaf:
                lsn = int.from_bytes(key, "big")
                if lsn == at and at < stop:
                    batch.append((lsn, data))
                    at += 1
                elif lsn >= start:
                    return batch, at
    except Damage as error:
        raise CorruptRecord(at, str(error)) from None
    return batch, at
