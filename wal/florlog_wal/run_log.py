"""The log and the pages of one run, in a directory of its own.

One that is open for writing holds the directory's lock, has moved a killed writer's tail into the log, and can
append.  One that is open for reading changes nothing; it reads LMDB, then the valid frames of the tail.  Reading
works in both modes, while a writer is at work, after a kill, and on read-only media.
"""

from __future__ import annotations

import errno
import os
import time
import weakref
from collections.abc import Collection, Iterator, Sequence
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal

from florlog_wal import bulk, directory, environment, log, pages
from florlog_wal.bulk import Reading
from florlog_wal.codec import encode_body
from florlog_wal.columns import Batch
from florlog_wal.directory import LockHolder, WriterLock
from florlog_wal.errors import (
    Forked,
    LogStopped,
    NotAStore,
    PagesFailed,
    ReadOnlyStore,
    RunLocked,
    StoreClosed,
    StoreFailed,
)
from florlog_wal.lineage import Lineage
from florlog_wal.pages import PutResult
from florlog_wal.reader import LogReader
from florlog_wal.records import CheckpointEnd, Commit, Entry, PageEntry, Record, RunEnd
from florlog_wal.reused_memory import ReusedMemory
from florlog_wal.segments import SegmentWriter
from florlog_wal.sessions import SessionInfo
from florlog_wal.writer import CommitFields, LogWriter

_DURABLE_TYPES: Final = frozenset({Commit, CheckpointEnd, RunEnd})
_POLL_SECONDS: Final = 0.02
_logs: weakref.WeakSet[RunLog] = weakref.WeakSet()


