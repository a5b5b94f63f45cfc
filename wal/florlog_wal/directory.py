"""A run's directory: its manifest, the writer's lock, and the names in it.

    FLORLOG     the manifest: three lines of text with the format version and LMDB's engine; written last, so a
                directory with a manifest is a whole one
    lock        the writer's advisory lock; its text names the holder
    log/        LMDB environment of the records
    pages/      LMDB environment of the small pages, and of the places of large ones
    segments/   files of large pages (`florlog_wal.segments`); made with the first one
    end         the last LSN at the last clean close: a log that ends before it has lost records
    tail.0, .1  the log tail of the last writer, until it closes
    answers/    what replays found, as a directory of the same form with a writer of its own; made with the first one

The lock is an open-file-description lock.  It belongs to the open file and not to the process, so two Stores
of one process exclude each other too, and one can ask who holds it without taking it.  It ends when the holder
dies.  LMDB has a writer lock of its own, but a second writer would hang there; this lock names the holder.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import socket
import stat
import struct
import time
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Final

import xxhash

from florlog_wal.errors import CorruptStore, NetworkFilesystem, NotAStore, RunLocked, UnsupportedFormat

FORMAT: Final = 4
ENGINE: Final = "lmdb-0.9"
MANIFEST: Final = "FLORLOG"
LOCK: Final = "lock"
LOG: Final = "log"
PAGES: Final = "pages"
SEGMENTS: Final = "segments"
END: Final = "end"
ANSWERS: Final = "answers"
STORE: Final = "store"
RUN: Final = "run"
TAILS: Final = ("tail.0", "tail.1")
ALLOW_NETWORK: Final = "FLORLOG_ALLOW_NETWORK"
_FILES: Final = (
    *(name + new for name in (MANIFEST, END, *TAILS) for new in ("", ".new")), LOCK,
    *(f"{folder}/{name}" for folder in (LOG, PAGES) for name in ("data.mdb", "lock.mdb")),
)  # fmt: skip
_MAX_SMALL_BYTES: Final = 4096
_MAX_LSN_DIGITS: Final = 20
_OURS: Final = frozenset({LOCK, LOG, PAGES, SEGMENTS, ANSWERS, f"{MANIFEST}.new"})

_NETWORK: Final = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "lustre", "gpfs", "beegfs", "glusterfs",
     "ncpfs", "ocfs2", "gfs2", "fuse.sshfs", "fuse.glusterfs", "fuse.s3fs", "fuse.gcsfuse", "fuse.rclone",
     "fuse.juicefs", "fuse.blobfuse2", "fuse.mount-s3", "fuse.vmhgfs-fuse", "vboxsf", "prl_fs", "coda", "panfs",
     "pvfs2", "orangefs", "wekafs"}
)  # fmt: skip
_FLOCK: Final = struct.Struct("hhqqi4x")  # struct flock of 64-bit Linux


def check_files(path: Path) -> None:
    """Raise `NotAStore` where a name that florlog opens is a link or a special file.

    A store that came from somebody else could lead a writer to any file of the user's.
    """
    for kind, says, names in (
        (stat.S_ISDIR, "directory", (LOG, PAGES, SEGMENTS, ANSWERS)),
        (stat.S_ISREG, "file", _FILES),
    ):
        for name in names:
            try:
                mode = os.lstat(path / name).st_mode
            except (FileNotFoundError, NotADirectoryError):
                continue
            if not kind(mode):
                raise NotAStore(str(path), f"its {name} is no plain {says}: replace it by what it stands for")


def _small_file(path: Path) -> bytes:
    """The bytes of a file that is small in any store; no more are read."""
    with path.open("rb") as file:
        return file.read(_MAX_SMALL_BYTES)


def read_manifest(path: Path, *kinds: str) -> str:
    """Check that a directory is of a kind (`STORE`, `RUN`) and of a known format; which kind it is.

    Raises `NotAStore` or `UnsupportedFormat`.
    """
    try:
        text = _small_file(path / MANIFEST).decode("utf-8")
    except (FileNotFoundError, NotADirectoryError):
        raise NotAStore(str(path), f"there is no {MANIFEST} in it") from None
    except (UnicodeDecodeError, IsADirectoryError):
        raise NotAStore(str(path), f"its {MANIFEST} is not text") from None
    lines = [line.split() for line in text.splitlines()]
    if len(lines) < 2 or any(len(line) != 2 for line in lines) or lines[0][0] != "florlog":
        raise NotAStore(str(path), f"its {MANIFEST} is damaged")
    fields = dict(lines[1:])
    if fields.get("format") != str(FORMAT):
        raise UnsupportedFormat(str(fields.get("format")), str(FORMAT))
    kind = lines[0][1]
    if text != _manifest(kind) and kind == RUN and "engine" in fields:
        raise UnsupportedFormat(f"{FORMAT} with engine {fields['engine']}", f"engine {ENGINE}")
    if kind not in kinds or text != _manifest(kind):
        raise NotAStore(
            str(path), f"its {MANIFEST} is that of a {kind}" if kind in (STORE, RUN) else "it is damaged"
        )
    return kind


def write_manifest(path: Path, kind: str, *, new: str = ".new") -> None:
    """Turn a directory into a store or a run; ``new`` as of `replace`."""
    replace(path / MANIFEST, _manifest(kind).encode(), new=new)


def _manifest(kind: str) -> str:
    engine = f"engine {ENGINE}\n" if kind == RUN else ""
    return f"florlog {kind}\nformat {FORMAT}\n{engine}"


def sync_new(path: Path) -> None:
    """Make the names of a new run's directory durable."""
    for where in (path / LOG, path / PAGES, path, path.parent):
        sync_directory(where)


