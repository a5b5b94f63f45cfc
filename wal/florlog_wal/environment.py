"""LMDB environments, with LMDB's known dangers handled.

* A process may open an environment only once (py-lmdb refuses more), so all Stores of a process share it
  through a registry by real path, with a count.  If it was opened for reading and a writer comes, it is opened
  again for both.
* A full map aborts the whole transaction.  So a write is a function, which is run again after the map has
  doubled.  Only the store's writer grows the map; readers of other processes get MapResized and adopt the size.
  Resizing kills open transactions of the process, so `_Gate` waits until none is open.  A resize that fails
  has closed the map; then the environment is opened again.
* A reader that is killed inside a transaction leaves its slot, which keeps pages from being reused.  Slots of
  dead processes are cleared when a writer opens the environment, and when slots run out.
* Reads bypass the engine, because it trusts its file (see `btree`).  A reader only holds the engine's slot for
  its snapshot, so that a writer elsewhere does not reuse the snapshot's pages.
* Because the engine trusts its file, whatever could raise a signal or overwrite pages in use is refused before
  the engine sees it (see `filecheck`).
* An environment must not cross a fork.  In the child every use raises `Forked`.  The handle is leaked on
  purpose, because closing it there would run LMDB's exit code on the parent's lock file.
* LMDB's lock file cannot be written on read-only media.  Nobody writes there either, so no engine is needed.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Final, TypeVar

import lmdb

from florlog_wal.btree import Damage, Snapshot
from florlog_wal.errors import CorruptStore, Forked, StoreFailed, TooManyReaders
from florlog_wal.filecheck import check_file, check_structure

T = TypeVar("T")
_UNREADABLE: Final = (lmdb.InvalidError, lmdb.CorruptedError, lmdb.VersionMismatchError, lmdb.NotFoundError)
_MAX_READERS: Final = 1024

_registry: dict[str, Environment] = {}
_registry_lock = threading.Lock()


class _Gate:
    """Lets many in at once, or one alone while nobody else is inside."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._inside = 0
        self._closed = False

    def enter(self) -> None:
        with self._changed:
            while self._closed:
                self._changed.wait()
            self._inside += 1

    def leave(self) -> None:
        with self._changed:
            self._inside -= 1
            if self._closed and not self._inside:
                self._changed.notify_all()

    @contextmanager
    def alone(self) -> Iterator[None]:
        with self._changed:
            while self._closed:
                self._changed.wait()
            self._closed = True
            while self._inside:
                self._changed.wait()
        try:
            yield
        finally:
            with self._changed:
                self._closed = False
                self._changed.notify_all()


