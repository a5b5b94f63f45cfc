"""A full check of a store: every checksum, every reference, every promise the format makes.

It only reads and never repairs: damaged data stays as evidence, and `compact` copies what is whole.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any

from florlog_wal import pages
from florlog_wal.directory import read_end
from florlog_wal.environment import Environment
from florlog_wal.errors import CorruptRecord, CorruptStore, CorruptValue, WalError
from florlog_wal.filecheck import check_structure
from florlog_wal.records import CheckpointBegin, CheckpointEnd, Entry, RunBegin
from florlog_wal.run_log import RunLog
from florlog_wal.sessions import Summary
from florlog_wal.tables import decode_table, page_digest


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that is not as it was written: at an LSN, at a page's digest, or ("") in the whole store."""

    where: int | str
    text: str

    def __str__(self) -> str:
        if not self.where:
            return self.text
        return f"{'LSN' if isinstance(self.where, int) else 'page'} {self.where}: {self.text}"


@dataclass(slots=True)
class VerifyReport:
    """What `verify` found; ``ok`` if there is no problem."""

    problems: list[Problem] = field(default_factory=list)
    records: int = 0
    pages: int = 0
    images: int = 0
    sessions: int = 0

    @property
    def ok(self) -> bool:
        return not self.problems

    def add(self, where: int | str, text: str) -> None:
        self.problems.append(Problem(where, text))

    @property
    def counts(self) -> str:
        """How much was checked."""
        return f"sessions {self.sessions}, records {self.records}, images {self.images}, pages {self.pages}"

    def __str__(self) -> str:
        return "\n".join([*map(str, self.problems), f"{self.counts}, problems {len(self.problems)}"])

    def as_json(self) -> dict[str, Any]:
        """Plain data for `json.dumps`."""
        return {
            "ok": self.ok,
            "problems": [{"where": problem.where, "text": problem.text} for problem in self.problems],
            "records": self.records,
            "pages": self.pages,
            "images": self.images,
            "sessions": self.sessions,
        }


def verify(path: str | os.PathLike[str], *, allow_network: bool = False) -> VerifyReport:
    """Check a store, also while a writer is at work.  Raises only if there is no store to check (`NotAStore`, ...)."""
    report = VerifyReport()
    try:
        store = RunLog.open(path, allow_network=allow_network)
    except CorruptStore as error:  # too damaged to be opened, and that is the finding
        report.add("", str(error))
        return report
    with store:
        _Check(store, report).run()
    return report


class _Check:
    def __init__(self, store: RunLog, report: VerifyReport) -> None:
        self._store, self._report = store, report
        self._summaries: dict[int, Summary] = {}
        self._sessions: dict[int, int] = {}  # LSN -> session, of every record
        self._begins: set[int] = set()
        self._pages: set[bytes] = set()
        self._removed = store._reader.removed()

    def run(self) -> None:
        try:
            read_end(self._store.path)
        except WalError as error:
            self._report.add("", str(error))
        for env in (self._store._log, self._store._pages):
            self._check_structure(env)
        self._check_pages()
        self._check_log()

    def _check_structure(self, env: Environment) -> None:
        try:
            with env.read() as snapshot:
                check_structure(snapshot)
        except WalError as error:
            self._report.add("", str(error))

    def _check_pages(self) -> None:
        for name in pages.DATABASES:
            self._check_pages_of(name)

    def _check_pages_of(self, name: str) -> None:
        last = b""
        while batch := pages.digests(self._store._pages, name, last):
            for digest in batch:
                self._report.pages += 1
                try:
                    page = self._store.get_page(digest)
                    if page_digest(page) == digest:
                        self._pages.add(digest)
                except WalError as error:
                    self._report.add(digest.hex(), str(error))
            last = batch[-1]

    def _check_log(self) -> None:
        first, last = self._store._reader.reach()
        lsn = first
        while lsn <= last:
            try:
                for entry in self._store.scan(lsn, last + 1):
                    lsn = entry.lsn + 1
                    self._check_entry(entry)
                break
            except CorruptRecord as error:
                self._report.add(error.lsn, str(error))
                lsn = error.lsn + 1
        self._check_sessions(last)

    def _check_entry(self, entry: Entry) -> None:
        report = self._report
        report.records += 1
        record = entry.record
        if isinstance(record, RunBegin):
            report.sessions += 1
            if entry.session != entry.lsn:
                report.add(entry.lsn, "a RunBegin inside another session")
        elif entry.session not in self._sessions:
            report.add(entry.lsn, f"its session {entry.session} does not exist")
        # A record that gc removed may still be named: the end of an image by the record after it.
        gone = entry.session if self._was_removed(entry.prev_lsn) else None
        if entry.prev_lsn >= entry.lsn:
            report.add(entry.lsn, f"its previous record {entry.prev_lsn} is not before it")
        elif entry.prev_lsn and self._sessions.get(entry.prev_lsn, gone) != entry.session:
            report.add(entry.lsn, f"its previous record {entry.prev_lsn} is not of its session")
        self._sessions[entry.lsn] = entry.session
        self._summaries.setdefault(entry.session, Summary()).add(entry.lsn, record.TYPE, entry.nbytes)
        loop = getattr(record, "loop", 0)
        if loop and self._sessions.get(loop) is None:
            report.add(entry.lsn, f"its loop {loop} does not exist")
        if isinstance(record, CheckpointBegin):
            self._begins.add(entry.lsn)
        if isinstance(record, CheckpointEnd):
            self._check_image(entry.lsn, record)
        if isinstance(record, RunBegin):
            for name, _, digest in record.sources:
                if digest not in self._pages:
                    report.add(entry.lsn, f"the text of {name} is missing or corrupt")

    def _was_removed(self, lsn: int) -> bool:
        return any(start <= lsn < stop for start, stop in self._removed)

    def _check_image(self, lsn: int, record: CheckpointEnd) -> None:
        report = self._report
        report.images += 1
        if record.begin not in self._begins:
            report.add(lsn, f"its CheckpointBegin {record.begin} does not exist")
        if record.table not in self._pages:
            report.add(lsn, f"its page table {record.table.hex()} is missing or corrupt")
            return
        try:
            table = decode_table(self._store.get_page(record.table))
        except CorruptValue as error:
            report.add(lsn, str(error))
            return
        for name, page_entry in table.items():
            for digest in page_entry.pages:
                if digest not in self._pages:
                    report.add(lsn, f"page {digest.hex()} of {name} is missing or corrupt")

    def _check_sessions(self, last: int) -> None:
        try:
            listed = {info.lsn: info for info in self._store.sessions()}
        except WalError as error:
            self._report.add("", str(error))
            return
        for lsn, summary in self._summaries.items():
            info = listed.get(lsn)
            if info is None:
                self._report.add(lsn, "the session has no summary row")
            elif info.last_lsn <= last and (
                info.last_lsn,
                info.nbytes,
                {cls.TYPE: n for cls, n in info.counts.items()},
            ) != (summary.last_lsn, summary.nbytes, summary.counts):
                self._report.add(lsn, "the session's summary row disagrees with its records")