def replace(path: Path, content: bytes, *, new: str = ".new") -> None:
    """Give a small file new content, all or nothing, durably.

    ``new`` ends the name under which it is written first: one of its own where there may be several writers at once,
    of whom the last one wins.
    """
    written = path.with_name(path.name + new)
    with written.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    written.rename(path)
    sync_directory(path.parent)


def make_with_parents(path: Path) -> None:
    """Make a directory and those above it, as far as they are missing.  The names of those above are durable on return.

    The name of the directory itself is durable once its maker has synced the one that it lies in.
    """
    missing = list(takewhile(lambda above: not above.exists(), path.parents))
    path.mkdir(parents=True, exist_ok=True)
    for above in missing:
        sync_directory(above.parent)


def make_directory(path: Path) -> None:
    """Make the directory if it is missing.  Raises `NotAStore` if it has other things in it."""
    make_with_parents(path)
    try:
        names = {entry.name for entry in path.iterdir()}
    except FileNotFoundError:  # a sweep has removed it just now: whoever takes its lock finds that too
        return
    if MANIFEST not in names and names - _OURS:
        raise NotAStore(str(path), "it is a directory with other things in it")


def clear_unfinished(path: Path) -> bool:
    """Remove what a writer left that died before it wrote the manifest; whether the store is still to be made.

    The caller holds the writer's lock, so nobody is making the store at this moment.
    """
    if (path / MANIFEST).exists():
        return False
    for name in (LOG, PAGES, SEGMENTS, ANSWERS):  # a copy has its answers before its manifest
        shutil.rmtree(path / name, ignore_errors=True)
    return True


def seal(data: bytes) -> bytes:
    """The 8-byte checksum of the small things that are not in a record."""
    return xxhash.xxh3_64_digest(data)


def write_end(path: Path, lsn: int) -> None:
    """Write down the last LSN at a clean close."""
    text = f"{lsn}\n".encode()
    replace(path / END, text + seal(text).hex().encode() + b"\n")


def read_end(path: Path) -> int:
    """The last LSN at the last clean close; 0 if there was none.  Raises `CorruptStore`."""
    try:
        text = _small_file(path / END)
    except FileNotFoundError:
        return 0
    number, _, sealed = text.partition(b"\n")
    if sealed.strip() != seal(number + b"\n").hex().encode():
        raise CorruptStore(str(path / END), "checksum mismatch")
    if not number.isdigit() or len(number) > _MAX_LSN_DIGITS:
        raise CorruptStore(str(path / END), "it is no LSN")
    return int(number)


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def refuse_network(path: Path) -> None:
    """Raise `NetworkFilesystem` if the path lies on one, unless the variable `ALLOW_NETWORK` is "1".

    The variable is for programs that open stores without offering the choice.
    """
    kind = filesystem(path)
    if kind in _NETWORK and os.environ.get(ALLOW_NETWORK) != "1":
        raise NetworkFilesystem(str(path), kind)


def filesystem(path: Path, mountinfo: Path = Path("/proc/self/mountinfo")) -> str:
    """The type of the file system that a path lies on; "" where the system does not say."""
    try:
        text = mountinfo.read_text("utf-8", "surrogateescape")
    except OSError:
        return ""
    real = os.path.realpath(path)
    best, kind = "", ""
    for line in text.splitlines():
        fields = line.split(" ")
        point = fields[4].encode().decode("unicode_escape", "replace")  # spaces stand as \040
        if (real == point or real.startswith(point.rstrip("/") + "/")) and len(point) >= len(best):
            best, kind = point, fields[fields.index("-") + 1]
    return kind


@dataclass(frozen=True, slots=True)
class LockHolder:
    """Who writes to a store."""

    pid: int
    host: str
    since: float  # Unix seconds


class WriterLock:
    """The writer's lock, held from construction to `release`.

    Raises `RunLocked`, and `FileNotFoundError` where the directory is gone.  While it is held, nobody else removes
    the directory.
    """

    def __init__(self, path: Path) -> None:
        while True:
            self._fd = os.open(path / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
            try:
                fcntl.fcntl(self._fd, fcntl.F_OFD_SETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
                if _is_at(self._fd, path / LOCK):
                    break
                os.close(self._fd)  # the directory was removed after the file was opened
            except (BlockingIOError, PermissionError):
                os.close(self._fd)
                holder = lock_holder(path) or LockHolder(0, "?", 0.0)
                raise RunLocked(str(path), holder.pid, holder.host, holder.since) from None
            except BaseException:
                os.close(self._fd)
                raise
        text = json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": time.time()})
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, text.encode(), 0)

    def release(self) -> None:
        """Release it; in a forked child this closes only the child's copy, and the parent keeps the lock."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _is_at(fd: int, path: Path) -> bool:
    """Whether an open file is the one at a path."""
    try:
        return os.path.samestat(os.fstat(fd), os.lstat(path))
    except FileNotFoundError:
        return False


def lock_holder(path: Path) -> LockHolder | None:
    """Who holds the writer's lock now; None if nobody does."""
    try:
        fd = os.open(path / LOCK, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # it may be anything
    except FileNotFoundError:
        return None
    try:
        asked = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        found = _FLOCK.unpack(fcntl.fcntl(fd, fcntl.F_OFD_GETLK, asked))
        if found[0] == fcntl.F_UNLCK:
            return None
        fields = json.loads(os.pread(fd, 4096, 0))
        return LockHolder(int(fields["pid"]), str(fields["host"]), float(fields["since"]))
    except (ValueError, KeyError, TypeError):
        return LockHolder(0, "?", 0.0)  # taken this instant, the name not yet written
    finally:
        os.close(fd)
