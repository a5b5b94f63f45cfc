"""Reading the log: the records in LMDB, followed by the valid frames of the tail.

The tail is read before LMDB.  A live writer may move records from the one to the other in between.  Then records
that LMDB has by now are dropped as known, and the rest must follow LMDB's last record without a gap.  If
the writer has refilled a segment in between, they do not; then LMDB has newer records than at first, so both are
read again.

LSNs are dense except for the ranges that gc wrote down.  So a record that the tree does not give is lost, and its
absence is corruption.
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

MAX_BATCH_RECORDS: Final = 1024
MAX_COLUMN_RECORDS: Final = 170
"""Records of one `Batch`.  Each makes two lists; more would set off the garbage collector for every batch."""


class _View(NamedTuple):
    """What the log covers at one moment."""

    last: int  # LSN in LMDB
    certain: bool  # whether everything agrees about it
    in_tail: dict[int, bytes]  # the records after it
    removed: list[tuple[int, int]]

    @property
    def first(self) -> int:
        return self.removed[0][1] if self.removed and self.removed[0][0] == 1 else 1

    @property
    def end(self) -> int:
        return self.last + len(self.in_tail)

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
        self._begins: dict[
            int, RunBegin
        ] = {}  # by LSN: a record never changes, and an LSN is never used again
        self._listed: tuple[tuple[int, int], list[SessionInfo]] = ((-1, 0), [])
        """The sessions as of a transaction and the last LSN in the tail."""
        self._unlisted = log.unlisted(env)
        try:
            self._closed_at = read_end(directory)
        except CorruptStore:
            self._closed_at = 0  # `verify` reports it; everything else can be read without it

    def _tail_records(self) -> dict[int, bytes]:
        """The records of the tail that LMDB was not yet known to have."""
        with self._lock:
            if not self._floor:
                with self._env.read() as snapshot:
                    self._floor = log.extent(snapshot)[0]
            return {**self._unlisted, **self._tail.records_after(self._floor)}

    @property
    def _reached(self) -> int:
        """The last LSN that the log is known to have reached."""
        return max(self._closed_at, self._tail.floor)

    def range(self) -> tuple[int, int]:
        """First and last LSN; (1, 0) for an empty log.  Raises `CorruptRecord` if records are lost at the end."""
        view = self._view()
        if not view.certain:
            raise CorruptRecord(
                view.end, "the log is shorter than it once was, or contradicts itself about its end"
            )
        return view.first, view.end

    def reach(self) -> tuple[int, int]:
        """Like `range`, but of a damaged log too; there the last LSN may be that of a lost record."""
        view = self._view()
        return view.first, view.end

    def removed(self) -> list[tuple[int, int]]:
        """The ranges of LSNs that gc removed."""
        return self._view().removed

    def stored(self, start: int, stop: int) -> Iterator[tuple[int, bytes]]:
        """The stored records of a range that lies within the log, unchecked."""
        while start < stop:
            high = min(stop, start + MAX_BATCH_RECORDS)
            yield from self._batch(start, high)
            start = high

    def _view(self) -> _View:
        while True:
            found = self._tail_records()
            with self._env.read() as snapshot:
                (last, certain), removed = log.extent(snapshot), log.removed_in(snapshot)
            in_tail = tail.following(found, last)
            if last + len(in_tail) < self._reached:
                last, certain, in_tail = self._reached, False, {}
            self._floor = max(self._floor, last)
            if in_tail or not any(lsn > last for lsn in found):
                return _View(last, certain, in_tail, removed)
            with self._env.read() as snapshot:
                again = log.extent(snapshot)[0]
            if again <= last:  # no writer moved on: these come after a torn tail frame
                return _View(last, certain, {}, removed)

    def record(self, lsn: int) -> Entry:
        """The record at an LSN."""
        return decode(lsn, self._stored(lsn))

    def _stored(self, lsn: int) -> bytes:
        if 0 < lsn < 2**63:
            data = self._from_lmdb(lsn)
            if data is not None:
                return data
        view = self._view()
        if lsn in view.in_tail:
            return view.in_tail[lsn]
        if not 0 < lsn <= view.end or view.next_present(lsn) != lsn:
            raise NoSuchRecord(lsn, view.first, view.end)
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
        """See `RunLog.scan`."""
        view = self._view()
        start = max(start, view.first)
        stop = view.end + 1 if stop is None else min(stop, view.end + 1)
        numbers = None if types is None else frozenset(cls.TYPE for cls in types)
        while start < stop:
            if reverse:
                low = max(start, stop - MAX_BATCH_RECORDS)
                batch = self._batch(low, stop)
                batch.reverse()
                stop = low
            else:
                high = min(stop, start + MAX_BATCH_RECORDS)
                batch = self._batch(start, high)
                start = high
            for lsn, data in batch:
                kind, owner, prev = check(lsn, data)
                if (numbers is None or kind in numbers) and (session is None or (owner or lsn) == session):
                    yield decode_checked(lsn, data, kind, owner, prev)

    def batches(self, start: int, stop: int | None, session: int | None) -> Iterator[Batch]:
        """See `RunLog.batches`."""
        view = self._view()
        start = max(start, view.first)
        stop = view.end + 1 if stop is None else min(stop, view.end + 1)
        while start < stop:
            high = min(stop, start + MAX_BATCH_RECORDS)
            stored = self._batch(start, high)
            for at in range(0, len(stored), MAX_COLUMN_RECORDS):
                yield batch_of(stored[at : at + MAX_COLUMN_RECORDS], session)
            start = high

    def _batch(self, start: int, stop: int) -> list[tuple[int, bytes]]:
        """The stored records of a range that lies within the log."""
        with self._env.read() as snapshot:
            batch, at = _consecutive(snapshot, start, stop)
        if at >= stop:
            return batch
        view = self._view()
        while at < stop:
            at = view.next_present(at)
            if at in view.in_tail:
                batch.append((at, view.in_tail[at]))
                at += 1
            elif at <= view.last and at < stop:
                with self._env.read() as snapshot:
                    more, reached = _consecutive(snapshot, at, stop)
                if reached == at:
                    view = self._view()  # a writer may have removed it since
                    if view.next_present(at) == at:
                        raise CorruptRecord(at, "it is missing from the log")
                batch += more
                at = reached
            elif at < stop:
                view = self._view()
        return batch

    def sessions(self) -> list[SessionInfo]:
        """All sessions, oldest first."""
        found = self._tail_records()
        summaries: dict[int, Summary] = {}
        with self._env.read() as snapshot:
            state = snapshot.meta.txn, max(found, default=0)
            listed_at, listed = self._listed
            if state == listed_at:
                return list(listed)
            last, certain = log.extent(snapshot)
            for leaf in snapshot.leaves(SESSIONS):
                for key, value in leaf:
                    lsn = int.from_bytes(key, "big")
                    summaries[lsn] = Summary.decode(lsn, value)
            entries = snapshot.tree(RECORDS).entries
        summed = sum(sum(summary.counts.values()) for summary in summaries.values())
        in_tail = tail.following(found, last)
        if not certain or last + len(in_tail) < self._reached or entries != summed:
            raise CorruptRecord(last, f"the sessions' summary rows do not add up to {entries} records")
        add_records(summaries, in_tail, lambda _: Summary())
        begins = {}
        for lsn in sorted(summaries):
            begin = self._begins.get(lsn) or self.record(lsn).record
            if not isinstance(begin, RunBegin):
                raise CorruptRecord(lsn, "a session does not start with RunBegin")
            begins[lsn] = begin
        self._begins = begins
        listed = [info(lsn, begin, summaries[lsn]) for lsn, begin in begins.items()]
        self._listed = state, listed
        return list(listed)


def _consecutive(snapshot: Snapshot, start: int, stop: int) -> tuple[list[tuple[int, bytes]], int]:
    """The records from ``start`` on that LMDB has without a gap, and the LSN after them."""
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
