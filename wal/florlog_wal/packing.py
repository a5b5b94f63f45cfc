"""A run as one file, to be given away: a tar archive of a compact copy of its directory.

The archive is uncompressed, and equal copies give equal bytes.  It has only what is in `_NAME`, in order of name:

    FLORLOG, log/data.mdb, pages/data.mdb, segments/NUMBER    and the same below answers/

A packed run may come from anybody.  So `unpack` is no general reader of tar: each header must be, byte for byte, what
`pack` writes for this name and size, which rules out links, other kinds of files, and names that lead elsewhere.  Sizes
are compared with what is left of the file before anything is written, so no more is written than the file has.
The run becomes one of the store by a rename, after everything in it was verified.  A process that dies before leaves a
directory that is no run, which `Store.sweep` removes.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import stat
import tarfile
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final

from florlog_wal import directory
from florlog_wal.compact import compact
from florlog_wal.directory import WriterLock
from florlog_wal.errors import NotPacked, RunExists, RunLocked, WalError
from florlog_wal.run_log import RunLog
from florlog_wal.store import RUN_NAME, RUNS, Store
from florlog_wal.verify import verify

_NAME: Final = re.compile(r"(?:answers/)?(?:FLORLOG|log/data\.mdb|pages/data\.mdb|segments/[0-9]{8})")
_BLOCK_BYTES: Final = 512
_END: Final = bytes(2 * _BLOCK_BYTES)
_COPY_BYTES: Final = 1 << 20
_PATIENCE_SECONDS: Final = 1.0
_POLL_SECONDS: Final = 0.005


def pack(store: Store, run: str, file: str | os.PathLike[str]) -> int:
    """Write a run, its answers included, to a file, which is replaced if it exists; the file's size in bytes.

    Also while the run is being recorded, as of this moment.  A copy of the run is made first, in a directory next to
    the file, which a kill may leave there: its name ends in ``.packing``.

    Raises `NoSuchRun`, what `compact` does for a damaged run, `OSError`.
    """
    target = Path(file).absolute()
    store.log(run)  # raises where there is no such run
    with tempfile.TemporaryDirectory(prefix=f".{target.name}.", suffix=".packing", dir=target.parent) as made:
        copy, packed = Path(made) / "run", Path(made) / "packed"
        compact(store.directory(run), copy, allow_network=True)
        names = (path.relative_to(copy).as_posix() for path in copy.rglob("*") if path.is_file())
        with packed.open("xb") as out:
            for name in sorted(name for name in names if _NAME.fullmatch(name)):
                with (copy / name).open("rb") as member:
                    size = os.fstat(member.fileno()).st_size
                    out.write(_header(name, size))
                    shutil.copyfileobj(member, out, _COPY_BYTES)
                    out.write(bytes(-size % _BLOCK_BYTES))
            out.write(_END)
            out.flush()
            os.fsync(out.fileno())
            total = out.tell()
        packed.rename(target)
        directory.sync_directory(target.parent)
    return total


def unpack(file: str | os.PathLike[str], store: Store) -> str:
    """Make a packed run a run of the store; its id.

    Raises `NotPacked` for a file that is not whole and sound, `RunExists`, `OSError`; then the store is as it was.
    """
    path = str(file)
    with _opened(path) as packed, _new_directory(store) as (where, lock):
        try:
            _extract(packed, path, where)
            run = _checked(path, where)
            target = store.directory(run)
            try:
                target.mkdir()  # the place is taken, and can be replaced by a whole run
            except FileExistsError:
                raise RunExists(str(store.path), run) from None
            _move(where, target, store)
        except BaseException:
            shutil.rmtree(where, ignore_errors=True)
            raise
        finally:
            lock.release()
    return run


@contextmanager
def _opened(path: str) -> Iterator[BinaryIO]:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    with os.fdopen(fd, "rb") as packed:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise NotPacked(path, "it is no plain file")
        yield packed


@contextmanager
def _new_directory(store: Store) -> Iterator[tuple[Path, WriterLock]]:
    """A new directory that is no run, and its lock, so that no sweep removes it."""
    while True:
        where = store.path / RUNS / f".unpacking-{uuid.uuid4().hex}"
        where.mkdir(mode=0o777)
        try:
            lock = WriterLock(where)
        except (RunLocked, FileNotFoundError):  # a sweep has come in between
            continue
        yield where, lock
        return


def _move(where: Path, target: Path, store: Store) -> None:
    """Put a run into the place that is taken for it.  Raises `RunExists` if another one is there meanwhile."""
    end = time.monotonic() + _PATIENCE_SECONDS
    while True:
        try:
            where.rename(target)
            break
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            # A sweep takes the place for a dead writer's, or has removed it, and another writer was faster.
            if target.name in store or time.monotonic() > end:
                raise RunExists(str(store.path), target.name) from None
            time.sleep(_POLL_SECONDS)
    directory.sync_directory(target.parent)


def _header(name: str, size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size = size
    return info.tobuf(tarfile.GNU_FORMAT)


def _extract(packed: BinaryIO, path: str, where: Path) -> None:
    """Write the members of an archive below a new directory, durably."""
    left = os.fstat(packed.fileno()).st_size
    last = ""
    while (block := packed.read(_BLOCK_BYTES)) and any(block):
        name, size = _member(block, path)
        left -= _BLOCK_BYTES + size + -size % _BLOCK_BYTES
        if name <= last:
            raise NotPacked(path, f"{name} is not where it belongs")
        if left < len(_END):
            raise NotPacked(path, "it was cut off")
        last = name
        target = where / name
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("xb") as out:
            for begin in range(0, size, _COPY_BYTES):
                out.write(packed.read(min(_COPY_BYTES, size - begin)))
            if out.tell() != size or any(packed.read(-size % _BLOCK_BYTES)):
                raise NotPacked(path, f"{name} has not the bytes that it should have")
            out.flush()
            os.fsync(out.fileno())
    if block + packed.read(len(_END)) != _END:
        raise NotPacked(path, "it has no end, or something after it")
    for folder in (where, *(sub for sub in where.rglob("*") if sub.is_dir())):
        directory.sync_directory(folder)


def _member(block: bytes, path: str) -> tuple[str, int]:
    """Name and size in a header, which must be one that `pack` writes."""
    try:
        info = tarfile.TarInfo.frombuf(block, "ascii", "strict")
    except (tarfile.HeaderError, ValueError):
        raise NotPacked(path, "it is no archive that florlog pack wrote") from None
    if not _NAME.fullmatch(info.name) or info.size < 0 or block != _header(info.name, info.size):
        raise NotPacked(path, f"it has a member {info.name[:100]!a} that no packed run has")
    return info.name, info.size


def _checked(path: str, where: Path) -> str:
    """The id of the run in a directory, after all of it was verified.  Raises `NotPacked`."""
    try:
        with RunLog.open(where, allow_network=True) as log:
            sessions = log.sessions()
            if log.answers is not None:
                sessions += log.answers.sessions()
        logs = [where, *([where / directory.ANSWERS] if (where / directory.ANSWERS).exists() else [])]
        problems = [problem for log in logs for problem in verify(log, allow_network=True).problems]
    except WalError as error:
        raise NotPacked(path, str(error)) from None
    if problems:
        raise NotPacked(path, str(problems[0]))
    runs = {session.begin.run for session in sessions}
    if len(runs) != 1 or not RUN_NAME.fullmatch(run := runs.pop()):
        raise NotPacked(path, "it does not hold one run")
    return run
