"""A store: one directory that holds the logs and pages of many runs.

Opened for writing it holds the store's lock, has moved a killed writer's tail into the log, and appends;
opened for reading it changes nothing, and lays the valid frames of the tail over what LMDB has.  Reading
works in both modes, beside a live writer, after a kill, and on read-only media.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Collection, Iterator, Sequence
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal

from florlog_wal import directory, environment, log, pages
from florlog_wal.codec import encode_body
from florlog_wal.columns import Batch
from florlog_wal.directory import LockHolder, WriterLock
from florlog_wal.errors import Forked, LogStopped, PagesFailed, ReadOnlyStore, StoreClosed, StoreFailed
from florlog_wal.lineage import Lineage
from florlog_wal.pages import PutResult
from florlog_wal.reader import LogReader
from florlog_wal.records import CheckpointEnd, Commit, Entry, Record, RunEnd
from florlog_wal.sessions import SessionInfo
from florlog_wal.writer import CommitFields, LogWriter

_DURABLE_TYPES: Final = frozenset({Commit, CheckpointEnd, RunEnd})
_stores: weakref.WeakSet[Store] = weakref.WeakSet()


class Store:
    """A store directory, open.  Make one with `Store.open`; use it as a context manager or `close` it."""

    def __init__(
        self, path: Path, writable: bool, durability: str, window: float, log_map: int, page_map: int
    ) -> None:
        self.path = path
        self.durable_commits = durability == "sync"
        """Whether `commit` returns when its record would survive a power cut."""
        self._lock: WriterLock | None = None
        self._writer: LogWriter | None = None
        self._closed = self._forked = False
        fresh = False
        if writable:
            directory.make_directory(path)
            self._lock = WriterLock(path)
        held: list[environment.Environment] = []
        try:
            if writable:
                fresh = directory.clear_unfinished(path)
            if not fresh:
                directory.read_manifest(path)
            self._log = log.acquire(path, log_map, writable=writable, create=fresh)
            held.append(self._log)
            self._pages = pages.acquire(path, page_map, writable=writable, create=fresh)
            held.append(self._pages)
            if fresh:
                directory.write_manifest(path)
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
        # A store that is dropped, or still open when the interpreter ends, is closed all the same.
        self._finalizer = weakref.finalize(self, _close, self._writer, tuple(held), self._lock)
        _watch_forks()
        _stores.add(self)

    @staticmethod
    def open(
        path: str | os.PathLike[str],
        *,
        mode: Literal["r", "w"] = "r",
        durability: Literal["group", "sync"] = "group",
        window: float = 0.020,
        allow_network: bool = False,
        log_map_size: int = log.MAP_SIZE,
        page_map_size: int = pages.MAP_SIZE,
    ) -> Store:
        """Open a store; mode "w" makes it if it is missing.

        With durability "group" a record survives kill -9 on return of `append`, and a power cut once the
        group commit has taken it, ``window`` seconds later; with "sync", `append` of a Commit, CheckpointEnd
        or RunEnd returns when it would survive a power cut.
        """
        if mode not in ("r", "w"):
            raise ValueError(f'mode is {mode!r}: give "r" or "w"')
        if durability not in ("group", "sync"):
            raise ValueError(f'durability is {durability!r}: give "group" or "sync"')
        where = Path(path).absolute()
        if not allow_network:
            directory.refuse_network(where)
        return Store(where, mode == "w", durability, window, log_map_size, page_map_size)

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Commit what is left and let go of everything.  Raises `LogStopped` if records stay in the tail."""
        self._closed = True
        error = self._finalizer()
        if error is not None:
            raise error

    def writer(self) -> LockHolder | None:
        """Who writes to the store now, this process included; None if nobody."""
        return directory.lock_holder(self.path)

    # -- writing -----------------------------------------------------------------------------------

    def append(self, record: Record, *, session: int = 0, prev: int = 0) -> int:
        """Append a record and return its LSN; session 0 is for a RunBegin, which starts its own."""
        writer = self._writer
        if writer is None or self._closed:
            raise self._unusable()
        lsn = writer.append(encode_body(record, session, prev))
        if self.durable_commits and type(record) in _DURABLE_TYPES:
            writer.sync(lsn)
        return lsn

    def commit(self, session: int, held: list[CommitFields | None], count: int | None = None) -> None:
        """`append` of commits that are the first records of their iterations, given their fields.

        The first ``count`` (default: all) are taken out of the list.  After an exception, also one that a signal
        handler raised, those that were appended are None in it, and calling again appends the others.
        """
        writer = self._writer
        if writer is None or self._closed:
            raise self._unusable()
        writer.commit(session, held, len(held) if count is None else count)
        if self.durable_commits:
            writer.sync()

    def sync(self) -> int:
        """Wait until everything appended is durable; the last durable LSN."""
        if self._writer is None or self._closed:
            raise self._unusable()
        return self._writer.sync()

    @property
    def failure(self) -> str | None:
        """Why the last group commit failed, while it is being tried again; None when all is well."""
        return None if self._writer is None else self._writer.failure

    def put_pages(
        self,
        buffers: Sequence[Any],
        *,
        lineages: Sequence[Lineage | None] | None = None,
        previous: Sequence[Any] | None = None,
    ) -> PutResult:
        """Store pages (objects with a contiguous buffer), durable on return; equal pages are stored once.

        ``lineages`` has for each page the `Lineage` of its tensor, or None.  A tensor's pages are given
        together, all of them and in order; where it saves half the space at least, a page is stored as a
        difference from the one that it replaces.  ``previous`` has the bytes of the pages replaced, as far as
        the caller still holds them, so that they need not be read; they may change meanwhile.

        Raises `PagesFailed` when the disk refuses them.  The log goes on: leave the image out, and try the
        next.
        """
        if self._writer is None or self._closed:
            raise self._unusable()
        try:
            return pages.put(self._pages, buffers, lineages, previous)
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
        """The last LSN that a power cut would leave."""
        self._check()
        return log.last_durable(self._log) if self._writer is None else self._writer.durable_lsn

    def record(self, lsn: int) -> Entry:
        """The record at an LSN."""
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
        """The records with start <= LSN < stop (default: to the end as it is now), in order of LSN.

        Works in batches of short transactions, so a slow consumer holds nothing back in the store.
        """
        self._check()
        return self._reader.scan(start, stop, types, session, reverse)

    def batches(
        self, start: int = 1, stop: int | None = None, *, session: int | None = None
    ) -> Iterator[Batch]:
        """The same records as `scan` gives, with the commits of each batch by column: for tables of values."""
        self._check()
        return self._reader.batches(start, stop, session)

    def sessions(self) -> list[SessionInfo]:
        """All sessions, oldest first, from their summary rows."""
        self._check()
        return self._reader.sessions()

    def get_page(self, digest: bytes) -> bytes:
        """The page of a digest, verified."""
        self._check()
        return pages.get(self._pages, digest)

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
        """In a forked child: the parent's store is not ours."""
        self._forked = True
        self._finalizer.detach()
        self._writer = None
        if self._lock is not None:
            self._lock.release()


def _close(
    writer: LogWriter | None, held: tuple[environment.Environment, ...], lock: WriterLock | None
) -> LogStopped | None:
    """Close a store's parts, once; what went wrong is returned, since at exit nobody could catch it."""
    error = None
    try:
        if writer is not None:
            writer.close()
    except LogStopped as stopped:
        error = stopped
    finally:
        for env in held:
            environment.release(env)
        if lock is not None:
            lock.release()
    return error


@cache
def _watch_forks() -> None:
    """Let forked children disown the stores: from the first that is opened on."""
    os.register_at_fork(after_in_child=_disown_all)


def _disown_all() -> None:
    for store in _stores:
        store._disown()
