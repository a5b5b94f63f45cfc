"""The log tail: records in memory-mapped files, which survive the death of the process.

LMDB's durable commit takes a millisecond, too long for a training step; LMDB without sync can be corrupted
by a power cut.  So a record first goes into the tail: it is copied into mapped memory that the kernel keeps
whatever happens to the process.  A background thread then moves it into LMDB with a real sync.

There are two segments.  One is filled while the other is drained, and a segment is filled again only after all
its records are durable in LMDB.  A *tail frame* (in this module: a frame) is the LSN and the stored record,
whose checksum covers the LSN:

    +--------+-----------------------+---------+
    | LSN  8 | record: header 32 + n | pad  <8 |
    +--------+-----------------------+---------+

A segment has no length field that could be torn: it is read up to the first frame that is invalid or does not
have the next LSN.  Frames of an earlier filling, further on in the segment, have lower LSNs, so they are never
taken for new ones.

The head of a segment also has a *floor*: the last LSN that was durable in LMDB when the floor was written, under
a checksum.  LMDB's pages have none, so in a killed writer's store a flipped bit may lead to an older, sound
tree.  An LMDB that ends before a floor has lost records.  One that lacks only the last commit is repaired,
because the frames of that commit are still in the segment.

Blocks are allocated before use, because a store into a mapped hole on a full disk is SIGBUS.  Each writer
makes new files, and syncs the directory, before its first append.  Otherwise frames that a power cut had torn
away from an earlier writer could come back from the disk next to newer records of the same LSN.
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
FIRST_FRAME_AT: Final = _FLOOR_AT + 16  # offset in a segment
FRAME_HEAD_SIZE: Final = 8 + HEADER_SIZE
SEGMENT_BYTES: Final = 4 << 20  # unless a record needs more
_FRAME: Final = struct.Struct(">Q" + HEADER.format.removeprefix(">"))
_LENGTH: Final = struct.Struct(">Q12xI")  # LSN and length of a frame
_CHUNK_BYTES: Final = 1 << 16  # of one read


def frame_size(record_size: int) -> int:
    """Bytes of the frame of a record of ``record_size`` bytes."""
    return (8 + record_size + 7) & ~7


def write_floor(segment: mmap.mmap, lsn: int) -> None:
    """Write into a segment's head that everything up to an LSN is durable in LMDB."""
    segment[_FLOOR_AT:FIRST_FRAME_AT] = _floor(lsn)


def _floor(lsn: int) -> bytes:
    return lsn.to_bytes(8, "big") + seal(MAGIC + lsn.to_bytes(8, "big"))


def _read_floor(head: bytes) -> int:
    """The floor in a segment's head; 0 if its checksum is wrong, as while it is being written."""
    lsn = int.from_bytes(head[_FLOOR_AT : _FLOOR_AT + 8], "big")
    return lsn if head[_FLOOR_AT:FIRST_FRAME_AT] == _floor(lsn) else 0


def create(directory: Path, size: int = SEGMENT_BYTES, floor: int = 0) -> list[mmap.mmap]:
    """Two empty segments of ``size`` bytes in place of whatever was there; their names are durable on return."""
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
    """The records in a segment before the offset ``stop``, unchecked, by LSN."""
    found: dict[int, bytes] = {}
    at = FIRST_FRAME_AT
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
    """Those of the records ``found`` that follow the LSN ``last`` without a gap."""
    run: dict[int, bytes] = {}
    while (record := found.get(last + 1)) is not None:
        last += 1
        run[last] = record
    return run


@dataclass(slots=True)
class _TailFile:
    """How far one filling of a segment has been read."""

    filling: tuple[int, bytes]  # the file, and the head of its first frame: they distinguish fillings
    at: int = FIRST_FRAME_AT
    expected: int = 0  # the next frame's LSN; 0: any
    held: dict[int, bytes] = field(default_factory=dict)


class TailReader:
    """Reads the segments, also while a writer fills them, and no frame twice.

    It reads by `os.pread` and not by mapping, because a file that shrinks under a map is SIGBUS.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._segments: dict[str, _TailFile] = {}
        self.floor = 0  # LMDB must reach at least so far

    def records_after(self, floor: int) -> dict[int, bytes]:
        """The segments' valid records after the LSN ``floor``; LMDB may have some of them too.

        Raises `UnsupportedFormat` for a segment of another version.
        """
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
        head = os.pread(fd, FIRST_FRAME_AT + FRAME_HEAD_SIZE, 0)
        status = os.fstat(fd)
        if not head.startswith(MAGIC):
            version = int.from_bytes(head[8:12], "big")
            if head.startswith(NAME) and version != VERSION:
                raise UnsupportedFormat(f"{version} in its log tail", str(VERSION))
            return {}
        self.floor = max(self.floor, _read_floor(head))
        filling = (status.st_ino, head[FIRST_FRAME_AT:])
        segment = self._segments.get(name)
        if segment is None or segment.filling != filling:
            segment = self._segments[name] = _TailFile(filling)
        _read_on(segment, fd, status.st_size, floor)
        segment.held = {lsn: data for lsn, data in segment.held.items() if lsn > floor}
        return segment.held


def _read_on(segment: _TailFile, fd: int, limit: int, floor: int) -> None:
    """Take the valid frames after those that were read before."""
    at = start = segment.at
    buffer = b""
    while at + FRAME_HEAD_SIZE <= limit:
        if at - start + FRAME_HEAD_SIZE > len(buffer):
            buffer, start = os.pread(fd, _CHUNK_BYTES, at), at
            if len(buffer) < FRAME_HEAD_SIZE:
                return
        lsn, _, _, _, _, length, _, _ = _FRAME.unpack_from(buffer, at - start)
        size = HEADER_SIZE + length
        if lsn == 0 or (segment.expected and lsn != segment.expected) or at + 8 + size > limit:
            return  # most often a frame of an earlier filling: the new ones end here
        if lsn > floor:
            if at - start + 8 + size > len(buffer):
                buffer, start = os.pread(fd, max(_CHUNK_BYTES, 8 + size), at), at
            record = buffer[at - start + 8 : at - start + 8 + size]
            try:
                check(lsn, record)
            except CorruptRecord:
                return
            segment.held[lsn] = record
        at += frame_size(size)
        segment.at, segment.expected = at, lsn + 1
