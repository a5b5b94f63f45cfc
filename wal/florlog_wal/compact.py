"""A copy of a run without the space that gc freed, and on request without damaged records and pages.

The copy keeps every LSN, so references by LSN stay valid.  The summary rows are made anew from the records.  The
manifest, which makes the target a run, is written last: a copy that was cut off is not a run.

A run that is being written to is copied up to its last record at the start.  The pages that these records need are
stored before, and are copied before the records: an image that its writer drops meanwhile loses its record first.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from florlog_wal import directory, environment, log, pages
from florlog_wal.codec import check, lsn_key
from florlog_wal.directory import WriterLock
from florlog_wal.environment import Environment
from florlog_wal.errors import CorruptPage, CorruptRecord, MissingPage
from florlog_wal.records import RunBegin
from florlog_wal.run_log import RunLog
from florlog_wal.segments import SegmentWriter

_BATCH_RECORDS: Final = 20_000  # in one transaction
_BATCH_PAGES: Final = 200


@dataclass(slots=True)
class CompactReport:
    """What was copied, and what could not be (with ``salvage``)."""

    records: int = 0
    pages: int = 0
    lost_records: int = 0
    lost_pages: int = 0

    def add(self, other: CompactReport) -> None:
        """Count what was copied of another log."""
        for name in self.__slots__:
            setattr(self, name, getattr(self, name) + getattr(other, name))


def compact(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    salvage: bool = False,
    allow_network: bool = False,
) -> CompactReport:
    """Copy a run with its answers into a new directory; with ``salvage`` damaged records and pages are left out.

    Raises `FileExistsError` for a target that is a run, and without ``salvage`` `CorruptRecord`, `CorruptPage` or
    `MissingPage` at the first damage.
    """
    report = CompactReport()
    where = Path(target).absolute()
    if not allow_network:
        directory.refuse_network(where)
    with RunLog.open(source, allow_network=allow_network) as store:
        directory.make_directory(where)
        lock = WriterLock(where)
        try:
            if not directory.clear_unfinished(where):
                raise FileExistsError(f"{where} holds a run already: give a new directory")
            to_log = log.acquire(where, log.INITIAL_MAP_BYTES, writable=True, create=True)
            to_pages = pages.acquire(where, pages.INITIAL_MAP_BYTES, writable=True, create=True)
            writer = SegmentWriter(where)
            try:
                last = (store._reader.reach() if salvage else store._reader.range())[1]
                _copy_pages(store, to_pages, writer, report, salvage)
                _copy_log(store, to_log, report, last, salvage)
                if (store.path / directory.ANSWERS / directory.MANIFEST).exists():
                    report.add(
                        compact(
                            store.path / directory.ANSWERS,
                            where / directory.ANSWERS,
                            salvage=salvage,
                            allow_network=True,
                        )
                    )
                directory.sync_new(where)
                directory.write_manifest(where, directory.RUN)
            finally:
                writer.close()
                environment.release(to_log)
                environment.release(to_pages)
        finally:
            lock.release()
    return report


def _copy_log(store: RunLog, to: Environment, report: CompactReport, last: int, salvage: bool) -> None:
    batch: dict[int, bytes] = {}
    lost: list[int] = []
    missing: list[tuple[int, int]] = []  # removed before, or meanwhile; what is lost would have been noticed
    at = 1
    for lsn, data in _records(store, lost, last, salvage):
        missing += [(at, lsn)] if at < lsn else []
        at = lsn + 1
        batch[lsn] = data
        if len(batch) == _BATCH_RECORDS:
            _put_records(to, batch)
            batch = {}
        report.records += 1
    _put_records(to, batch)
    report.lost_records = len(lost)
    missing += [(at, last + 1)] if at <= last else []
    to.write(lambda txn: log.note_removed(to, txn, missing))


def _records(store: RunLog, lost: list[int], last: int, salvage: bool) -> Iterator[tuple[int, bytes]]:
    """The stored records.  LSNs of damaged ones, and of all of a session without its RunBegin, go to ``lost``."""
    at = 1
    sessions: set[int] = set()
    while at <= last:
        try:
            for lsn, data in store._reader.stored(at, last + 1):
                at = lsn
                kind, session, _ = check(lsn, data)
                if kind == RunBegin.TYPE:
                    sessions.add(lsn)
                if (session or lsn) in sessions:
                    yield lsn, data
                else:
                    lost.append(lsn)
                at = lsn + 1
            return
        except CorruptRecord as error:
            if not salvage:
                raise
            lost.append(max(error.lsn, at))
            at = lost[-1] + 1


def _put_records(to: Environment, batch: dict[int, bytes]) -> None:
    def work(txn: Any) -> None:
        with txn.cursor(to.dbs[log.RECORDS]) as cursor:
            cursor.putmulti([(lsn_key(lsn), data) for lsn, data in batch.items()], append=True)
        log.add_to_summaries(to, txn, batch)

    to.write(work)


def _copy_pages(
    store: RunLog, to: Environment, writer: SegmentWriter, report: CompactReport, salvage: bool
) -> None:
    """Copy the pages of segments, then the other full ones and the differences in their stored form."""
    for name in (pages.PLACES, pages.FULL, pages.DELTAS):
        last = b""
        while batch := pages.digests(store._pages, name, last, _BATCH_PAGES):
            whole: list[tuple[bytes, bytes]] = []
            for digest in batch:
                try:
                    page = store.get_page(digest)
                    kept = page if name == pages.PLACES else pages.stored(store._pages, name, digest)
                    whole.append((digest, kept))
                except (CorruptPage, MissingPage):
                    if salvage:
                        report.lost_pages += 1
                    elif pages.has(store._pages, digest):  # else its writer has dropped it meanwhile
                        raise
            if name == pages.PLACES:
                pages.put(to, writer, [page for _, page in whole])
            else:
                to.write(partial(_put_pages, whole, to.dbs[name]))
            report.pages += len(whole)
            last = batch[-1]


def _put_pages(whole: list[tuple[bytes, bytes]], db: Any, txn: Any) -> None:
    for digest, data in whole:
        txn.put(digest, data, db=db)