class RunLog:
    """A run's directory, open.  Make one with `RunLog.open`; use it as a context manager or `close` it."""

    def __init__(
        self, path: Path, mode: str, durability: str, window: float, log_map: int, page_map: int
    ) -> None:
        writable = mode != "r"
        self.path = path
        self.durable_commits = durability == "sync"
        """Whether `commit` returns when its record would survive a power cut."""
        self._lock: WriterLock | None = None
        self._writer: LogWriter | None = None
        self._closed = self._forked = False
        self._answers: RunLog | None = None
        fresh = False
        if writable:
            self._lock = _locked(path, make=mode != "r+")
        else:
            directory.check_files(path)
        held: list[environment.Environment] = []
        try:
            if mode in ("w", "x"):
                fresh = directory.clear_unfinished(path)
            if not fresh:
                if mode == "x":
                    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
                directory.read_manifest(path, directory.RUN)
            self._log = log.acquire(path, log_map, writable=writable, create=fresh)
            held.append(self._log)
            self._pages = pages.acquire(path, page_map, writable=writable, create=fresh)
            held.append(self._pages)
            if fresh:
                directory.sync_new(path)
                directory.write_manifest(path, directory.RUN)
            self._segments = SegmentWriter(path)
            self._reader = LogReader(self._log, path)
            if writable:
                log.check_end(self._log, path)
                self._writer = LogWriter(self._log, path, window)
        except BaseException:
            for env in held:
                environment.release(env)
            if self._lock is not None:
                self._lock.release()
            raise
        # Closes a store that is dropped, or still open when the interpreter ends.
        self._finalizer = weakref.finalize(
            self, _close, self._writer, self._segments, tuple(held), self._lock
        )
        _watch_forks()
        _logs.add(self)

    @staticmethod
    def open(
        path: str | os.PathLike[str],
        *,
        mode: Literal["r", "r+", "w", "x"] = "r",
        durability: Literal["group", "sync"] = "group",
        window: float = 0.020,
        allow_network: bool = False,
        log_map_size: int = log.INITIAL_MAP_BYTES,
        page_map_size: int = pages.INITIAL_MAP_BYTES,
    ) -> RunLog:
        """Open a run's directory: for reading ("r"); for writing, and it exists ("r+"), is new ("x"), or either ("w").

        With durability "group" a record survives kill -9 when `append` has returned, and a power cut after the
        group commit, ``window`` seconds later.  With "sync", `append` of a Commit, CheckpointEnd or RunEnd returns
        when the record would survive a power cut.  The map sizes are bytes to begin with; maps grow as needed.

        Raises `NotAStore`, `UnsupportedFormat`, `CorruptStore`, `CorruptRecord`, `NetworkFilesystem`,
        `TooManyReaders`, `Forked`, for writing `RunLocked`, and with mode "x" `FileExistsError`.
        """
        if mode not in ("r", "r+", "w", "x"):
            raise ValueError(f'mode is {mode!r}: give "r", "r+", "w" or "x"')
        if durability not in ("group", "sync"):
            raise ValueError(f'durability is {durability!r}: give "group" or "sync"')
        where = Path(path).absolute()
        if not allow_network:
            directory.refuse_network(where)
        return RunLog(where, mode, durability, window, log_map_size, page_map_size)

    def __enter__(self) -> RunLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Commit what is left and release everything.  Raises `LogStopped` if records stay in the tail."""
        self._closed = True
        if self._answers is not None:
            self._answers.close()
        error = self._finalizer()
        if error is not None:
            raise error

    def writer(self) -> LockHolder | None:
        """Who writes to the log now (this process counts too); None if nobody does."""
        return directory.lock_holder(self.path)

    @property
    def answers(self) -> RunLog | None:
        """What replays found, for reading; None as long as nothing was found.

        It is a log of its own, because a replay stores its values also while the run is being recorded.  Raises what
        `open` does.
        """
        self._check()
        if self._answers is None and (self.path / directory.ANSWERS / directory.MANIFEST).exists():
            self._answers = RunLog.open(self.path / directory.ANSWERS, allow_network=True)
        return self._answers

    def open_answers(self, *, patience: float = 10.0) -> RunLog:
        """The log of what replays found, for writing; waits ``patience`` seconds for another one that writes.

        Raises `RunLocked` after that, and what `open` does.
        """
        self._check()
        end = time.monotonic() + patience
        while True:
            try:
                return RunLog.open(self.path / directory.ANSWERS, mode="w", allow_network=True)
            except RunLocked:
                if time.monotonic() > end:
                    raise
                time.sleep(_POLL_SECONDS)

    # -- writing -----------------------------------------------------------------------------------

    def append(self, record: Record, *, session: int = 0, prev: int = 0) -> int:
        """Append a record and return its LSN; session 0 is for a RunBegin, which starts its own.

        Raises `Unencodable` (then no LSN is used), `LogStopped`, `ReadOnlyStore`, `StoreClosed` or `Forked`.
        """
        writer = self._writer
        if writer is None or self._closed:
            raise self._unusable()
        lsn = writer.append(encode_body(record, session, prev))
        if self.durable_commits and type(record) in _DURABLE_TYPES:
            writer.sync(lsn)
        return lsn

    def commit(self, session: int, held: list[CommitFields], count: int | None = None) -> None:
        """`append` of commits, given by their fields, that are the first records of their iterations.

        The first ``count`` (default: all) are removed from the list.  After an exception, also one that a signal
        handler raised, it has those that were not appended, for another call.
        """
        writer = self._writer
        if writer is None or self._closed:
            raise self._unusable()
        writer.commit(session, held, len(held) if count is None else count)
        if self.durable_commits:
            writer.sync()

    def sync(self) -> int:
        """Wait until everything appended is durable; the last durable LSN.  Raises `LogStopped` if a commit fails."""
        if self._writer is None or self._closed:
            raise self._unusable()
        return self._writer.sync()

    @property
    def direct(self) -> bool:
        """Whether this writer's large pages go past the page cache, as far as is known."""
        return self._segments.direct

    @property
    def failure(self) -> str | None:
        """Why the last group commit failed, while it is being tried again; otherwise None."""
        return None if self._writer is None else self._writer.failure

    def put_pages(
        self,
        buffers: Sequence[Any],
        *,
        lineages: Sequence[Lineage | None] | None = None,
        previous: Sequence[Any] | None = None,
    ) -> PutResult:
        """Store pages (objects with a contiguous buffer), durable on return; equal pages are stored once.

        ``lineages`` has for each page the `Lineage` of its tensor, or None.  Give all pages of a tensor together
        and in order.  A page is stored as its difference from the page that it replaces if that saves enough (see
        `deltas`).  ``previous`` has the bytes of the replaced pages, where the caller still holds them (elsewhere
        None), so that they need not be read.  These bytes may change during the call.

        Raises `PagesFailed` if the disk refuses the pages.  The log goes on: leave the image out, and try the next.
        """
        if self._writer is None or self._closed:
            raise self._unusable()
        try:
            return pages.put(self._pages, self._segments, buffers, lineages, previous)
        except pages.FAILURES as error:
            pages.recover(self._pages)
            reason = error.reason if isinstance(error, StoreFailed) else str(error)
            raise PagesFailed(str(self.path), reason or type(error).__name__) from None

    # -- reading -----------------------------------------------------------------------------------

    @property
    def last_lsn(self) -> int:
        """The last record's LSN; 0 in an empty log."""
        self._check()
        return self._reader.range()[1] if self._writer is None else self._writer.last_lsn

    @property
    def durable_lsn(self) -> int:
        """The last LSN that would survive a power cut."""
        self._check()
        return log.last_durable(self._log) if self._writer is None else self._writer.durable_lsn

    def record(self, lsn: int) -> Entry:
        """The record at an LSN.  Raises `NoSuchRecord` or `CorruptRecord`."""
        self._check()
        return self._reader.record(lsn)

    def scan(
        self,
        start: int = 1,
        stop: int | None = None,
        *,
        types: Collection[type[Record]] | None = None,
        session: int | None = None,
        reverse: bool = False,
    ) -> Iterator[Entry]:
        """The records with start <= LSN < stop (default: up to the present end), in order of LSN.

        Reads batches in short transactions, so a slow consumer does not keep pages from being reused.  Raises
        `CorruptRecord` when it comes to a damaged record.
        """
        self._check()
        return self._reader.scan(start, stop, types, session, reverse)

    def batches(
        self, start: int = 1, stop: int | None = None, *, session: int | None = None
    ) -> Iterator[Batch]:
        """The records that `scan` gives, with the commits of each batch by column: for tables of values."""
        self._check()
        return self._reader.batches(start, stop, session)

    def sessions(self) -> list[SessionInfo]:
        """All sessions, oldest first, from their summary rows."""
        self._check()
        return self._reader.sessions()

    def get_page(self, digest: bytes) -> bytes:
        """The page of a digest, verified.  Raises `MissingPage` or `CorruptPage`."""
        self._check()
        return pages.get(self._pages, digest)

    def read_entries(self, entries: Sequence[PageEntry]) -> list[memoryview]:
        """The bytes of entries of a page table, verified, each in writable memory of its own: the fast way to an image.

        Raises `MissingPage` or `CorruptPage` for the first page in order that is not as it was stored, and
        `CorruptValue` for an entry whose pages have more or fewer bytes than it says.
        """
        self._check()
        return bulk.read_entries(self._pages, entries)

    def begin_reading(self, entries: Sequence[PageEntry], memory: ReusedMemory | None = None) -> Reading:
        """Begin to do what `read_entries` does, into memory that may be used again; `Reading.result` waits for it.

        A page that is damaged or missing is reported by the result.
        """
        self._check()
        return Reading(self._pages, entries, memory)

    def has_page(self, digest: bytes) -> bool:
        """Whether a page is stored."""
        self._check()
        return pages.has(self._pages, digest)

    # -- not usable --------------------------------------------------------------------------------

    def _check(self) -> None:
        if self._closed or self._forked:
            raise self._unusable()

    def _unusable(self) -> Exception:
        if self._forked:
            return Forked(str(self.path))
        if self._closed:
            return StoreClosed(str(self.path))
        return ReadOnlyStore(str(self.path))

    def _disown(self) -> None:
        """In a forked child: the store belongs to the parent."""
        self._forked = True
        self._finalizer.detach()
        self._writer = None
        if self._lock is not None:
            self._lock.release()


def _locked(path: Path, *, make: bool) -> WriterLock:
    """The writer's lock of a directory, which is made if it is missing.  Raises `NotAStore` or `RunLocked`."""
    while True:
        if make:
            directory.make_directory(path)
        directory.check_files(path)
        try:
            return WriterLock(path)
        except FileNotFoundError:
            if not make:
                raise NotAStore(str(path), "there is nothing") from None
            # a sweep has removed it just now


def _close(
    writer: LogWriter | None,
    segments: SegmentWriter,
    held: tuple[environment.Environment, ...],
    lock: WriterLock | None,
) -> LogStopped | None:
    """Close a store's parts, once.  An error is returned, because at exit nobody could catch it."""
    error = None
    try:
        if writer is not None:
            writer.close()
    except LogStopped as stopped:
        error = stopped
    finally:
        segments.close()
        for env in held:
            environment.release(env)
        if lock is not None:
            lock.release()
    return error


@cache
def _watch_forks() -> None:
    """Let forked children disown the stores, from the first store that is opened on."""
    os.register_at_fork(after_in_child=_disown_all)


def _disown_all() -> None:
    for store in _logs:
        store._disown()
