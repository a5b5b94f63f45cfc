"""Entries of a page table read as a whole: large pages many at once, by several threads, to where they stay.

An image is as large as the state of a training, and most of it is large pages that lie one after the other in a
segment.  They are read with `O_DIRECT` in large parts.  The memory of an entry begins at a boundary of the system's
pages, so the disk writes each page to its final place, and no byte is copied.  A thread verifies what it has read
while other threads wait for the disk: neither `os.preadv` nor the hash of a large page holds the GIL.

Only one case is handled here, which is nearly every entry: each of its pages has `PAGE_SIZE` bytes, except the last,
and is found whole.  Any other entry is read again by `entry_bytes`, page by page, which also says what is wrong.  There
are harmless reasons for that too: gc has freed a page that was stored again elsewhere, or the process forked during a
direct read (see open(2)).
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

from florlog_wal import directory, pages, segments
from florlog_wal.btree import Damage
from florlog_wal.deltas import NotADelta
from florlog_wal.environment import Environment
from florlog_wal.errors import CorruptPage, CorruptStore, CorruptValue, Forked, MissingPage, StoreFailed
from florlog_wal.records import PageEntry
from florlog_wal.reused_memory import ReusedMemory, new_block
from florlog_wal.segments import MIN_PAGE_BYTES, Place, rounded
from florlog_wal.tables import PAGE_SIZE, page_digest

READ_BYTES: Final = 8 << 20
"""At most of one read."""
MAX_THREADS: Final = 4
_BATCH_BYTES: Final = 32 << 20  # of entries that are looked up together
_PAGES_AT_ONCE: Final = 64  # small pages and differences that are read under one snapshot
_UNREADABLE: Final = (Damage, NotADelta, CorruptPage, CorruptStore, MissingPage, StoreFailed, OSError)


class _Target(NamedTuple):
    """Where a page goes."""

    blocks: memoryview  # the page, and what is left of its last block
    size: int  # of the page

    @property
    def page(self) -> memoryview:
        return self.blocks[: self.size]


class Reading:
    """Entries that are being read by threads of its own, which end when all is read."""

    def __init__(
        self, env: Environment, entries: Sequence[PageEntry], memory: ReusedMemory | None = None
    ) -> None:
        """``memory``: from where the entries' memory is taken, if it need not be new.

        Raises `Forked`, `TooManyReaders`, `StoreFailed` or MemoryError.
        """
        from concurrent.futures import Future, ThreadPoolExecutor  # which registers hooks for forks

        self._env = env
        self._batches: list[_Batch] = []
        self._begun: list[Future[float]] = []
        self._started = time.perf_counter()
        self._threads = ThreadPoolExecutor(MAX_THREADS, "florlog-read")
        try:
            for some in _batches(entries):  # the first pages are read while the next ones are looked up
                batch = _Batch(env, some, memory)
                self._batches.append(batch)
                self._begun += (self._threads.submit(_until, work) for work in batch.work())
        except BaseException:
            self.cancel()
            raise
        self._threads.shutdown(wait=False)

    def result(self) -> list[memoryview]:
        """Wait for the bytes of each entry, verified.  Raises what `read_entries` raises."""
        if self._env.forked:
            raise Forked(str(self._env.path))  # the threads are the parent's
        try:
            for one in self._begun:
                one.result()
        except BaseException:
            self.cancel()
            raise
        return [memory for batch in self._batches for memory in batch.memory()]

    @property
    def seconds(self) -> float:
        """What reading took, once there is a `result`."""
        return max((one.result() for one in self._begun), default=self._started) - self._started

    def cancel(self) -> None:
        """Wait for the reads that have begun, and begin no others."""
        self._threads.shutdown(cancel_futures=True)


def _until(work: Callable[[], None]) -> float:
    """Work, and when it was done, by `time.perf_counter`."""
    work()
    return time.perf_counter()


def read_entries(env: Environment, entries: Sequence[PageEntry]) -> list[memoryview]:
    """The bytes of each entry, verified, in writable memory of its own.

    Raises `MissingPage` or `CorruptPage`, and `CorruptValue` where an entry's pages have more or fewer bytes than it
    says, for the first entry in order that has such a page.
    """
    return Reading(env, entries).result()


def entry_bytes(get_page: Callable[[bytes], bytes], entry: PageEntry) -> bytearray:
    """The bytes of an entry, page by page; raises `CorruptValue` where they are more or fewer than it says."""
    found = bytearray()
    for digest in entry.pages:
        found += get_page(digest)
        if len(found) > entry.size:
            break
    if len(found) != entry.size:
        raise CorruptValue(f"an entry of {entry.size} bytes whose pages have more or fewer")
    return found


def _batches(entries: Sequence[PageEntry]) -> Iterator[list[PageEntry]]:
    batch: list[PageEntry] = []
    size = 0
    for entry in entries:
        batch.append(entry)
        size += entry.size
        if size >= _BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


class _Batch:
    """Some entries that are looked up together."""

    def __init__(self, env: Environment, entries: Sequence[PageEntry], memory: ReusedMemory | None) -> None:
        self._env = env
        self._entries = entries
        self._from = memory
        self._targets: dict[bytes, list[_Target]] = {}
        self._sound: set[bytes] = set()  # pages that are where they are to go, and verified
        places, others = _look_up(env, entries)
        self._found = [
            self._memory(entry) if _is_regular(entry, places, others) else None for entry in entries
        ]
        self._large = sorted((places[digest], digest) for digest in self._targets if digest in places)
        self._others = [digest for digest in self._targets if digest not in places]

    def work(self) -> Iterator[Callable[[], None]]:
        """What reads the pages, in parts that can be done at the same time."""
        for run in _runs(self._large):
            yield partial(self._read_run, run)
        for at in range(0, len(self._others), _PAGES_AT_ONCE):
            yield partial(self._read_others, self._others[at : at + _PAGES_AT_ONCE])

    def memory(self) -> Iterator[memoryview]:
        """The bytes of each entry, after the work is done."""
        for entry, found in zip(self._entries, self._found, strict=True):
            if found is not None and self._sound.issuperset(entry.pages):
                yield found
            else:
                yield memoryview(entry_bytes(partial(pages.get, self._env), entry))

    def _memory(self, entry: PageEntry) -> memoryview:
        memory = _memory(entry.size, self._from)
        for at, digest in zip(range(0, entry.size, PAGE_SIZE), entry.pages, strict=True):
            target = _Target(memory[at : at + PAGE_SIZE], min(PAGE_SIZE, entry.size - at))
            self._targets.setdefault(digest, []).append(target)
        return memory[: entry.size]

    def _read_run(self, run: Sequence[tuple[Place, bytes]]) -> None:
        """Read large pages that lie one after the other."""
        parts = [self._targets[digest][0].blocks for _, digest in run]
        with suppress(*_UNREADABLE):
            if not _fill(self._env.path.parent, run[0][0], parts):
                return  # new memory is zeros, which would pass for a page of zeros
            for _, digest in run:
                page, *more = (target.page for target in self._targets[digest])
                if page_digest(page) == digest:
                    for other in more:
                        other[:] = page
                    self._sound.add(digest)

    def _read_others(self, some: Sequence[bytes]) -> None:
        """Read small pages and differences."""
        with self._env.read() as snapshot:
            for digest in some:
                with suppress(*_UNREADABLE):
                    data = pages.unverified(self._env, snapshot, digest)
                    if data is None or page_digest(data) != digest:
                        continue
                    targets = self._targets[digest]
                    if all(target.size == len(data) for target in targets):
                        for target in targets:
                            target.page[:] = data
                        self._sound.add(digest)


def _look_up(env: Environment, entries: Iterable[PageEntry]) -> tuple[dict[bytes, Place], set[bytes]]:
    """Where the large pages of the entries lie, and which pages are stored otherwise."""
    places: dict[bytes, Place] = {}
    others: set[bytes] = set()
    with env.read() as snapshot:
        for digest in sorted({digest for entry in entries for digest in entry.pages}):
            with suppress(Damage, ValueError):
                if (row := snapshot.get(pages.PLACES, digest)) is not None:
                    places[digest] = Place.decode(row)
                elif snapshot.has(pages.FULL, digest) or snapshot.has(pages.DELTAS, digest):
                    others.add(digest)
    return places, others


def _is_regular(entry: PageEntry, places: dict[bytes, Place], others: set[bytes]) -> bool:
    """Whether all pages of an entry are stored, and as many as its size asks for."""
    starts = range(0, entry.size, PAGE_SIZE)
    return len(starts) == len(entry.pages) and all(
        digest in others or (digest in places and places[digest].length == min(PAGE_SIZE, entry.size - at))
        for at, digest in zip(starts, entry.pages, strict=True)
    )


def _memory(size: int, reused: ReusedMemory | None) -> memoryview:
    """Memory for an entry, in whole blocks and aligned if it may have a page of a segment."""
    if size < MIN_PAGE_BYTES:
        return memoryview(bytearray(size))
    return memoryview(new_block(rounded(size))) if reused is None else reused.take(size)


def _runs(wanted: Iterable[tuple[Place, bytes]]) -> Iterator[list[tuple[Place, bytes]]]:
    """Pages that lie one after the other, as far as one read takes them."""
    run: list[tuple[Place, bytes]] = []
    for item in wanted:
        place, first = item[0], run[0][0] if run else item[0]
        if run and (
            (place.segment, place.offset) != (first.segment, run[-1][0].end)
            or place.end - first.offset > READ_BYTES
        ):
            yield run
            run = []
        run.append(item)
    if run:
        yield run


def _fill(store: Path, place: Place, parts: Sequence[memoryview]) -> bool:
    """Read from a place on; whether the segment has enough to fill the parts.  Raises OSError or `CorruptStore`."""
    path = store / directory.SEGMENTS / segments.name_of(place.segment)
    try:
        with segments.opened(path, os.O_RDONLY | os.O_DIRECT) as fd:
            return _read_all(fd, place.offset, parts)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
            raise
    with segments.opened(path, os.O_RDONLY) as fd:  # the file system has no direct reads
        return _read_all(fd, place.offset, parts)


def _read_all(fd: int, at: int, parts: Sequence[memoryview]) -> bool:
    left = list(parts)
    if at + sum(part.nbytes for part in left) > os.fstat(fd).st_size:
        return False
    while left and (count := os.preadv(fd, left, at)):
        at += count
        while left and count >= left[0].nbytes:
            count -= left.pop(0).nbytes
        if count:
            left[0] = left[0][count:]
    return not left
