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

A segment's head also has a *floor*, the last LSN that was durable in LMDB when the floor was written, under a
checksum.  LMDB's pages have none, so a flipped bit in a killed writer's store may lead to an older, sound
tree: an LMDB that ends before a floor has lost records.  One that misses only the last commit is made good,
since its frames are still in the segment.

Blocks are allocated before use, because a store into a mapped hole on a full disk is SIGBUS.  Each writer
makes new files (and syncs the directory) before its first append: else frames that an earlier writer's
power cut had torn away could come back from the disk beside newer records of the same LSN.
"""

from __future__ import annotations

import mmap
import os
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from florlog_wal.codec import HEADER, HEADER_SIZE, check
from florlog_wal.directory import TAILS, seal, sync_directory
from florlog_wal.errors import CorruptRecord, UnsupportedFormat

NAME: Final = b"FLORTAIL"
VERSION: Final = 2
MAGIC: Final = NAME + VERSION.to_bytes(4, "big") + bytes(4)
_FLOOR_AT: Final = len(MAGIC)
FIRST_FRAME: Final = _FLOOR_AT + 16
FRAME_HEAD: Final = 8 + HEADER_SIZE
SEGMENT_SIZE: Final = 4 << 20
_FRAME: Final = struct.Struct(">Q" + HEADER.format.removeprefix(">"))
_LENGTH: Final = struct.Struct(">Q12xI")  # LSN and length of a frame
_CHUNK: Final = 1 << 16


def frame_size(record_size: int) -> int:
    """Bytes that a record takes in the tail."""
    return (8 + record_size + 7) & ~7


def write_floor(segment: mmap.mmap, lsn: int) -> None:
    """Note that everything up to an LSN is durable in LMDB."""
    segment[_FLOOR_AT:FIRST_FRAME] = _floor(lsn)


def _floor(lsn: int) -> bytes:
    return lsn.to_bytes(8, "big") + seal(MAGIC + lsn.to_bytes(8, "big"))


def _read_floor(head: bytes) -> int:
    """The floor in a segment's head; 0 if it is not whole, as while it is written."""
    lsn = int.from_bytes(head[_FLOOR_AT : _FLOOR_AT + 8], "big")
    return lsn if head[_FLOOR_AT:FIRST_FRAME] == _floor(lsn) else 0


def create(directory: Path, size: int = SEGMENT_SIZE, floor: int = 0) -> list[mmap.mmap]:
    """Two empty segments in place of whatever was there, durable as names before they are used."""
    maps = []
    for name in TAILS:
        new = directory / f"{name}.new"
        fd = os.open(new, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
        try:
            os.posix_fallocate(fd, 0, size)
            os.pwrite(fd, MAGIC + _floor(floor), 0)
            os.fsync(fd)
            maps.append(mmap.mmap(fd, size))
        finally:
            os.close(fd)
        new.rename(directory / name)
    sync_directory(directory)
    return maps


def records(segment: mmap.mmap, stop: int) -> dict[int, bytes]:
    """The records that a writer has put into a segment before an offset."""
    found: dict[int, bytes] = {}
    at = FIRST_FRAME
    while at < stop:
        lsn, length = _LENGTH.unpack_from(segment, at)
        size = HEADER_SIZE + length
        found[lsn] = segment[at + 8 : at + 8 + size]
        at += frame_size(size)
    return found


def remove(directory: Path) -> None:
    """Remove drained segments."""
    for name in TAILS:
        (directory / name).unlink(missing_ok=True)


def following(found: dict[int, bytes], last: int) -> dict[int, bytes]:
    """Those records that follow ``last`` without a gap."""
    run: dict[int, bytes] = {}
    while (record := found.get(last + 1)) is not None:
        last += 1
        run[last] = record
    return run


@dataclass(slots=True)
class _TailFile:
    """How far one filling of a segment has been read."""

    filling: tuple[int, bytes]  # the file, and the head of its first frame: what tells fillings apart
    at: int = FIRST_FRAME
    expected: int = 0  # the next frame's LSN; 0: any
    held: dict[int, bytes] = field(default_factory=dict)


class TailReader:
    """Reads the segments, also while a writer fills them; what it has read it does not read again.

    It reads by `os.pread` and not by mapping, since a file that shrinks under a map is SIGBUS.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._segments: dict[str, _TailFile] = {}
        self.floor = 0  # LMDB must reach at least so far

    def frames(self, floor: int) -> dict[int, bytes]:
        """The records beyond ``floor`` that the segments hold; LMDB may have some of them too."""
        found: dict[int, bytes] = {}
        for name in TAILS:
            try:
                fd = os.open(self._directory / name, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                self._segments.pop(name, None)
                continue
            try:
                found.update(self._read(name, fd, floor))
            finally:
                os.close(fd)
        return found

    def _read(self, name: str, fd: int, floor: int) -> dict[int, bytes]:
        head = os.pread(fd, FIRST_FRAME + FRAME_HEAD, 0)
        status = os.fstat(fd)
        if not head.startswith(MAGIC):
            version = int.from_bytes(head[8:12], "big")
            if head.startswith(NAME) and version != VERSION:
                raise UnsupportedFormat(f"{version} in its log tail", str(VERSION))
            return {}
        self.floor = max(self.floor, _read_floor(head))
        filling = (status.st_ino, head[FIRST_FRAME:])
        segment = self._segments.get(name)
        if segment is None or segment.filling != filling:
            segment = self._segments[name] = _TailFile(filling)
        _read_on(segment, fd, status.st_size, floor)
        segment.held = {lsn: data for lsn, data in segment.held.items() if lsn > floor}
        return segment.held


def _read_on(segment: _TailFile, fd: int, limit: int, floor: int) -> None:
    """Take the valid frames that follow what was read before."""
    at = start = segment.at
    buffer = b""
    while at + FRAME_HEAD <= limit:
        if at - start + FRAME_HEAD > len(buffer):
            buffer, start = os.pread(fd, _CHUNK, at), at
            if len(buffer) < FRAME_HEAD:
                return
        lsn, _, _, _, _, length, _, _ = _FRAME.unpack_from(buffer, at - start)
        size = HEADER_SIZE + length
        if lsn == 0 or (segment.expected and lsn != segment.expected) or at + 8 + size > limit:
            return  # most often a frame of an earlier filling, so reading stops where the new ones do
        if lsn > floor:
            if at - start + 8 + size > len(buffer):
                buffer, start = os.pread(fd, max(_CHUNK, 8 + size), at), at
            record = buffer[at - start + 8 : at - start + 8 + size]
            try:
                check(lsn, record)
            except CorruptRecord:
                return
            segment.held[lsn] = record
        at += frame_size(size)
        segment.at, segment.expected = at, lsn + 1
