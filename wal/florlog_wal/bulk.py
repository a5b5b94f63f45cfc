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
import mmap
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Final, NamedTuple

from florlog_wal import directory, pages, segments
from florlog_wal.btree import Damage
from florlog_wal.deltas import NotADelta
from florlog_wal.environment import Environment
from florlog_wal.errors import CorruptPage, CorruptStore, CorruptValue, MissingPage, StoreFailed
from florlog_wal.records import PageEntry
from florlog_wal.segments import MIN_PAGE_BYTES, Place
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


def read_entries(env: Environment, entries: Sequence[PageEntry]) -> list[memoryview]:
    """The bytes of each entry, verified, in writable memory of its own.

    Raises `MissingPage` or `CorruptPage`, and `CorruptValue` where an entry's pages have more or fewer bytes than it
    says, for the first entry in order that has such a page.
    """
    batches: list[_Batch] = []
    from concurrent.futures import Future, ThreadPoolExecutor  # which registers hooks for forks

    begun: list[Future[None]] = []
    with ThreadPoolExecutor(MAX_THREADS, "florlog-read") as threads:
        try:
            for some in _batches(entries):  # the first pages are read while the next ones are looked up
                batches.append(_Batch(env, some))
                begun += map(threads.submit, batches[-1].work)
            for one in begun:
                one.result()
        except BaseException:
            threads.shutdown(cancel_futures=True)
            raise
    return [memory for batch in batches for memory in batch.memory()]


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
    """Some entries that are looked up together; ``work`` reads their pages."""

    def __init__(self, env: Environment, entries: Sequence[PageEntry]) -> None:
        self._env = env
        self._entries = entries
        self._targets: dict[bytes, list[_Target]] = {}
        self._sound: set[bytes] = set()  # pages that are where they are to go, and verified
        places, others = _look_up(env, entries)
        self._found = [
            self._memory(entry) if _is_regular(entry, places, others) else None for entry in entries
        ]
        large = sorted((places[digest], digest) for digest in self._targets if digest in places)
        rest = (digest for digest in self._targets if digest not in places)
        self.work: list[Callable[[], None]] = [partial(self._read_run, run) for run in _runs(large)]
        while some := list(islice(rest, _PAGES_AT_ONCE)):
            self.work.append(partial(self._read_others, some))

    def memory(self) -> Iterator[memoryview]:
        """The bytes of each entry, after the work is done."""
        for entry, found in zip(self._entries, self._found, strict=True):
            if found is not None and self._sound.issuperset(entry.pages):
                yield found
            else:
                yield memoryview(entry_bytes(partial(pages.get, self._env), entry))

    def _memory(self, entry: PageEntry) -> memoryview:
        memory = _memory(entry.size)
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
        for digest in dict.fromkeys(digest for entry in entries for digest in entry.pages):
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


def _memory(size: int) -> memoryview:
    """Memory for an entry, in whole blocks and aligned if it may have a page of a segment."""
    if size < MIN_PAGE_BYTES:
        return memoryview(bytearray(size))
    try:
        memory = mmap.mmap(-1, segments.rounded(size), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except OSError as error:
        raise MemoryError(f"no memory for {size} bytes: {error.strerror}") from None
    with suppress(OSError):  # a kernel without them
        memory.madvise(mmap.MADV_HUGEPAGE)  # so that most of the time is not spent on page faults
    return memoryview(memory)


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
