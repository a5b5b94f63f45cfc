"""A store: a directory of runs, each a directory of its own with everything that belongs to it.

    FLORLOG     the manifest: two lines of text with the format's version
    .gitignore  one line, ``*``
    runs/RUN/   the log, pages and answers of the run RUN (`florlog_wal.run_log`)

Nothing outside a run's directory is needed to read it, and no two writers share a file.  So any number of processes
record at once; a run that is copied elsewhere is whole, and one that is deleted is gone.  A run's directory by itself
can be opened as a store that has this one run.

A name below ``runs`` that begins with a dot is no run: a run that is being removed or unpacked, or a leftover of that.
A directory without a manifest is no run yet: its writer is making it, or died while it did.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import uuid
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Literal

from florlog_wal import directory
from florlog_wal.directory import WriterLock
from florlog_wal.errors import CorruptStore, NoSuchRun, NotAStore, RunExists, RunLocked
from florlog_wal.run_log import RunLog

RUNS: Final = "runs"
RUN_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,199}")
"""What a run can be called."""
_IGNORE: Final = ".gitignore"
_OURS: Final = frozenset({RUNS, _IGNORE, directory.MANIFEST})
_MAX_OPEN_LOGS: Final = 32
"""Each takes a handful of file descriptors."""


class Store:
    """A directory of runs.  `open` one for reading, `make` one to record into it; close it when done."""

    def __init__(self, path: Path, *, alone: str = "") -> None:
        """``alone``: the id of the only run, where the path is that of a run's directory."""
        self.path = path
        self._alone = alone
        self._logs: OrderedDict[str, RunLog] = OrderedDict()  # for reading, the last used at the end

    @staticmethod
    def open(path: str | os.PathLike[str], *, allow_network: bool = False) -> Store:
        """Open a store, or a run's directory as a store of one run.

        Raises `NotAStore`, `UnsupportedFormat`, `NetworkFilesystem`, and for a run's directory what `RunLog.open` does.
        """
        where = Path(path).absolute()
        if not allow_network:
            directory.refuse_network(where)
        if directory.read_manifest(where, directory.STORE, directory.RUN) == directory.RUN:
            with RunLog.open(where, allow_network=allow_network) as log:
                sessions = log.sessions()
            if not sessions or not RUN_NAME.fullmatch(sessions[0].begin.run):
                raise CorruptStore(str(where), "it holds no run")
            return Store(where, alone=sessions[0].begin.run)
        _check_files(where)
        return Store(where)

    @staticmethod
    def make(path: str | os.PathLike[str], *, allow_network: bool = False) -> Store:
        """Open a store, which is made where there is none; any number of processes may do so at once.

        Raises `NotAStore` where the path is something else, `UnsupportedFormat`, `NetworkFilesystem`, `OSError`.
        """
        where = Path(path).absolute()
        if not allow_network:
            directory.refuse_network(where)
        directory.make_with_parents(where)
        if not (where / directory.MANIFEST).exists():
            names = {entry.name for entry in where.iterdir() if not entry.name.endswith(".new")}
            if names - _OURS:
                raise NotAStore(str(where), "it is a directory with other things in it")
            (where / RUNS).mkdir(exist_ok=True)
            new = f".{uuid.uuid4().hex}.new"  # others may be making it too
            directory.replace(where / _IGNORE, b"*\n", new=new)
            directory.sync_directory(where.parent)
            directory.write_manifest(where, directory.STORE, new=new)
        directory.read_manifest(where, directory.STORE)
        _check_files(where)
        return Store(where)

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the logs that were opened with `log`."""
        while self._logs:
            self._logs.popitem()[1].close()

    # -- runs --------------------------------------------------------------------------------------

    def runs(self) -> list[str]:
        """The names of all run directories, in no particular order; a run may have no record yet."""
        if self._alone:
            return [self._alone]
        try:
            with os.scandir(self.path / RUNS) as entries:
                names = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
        except FileNotFoundError:
            return []
        return [name for name in names if RUN_NAME.fullmatch(name) and self._has_manifest(name)]

    def directory(self, run: str) -> Path:
        """Where a run lies, whether it exists or not.  Raises `NoSuchRun` for what no run can be called."""
        if self._alone:
            if run != self._alone:
                raise NoSuchRun(str(self.path), run)
            return self.path
        if not RUN_NAME.fullmatch(run):
            raise NoSuchRun(str(self.path), run)
        return self.path / RUNS / run

    def __contains__(self, run: str) -> bool:
        try:
            self.directory(run)
        except NoSuchRun:
            return False
        return bool(self._alone) or self._has_manifest(run)

    def _has_manifest(self, run: str) -> bool:
        return os.path.lexists(self.path / RUNS / run / directory.MANIFEST)

    def log(self, run: str) -> RunLog:
        """A run's log for reading, which the store closes.

        Raises `NoSuchRun`, `CorruptStore` where the directory has another run's log, and what `RunLog.open` does.
        """
        if (held := self._logs.pop(run, None)) is None:
            if run not in self:
                raise NoSuchRun(str(self.path), run)
            held = RunLog.open(self.directory(run), allow_network=True)
            if not self._alone:
                _check_run(held, run)
        self._logs[run] = held
        while len(self._logs) > _MAX_OPEN_LOGS:
            self._logs.popitem(last=False)  # closed when nobody uses it any more
        return held

    def new_log(
        self, run: str, *, durability: Literal["group", "sync"] = "group", window: float = 0.020
    ) -> RunLog:
        """The log of a new run, for writing.  Raises `RunExists` if the name is taken, and what `RunLog.open` does."""
        where = self.directory(run)
        try:
            where.mkdir()
        except FileExistsError:
            raise RunExists(str(self.path), run) from None
        try:
            return RunLog.open(where, mode="x", durability=durability, window=window, allow_network=True)
        except (FileExistsError, RunLocked):
            # A sweep took the directory for a dead writer's; another writer may have been faster after that.
            raise RunExists(str(self.path), run) from None
        except BaseException:
            if not self._has_manifest(run):
                shutil.rmtree(where, ignore_errors=True)
            raise

    def open_log(
        self, run: str, *, durability: Literal["group", "sync"] = "group", window: float = 0.020
    ) -> RunLog:
        """The log of a run that goes on, for writing.  Raises `NoSuchRun`, `RunLocked`, and what `RunLog.open` does."""
        if run not in self:
            raise NoSuchRun(str(self.path), run)
        try:
            return RunLog.open(
                self.directory(run), mode="r+", durability=durability, window=window, allow_network=True
            )
        except NotAStore:
            if run in self:
                raise
            raise NoSuchRun(str(self.path), run) from None  # it was removed just now

    def remove(self, run: str) -> None:
        """Remove a run, all of it.  Raises `NoSuchRun`, and `RunLocked` while somebody writes to it or its answers.

        It is gone at once; a crash meanwhile leaves a directory that is no run, which `sweep` removes.
        """
        if run not in self:
            raise NoSuchRun(str(self.path), run)
        if (log := self._logs.pop(run, None)) is not None:
            log.close()
        where = self.directory(run)
        try:
            locks = [WriterLock(where)]
        except FileNotFoundError:
            raise NoSuchRun(str(self.path), run) from None  # somebody else has removed it
        try:
            if (where / directory.ANSWERS).is_dir():
                locks.append(WriterLock(where / directory.ANSWERS))
            _discard(where)
        finally:
            for lock in locks:
                lock.release()

    def sweep(self) -> int:
        """Remove what was left below ``runs`` by processes that died; the number of directories."""
        if self._alone:
            return 0
        swept = 0
        for where in (self.path / RUNS).iterdir():
            if where.name in self or not where.is_dir() or where.is_symlink():
                continue
            try:
                lock = WriterLock(where)
            except OSError as error:
                if error.errno in (errno.ENOENT, errno.ENOTDIR):
                    continue
                raise
            except Exception:  # somebody is making it
                continue
            try:
                if where.name not in self:  # its writer may have made it before it could be locked
                    _discard(where)
                    swept += 1
            except OSError:  # it cannot be removed, and is no run
                pass
            finally:
                lock.release()
        return swept


def _check_files(path: Path) -> None:
    """Raise `NotAStore` where the directory of runs is a link, which could lead a writer to any of the user's."""
    where = path / RUNS
    if os.path.lexists(where) and (where.is_symlink() or not where.is_dir()):
        raise NotAStore(str(path), f"its {RUNS} is no plain directory: replace it by what it stands for")


def _discard(where: Path) -> None:
    """Remove a directory below ``runs`` whose lock the caller holds.

    Whoever comes to its name from now on finds nothing there, or makes it anew.
    """
    gone = where.with_name(f".removed-{uuid.uuid4().hex}")
    where.rename(gone)
    directory.sync_directory(gone.parent)
    while gone.exists():
        with suppress(FileNotFoundError):  # a sweep is at it too, since the lock's file is gone
            shutil.rmtree(gone)


def _check_run(log: RunLog, run: str) -> None:
    sessions = log.sessions()
    if not sessions:  # its writer has only just begun, or died before its first record
        log.close()
        raise NoSuchRun(str(log.path.parents[1]), run)
    if (found := sessions[0].begin.run) != run:
        log.close()
        raise CorruptStore(str(log.path), f"it holds run {found!a}, so it must be called that")