class Environment:
    """One LMDB environment with its named databases, shared by the Stores of this process."""

    def __init__(
        self, path: Path, names: tuple[str, ...], growing: str, map_size: int, *, writable: bool, create: bool
    ) -> None:
        self.path, self._names, self._growing = path, names, growing
        self._map_size, self._writable = map_size, writable
        self._gate = _Gate()
        self.users = 0
        self.forked = False
        self._env: Any = None
        self._fd = -1
        self._open(create, room=2)

    def _open(self, create: bool = False, room: int = 1) -> None:
        data = self.path / "data.mdb"
        if create:
            self.path.mkdir()
            self._env = self._open_engine(data)
            self._fd = os.open(data, os.O_RDONLY | os.O_CLOEXEC)
            return
        try:
            self._fd = os.open(data, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise CorruptStore(str(data), "the file is missing") from None
        try:
            check_file(self._fd)
            if self._writable:
                check_structure(Snapshot(self._fd, None), self._growing)
            self._map_size = max(self._map_size, os.fstat(self._fd).st_size * room)
            self._env = self._open_engine(data) if self._writable or _can_lock(self.path) else None
        except Damage as error:
            self._close()
            raise CorruptStore(str(data), str(error)) from None
        except BaseException:
            self._close()
            raise

    def _open_engine(self, data: Path) -> Any:
        options: dict[str, Any] = {"lib_version": 0} if _HAS_ENGINES else {}
        try:
            env = lmdb.open(
                str(self.path), map_size=self._map_size, max_dbs=len(self._names), max_readers=_MAX_READERS,
                readonly=not self._writable, create=self._writable, **options,
            )  # fmt: skip
        except _UNREADABLE as error:
            raise CorruptStore(str(data), str(error)) from None
        except lmdb.ReadersFullError:
            raise TooManyReaders(str(self.path)) from None
        except lmdb.Error as error:
            raise StoreFailed(str(data), str(error)) from None
        if self._writable:
            try:
                env.reader_check()
                self.dbs = {name: env.open_db(name.encode()) for name in self._names}
            except BaseException as error:
                env.close()
                if isinstance(error, lmdb.Error):
                    raise StoreFailed(str(data), str(error)) from None
                raise
        return env

    def _close(self) -> None:
        """Close whatever is open, also after an `_open` that failed."""
        if self._env is not None:
            self._env.close()
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def require_writable(self) -> None:
        """Make an environment that was opened for reading writable."""
        if self._writable:
            return
        with self._gate.alone():
            self._close()
            self._writable = True
            self._open()

    @contextmanager
    def read(self) -> Iterator[Snapshot]:
        """What is committed now.  Keep it short: it keeps old pages from reuse, and a growing map waits for it.

        Raises `Forked`, `TooManyReaders` or `StoreFailed`.  `Damage` inside the block becomes `CorruptStore`, unless
        the caller turns it into an error that says more.
        """
        if self.forked:
            raise Forked(str(self.path))
        while True:
            self._gate.enter()
            try:
                txn = None if self._env is None else self._env.begin()
            except lmdb.MapResizedError:
                self._gate.leave()
                self._adopt_size()
                continue
            except lmdb.ReadersFullError:
                self._gate.leave()
                if not self._env.reader_check():
                    raise TooManyReaders(str(self.path)) from None
                continue
            except lmdb.Error as error:
                self._gate.leave()
                raise StoreFailed(str(self.path), str(error)) from None
            except BaseException:
                self._gate.leave()
                raise
            try:
                try:
                    snapshot = Snapshot(self._fd, None if txn is None else txn.id())
                except LookupError:
                    continue  # two commits came between the slot and the meta page
                yield snapshot
                return
            except Damage as error:
                raise CorruptStore(str(self.path / "data.mdb"), str(error)) from None
            except OSError as error:
                raise StoreFailed(str(self.path / "data.mdb"), str(error)) from None
            finally:
                if txn is not None:
                    txn.abort()
                self._gate.leave()

    def write(self, work: Callable[[Any], T]) -> T:
        """Run ``work`` in a durable write transaction, and again if the map has to grow.

        Raises `Forked` or `StoreFailed`.
        """
        if self.forked:
            raise Forked(str(self.path))
        while True:
            full = False
            self._gate.enter()
            try:
                with self._env.begin(write=True) as txn:
                    return work(txn)
            except lmdb.MapFullError:
                full = True
            except lmdb.MapResizedError:
                pass
            except lmdb.Error as error:
                raise StoreFailed(str(self.path), str(error)) from None
            finally:
                self._gate.leave()
            if full:
                self._grow()
            else:
                self._adopt_size()

    def _grow(self) -> None:
        with self._gate.alone():
            before = self._env.info()["map_size"]
            self._map_size = 2 * max(self._map_size, before)
            try:
                self._env.set_mapsize(self._map_size)
            except (lmdb.Error, OverflowError) as error:
                reason = f"its map cannot grow to {self._map_size} bytes ({error})"
                # The call has closed the old map before it failed to make the new one.
                self._map_size = before
                self._close()
                self._open()
                raise StoreFailed(str(self.path), reason) from None

    def _adopt_size(self) -> None:
        with self._gate.alone():
            self._env.set_mapsize(0)

    def reopen(self) -> None:
        """Close and open again: after a failed write of the meta page LMDB refuses everything until then."""
        with self._gate.alone():
            self._close()
            self._open()

    def close(self) -> None:
        with self._gate.alone():
            self._close()

    def disown(self) -> None:
        """In a forked child: never use it, and never let it be closed."""
        self.forked = True
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._env))


def acquire(
    path: Path,
    names: tuple[str, ...],
    map_size: int,
    *,
    growing: str = "",
    writable: bool,
    create: bool = False,
) -> Environment:
    """The process's environment at a path, with a map of at least ``map_size`` bytes; `release` it after use.

    ``growing`` is the database to which keys are added only at the end.  The environment is made only with
    ``create``: otherwise a missing file is a loss, and raises `CorruptStore`.
    """
    _watch_forks()
    key = os.path.realpath(path)
    with _registry_lock:
        env = _registry.get(key)
        if env is None:
            env = _registry[key] = Environment(
                path, names, growing, map_size, writable=writable, create=create
            )
        elif env.forked:
            raise Forked(str(path))
        elif writable:
            env.require_writable()
        env.users += 1
        return env


def release(env: Environment) -> None:
    """Give an environment back; the last user closes it."""
    with _registry_lock:
        env.users -= 1
        if env.users == 0 and not env.forked:
            del _registry[os.path.realpath(env.path)]
            env.close()


def _can_lock(path: Path) -> bool:
    """Whether LMDB's lock file can be written here (not on read-only media)."""
    lock = path / "lock.mdb"
    if os.statvfs(path).f_flag & os.ST_RDONLY:
        return False
    return os.access(lock if lock.exists() else path, os.W_OK)


def _has_engines() -> bool:
    try:
        lmdb.version(lib_version=0)
    except TypeError:
        return False
    return True


_HAS_ENGINES: Final = _has_engines()


@cache
def _watch_forks() -> None:
    """Let forked children disown the environments: from the first use on, because importing has no side effects."""
    os.register_at_fork(after_in_child=_disown_all)


def _disown_all() -> None:
    global _registry_lock
    _registry_lock = threading.Lock()  # the parent's may have been held by a thread that is not here
    for env in _registry.values():
        env.disown()
