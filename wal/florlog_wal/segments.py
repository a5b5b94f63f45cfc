"""Segments: append-only files of large pages, written past the page cache.

A page that goes through LMDB is copied into its memory and from there into the page cache, which costs forty times the
CPU of the write itself.  So large pages lie outside, and LMDB holds only where: keys apart from values, as in WiscKey
(Lu et al., FAST 2016, section 3.3).  Pages that lie one after the other in aligned memory are written from where they
are, with one system call; others go through an aligned buffer.

    a segment    pages one after the other, each at a multiple of `BLOCK_BYTES`; what lies between them is undefined
    a place      segment, offset and length of a page, in the database `places` of the page store

A segment is written by one writer, from its first page on, and never by a later one.  `SegmentWriter.sync` makes the
pages durable, and only then may a transaction name their places.  So whatever a killed writer left behind is named by
nobody, and gc removes it.  Nothing here has a checksum: a page's digest is always checked.

Where the file system refuses `O_DIRECT` (tmpfs, some overlay and FUSE file systems), writes go through the page cache,
which is told to drop them.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import stat
import struct
import threading
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from florlog_wal import directory
from florlog_wal.errors import CorruptStore, StoreFailed

BLOCK_BYTES: Final = 4096
MIN_PAGE_BYTES: Final = 16 << 10
"""Of a page that lies in a segment."""
MAX_SEGMENT_BYTES: Final = 1 << 30
"""No append begins after that."""
MAX_WRITE_BYTES: Final = 8 << 20
_MAX_PARTS: Final = 512  # of one write; Linux takes 1024
_PLACE: Final = struct.Struct(">QQQ")
_PUNCH_HOLE: Final = 0x03  # FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE
_NO_HOLES: Final = frozenset({errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.EPERM})


class Place(NamedTuple):
    """Where a page lies: number of the segment, first byte, length."""

    segment: int
    offset: int
    length: int

    def encode(self) -> bytes:
        """As the database `places` has it."""
        return _PLACE.pack(*self)

    @staticmethod
    def decode(data: bytes) -> Place:
        """Raises ValueError for what is no place."""
        if len(data) != _PLACE.size:
            raise ValueError(f"a place of {len(data)} bytes")
        return Place(*_PLACE.unpack(data))

    @property
    def end(self) -> int:
        """The first block behind the page."""
        return self.offset + rounded(self.length)


class Taken(NamedTuple):
    """What a writer needs of its segment: all from ``end`` on, and the pages before that no transaction names yet."""

    segment: int = 0
    end: int = 0
    unnamed: frozenset[Place] = frozenset()


class SegmentWriter:
    """Appends pages to segments of one store, whose writer lock its owner holds; several threads may use it."""

    def __init__(self, store: Path) -> None:
        self._folder = store / directory.SEGMENTS
        self._lock = threading.Lock()
        self._fd = -1
        self._number = 0  # of the segment that is being written
        self._end = 0
        self._unnamed: set[Place] = set()
        self._direct = True
        self._copy: mmap.mmap | None = None  # where pages lie that do not lie right themselves

    @property
    def direct(self) -> bool:
        """Whether pages are written past the page cache, as far as is known."""
        return self._direct

    @property
    def taken(self) -> Taken:
        """What of the present segment nobody may give back."""
        with self._lock:
            return Taken(self._number, self._end, frozenset(self._unnamed))

    def append(self, pages: Sequence[memoryview]) -> list[Place]:
        """Write pages one after the other; they are durable after `sync`.  Raises OSError; then none of them counts."""
        with self._lock:
            if self._fd < 0 or self._end >= MAX_SEGMENT_BYTES:
                self._begin()
            start, places = self._end, []
            for page in pages:
                places.append(Place(self._number, self._end, page.nbytes))
                self._end = places[-1].end
            try:
                self._write(start, pages)
            except BaseException:
                self._cut(start)
                raise
            self._unnamed.update(places)
            return places

    def sync(self) -> None:
        """Make durable what was appended.  Raises OSError, after which the segment is not written to any more."""
        with self._lock:
            if self._fd >= 0:
                try:
                    os.fdatasync(self._fd)
                except OSError:
                    self._close()  # what of it is durable is unknown
                    raise
                if not self._direct:
                    os.posix_fadvise(self._fd, 0, self._end, os.POSIX_FADV_DONTNEED)

    def named(self, places: Iterable[Place]) -> None:
        """A transaction has named what was appended, or its outcome is unknown."""
        with self._lock:
            self._unnamed.difference_update(places)

    def abandon(self, places: Collection[Place]) -> None:
        """Give back the space of pages that nobody will name, as far as nothing was appended behind them."""
        with self._lock:
            self._unnamed.difference_update(places)
            end = self._end
            for place in sorted(places, reverse=True):
                if (place.segment, place.end) != (self._number, end):
                    break
                end = place.offset
            self._cut(end)

    def _cut(self, end: int) -> None:
        self._end = end
        if self._fd >= 0:
            with suppress(OSError):  # then it stays until gc
                os.ftruncate(self._fd, end)

    def close(self) -> None:
        """End the present segment; a later page begins another one."""
        with self._lock:
            self._close()

    def _close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _begin(self) -> None:
        if self._fd >= 0:
            os.fdatasync(self._fd)
            self._close()
        self._folder.mkdir(exist_ok=True)
        self._number = max(_numbers(self._folder), default=0) + 1
        self._fd = self._open(os.O_CREAT | os.O_EXCL)
        self._end = 0
        directory.sync_directory(self._folder)
        directory.sync_directory(self._folder.parent)

    def _open(self, how: int) -> int:
        flags = os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW | how
        path = self._folder / name_of(self._number)
        if self._direct:
            try:
                return os.open(path, flags | os.O_DIRECT, 0o666)
            except OSError as error:
                if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
                    raise
                self._direct = False
                flags &= ~os.O_EXCL  # it may have been made before it was refused
        return os.open(path, flags, 0o666)

    def _write(self, at: int, pages: Sequence[memoryview]) -> None:
        run: list[memoryview] = []
        size = 0
        for page in pages:
            if not _is_aligned(page):
                at = self._write_copied(self._write_all(at, run), page)
                run, size = [], 0
                continue
            if size + page.nbytes > MAX_WRITE_BYTES or len(run) == _MAX_PARTS:
                at = self._write_all(at, run)
                run, size = [], 0
            run.append(page)
            size += page.nbytes
        self._write_all(at, run)

    def _write_copied(self, at: int, page: memoryview) -> int:
        """Write a page from an aligned copy, filled up to whole blocks; the offset behind it."""
        if self._copy is None:
            self._copy = mmap.mmap(-1, MAX_WRITE_BYTES)
        for begin in range(0, page.nbytes, MAX_WRITE_BYTES):
            part = page[begin : begin + MAX_WRITE_BYTES]
            self._copy[: part.nbytes] = part
            with memoryview(self._copy) as whole, whole[: rounded(part.nbytes)] as blocks:
                at = self._write_all(at, [blocks])
        return at

    def _write_all(self, at: int, parts: Sequence[memoryview]) -> int:
        """Write whole blocks; the offset behind them."""
        left = list(parts)
        while left:
            try:
                written = os.pwritev(self._fd, left, at)
            except OSError as error:
                if not self._direct or error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
                    raise
                self._direct = False  # a file system that took the flag, and refuses it only now
                self._close()
                self._fd = self._open(0)
                continue
            if written <= 0:
                raise OSError(errno.EIO, "nothing was written")
            at += written
            while left and written >= left[0].nbytes:
                written -= left.pop(0).nbytes
            if written:
                left[0] = left[0][written:]
        return at


def rounded(size: int) -> int:
    """So many bytes in whole blocks."""
    return -(-size // BLOCK_BYTES) * BLOCK_BYTES


def _is_aligned(page: memoryview) -> bool:
    """Whether a page begins at a boundary of blocks in memory, and consists of blocks."""
    if page.nbytes % BLOCK_BYTES:
        return False
    address: int = np.frombuffer(page, np.uint8).__array_interface__["data"][0]
    return address % BLOCK_BYTES == 0


# -- reading ------------------------------------------------------------------------------------------


def read(store: Path, place: Place) -> bytes | None:
    """The bytes at a place, unverified; None where the segment is gone or ends before."""
    try:
        with opened(store / directory.SEGMENTS / name_of(place.segment), os.O_RDONLY) as fd:
            if place.offset + place.length > os.fstat(fd).st_size:
                return None
            return os.pread(fd, place.length, place.offset)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise StoreFailed(str(store / directory.SEGMENTS), error.strerror or str(error)) from None


@contextmanager
def opened(path: Path, how: int) -> Iterator[int]:
    """A segment, open.  Raises `CorruptStore` for what is no plain file: it could lead anywhere."""
    try:
        fd = os.open(path, how | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise CorruptStore(str(path), "it is a link") from None
        raise
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise CorruptStore(str(path), "it is no plain file")
        yield fd
    finally:
        os.close(fd)


# -- files and space ----------------------------------------------------------------------------------


def name_of(number: int) -> str:
    """The name of a segment's file."""
    return f"{number:08d}"


