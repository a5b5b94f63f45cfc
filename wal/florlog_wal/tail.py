"""The log tail: frames in memory-mapped files, which a killed process leaves behind whole.

LMDB's durable commit takes a millisecond, too long for a training step; LMDB without sync can be corrupted
by a power cut.  So a record first goes into the tail, a copy into mapped memory that the kernel keeps
whatever happens to the process, and a background thread moves it into LMDB with a real sync.

There are two segments.  One is filled while the other is drained; a segment is filled again only after all
it held is durable in LMDB.  A frame is the LSN and the stored record, whose checksum covers the LSN:

    +--------+-----------------------+---------+
    | LSN  8 | record: header 32 + n | pad  <8 |
    +--------+-----------------------+---------+

A segment has no length field to tear: it is read until the first frame that is not valid or not the next
LSN.  What an earlier filling left further on has lower LSNs, so it is never taken for new.

Blocks are allocated before use, because a store into a mapped hole on a full disk is SIGBUS.  Each writer
makes new files (and syncs the directory) before its first append: else frames that an earlier writer's
power cut had torn away could come back from the disk beside newer records of the same LSN.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from florlog_wal.codec import HEADER, HEADER_SIZE, check
from florlog_wal.directory import TAILS, sync_directory
from florlog_wal.errors import CorruptRecord

MAGIC: Final = b"FLORTAIL\x00\x00\x00\x01\x00\x00\x00\x00"  # name, version, reserved
FIRST_FRAME: Final = len(MAGIC)
FRAME_HEAD: Final = 8 + HEADER_SIZE
SEGMENT_SIZE: Final = 4 << 20
_CHUNK: Final = 1 << 16


def frame_size(record_size: int) -> int:
    """Bytes that a record takes in the tail."""
    return (8 + record_size + 7) & ~7


def create(directory: Path, size: int = SEGMENT_SIZE) -> list[mmap.mmap]:
    """Two empty segments in place of whatever was there, durable as names before they are used."""
    maps = []
    for name in TAILS:
        new = directory / f"{name}.new"
        fd = os.open(new, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
        try:
            os.posix_fallocate(fd, 0, size)
            os.pwrite(fd, MAGIC, 0)
            os.fsync(fd)
            maps.append(mmap.mmap(fd, size))
        finally:
            os.close(fd)
        new.rename(directory / name)
    sync_directory(directory)
    return maps


def remove(directory: Path) -> None:
    """Remove drained segments."""
    for name in TAILS:
        (directory / name).unlink(missing_ok=True)


def frames(directory: Path) -> dict[int, bytes]:
    """All records that the segments hold, by LSN; those LMDB has too are among them."""
    found: dict[int, bytes] = {}
    for name in TAILS:
        try:
            fd = os.open(directory / name, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        try:
            found.update(_segment(fd))
        finally:
            os.close(fd)
    return found


def following(found: dict[int, bytes], last: int) -> dict[int, bytes]:
    """Those records that follow ``last`` without a gap."""
    run: dict[int, bytes] = {}
    while (record := found.get(last + 1)) is not None:
        last += 1
        run[last] = record
    return run


def _segment(fd: int) -> Iterator[tuple[int, bytes]]:
    """Read a segment without mapping it, since a file that shrinks under a map is SIGBUS."""
    buffer = os.pread(fd, _CHUNK, 0)
    if not buffer.startswith(MAGIC):
        return
    at, start, expected = FIRST_FRAME, 0, 0
    limit = os.fstat(fd).st_size
    while at + FRAME_HEAD <= limit:
        if at - start + FRAME_HEAD > len(buffer):
            buffer, start = os.pread(fd, _CHUNK, at), at
        if at - start + FRAME_HEAD > len(buffer):
            return
        lsn = int.from_bytes(buffer[at - start : at - start + 8], "big")
        length = HEADER.unpack_from(buffer, at - start + 8)[4]
        size = HEADER_SIZE + length
        if lsn == 0 or (expected and lsn != expected) or at + 8 + size > limit:
            return  # most often a frame of an earlier filling, so reading stops where the new ones do
        if at - start + 8 + size > len(buffer):
            buffer, start = os.pread(fd, max(_CHUNK, 8 + size), at), at
        record = buffer[at - start + 8 : at - start + 8 + size]
        try:
            check(lsn, record)
        except CorruptRecord:
            return
        yield lsn, record
        expected = lsn + 1
        at += frame_size(size)