def numbers(store: Path) -> list[int]:
    """The segments that there are, in order."""
    return sorted(_numbers(store / directory.SEGMENTS))


def _numbers(folder: Path) -> Iterator[int]:
    try:
        names = os.listdir(folder)  # noqa: PTH208
    except (FileNotFoundError, NotADirectoryError):
        return
    for name in names:
        if name.isascii() and name.isdigit() and name == name_of(int(name)):
            yield int(name)


def free(store: Path, live: Iterable[Place], taken: Taken) -> None:
    """Give the space of all but the ``live`` places back: whole files, ends of files, and holes where there can be any.

    The transaction that removed the other places is durable.  ``taken`` is what the writer had taken before ``live``
    was read.
    """
    by_segment: dict[int, list[Place]] = {}
    for place in (*live, *taken.unnamed):
        by_segment.setdefault(place.segment, []).append(place)
    folder = store / directory.SEGMENTS
    for number in numbers(store):
        path = folder / name_of(number)
        written = number == taken.segment
        if number not in by_segment and not written:
            path.unlink(missing_ok=True)
            continue
        with opened(path, os.O_RDWR) as fd:
            at, holes = 0, True
            for place in sorted(by_segment.get(number, ())):
                holes = holes and _punch(fd, at, place.offset)
                at = max(at, place.end)
            if written:
                _punch(fd, at, taken.end)
            elif at < os.fstat(fd).st_size:
                os.ftruncate(fd, at)


def _punch(fd: int, start: int, stop: int) -> bool:
    """Make a hole; whether the file system can."""
    if stop <= start:
        return True
    if _libc().fallocate(fd, _PUNCH_HOLE, start, stop - start) == 0:
        return True
    if ctypes.get_errno() in _NO_HOLES:
        return False
    raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


@cache
def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
    return libc
