"""What a replayed script writes goes to a scratch directory that lies over the file system.

A recorded run wrote checkpoints, tables and plots; executing parts of it again must not touch them.  Inside
`FileOverlay`, files are written, created, renamed and removed in the scratch directory only, reads see the version
there first, and the directory is deleted at the end.  This is an overlay file system (as
Linux's overlayfs: an upper layer, copy-up on the first change, whiteouts for what was removed) at the level
of Python's functions: the ``open`` of builtins and io, the functions of `os` that take a path (`pathlib`,
`shutil`, `tempfile`, NumPy, pandas and Pillow go through these), `torch.save`, `torch.load`, and the functions of
`safetensors.torch`.

Threads that the script started and left behind can do nothing with files afterwards.

Not covered: what C libraries open by themselves (sqlite3, HDF5), other programs that the script
starts, processes made by spawn, calls with ``dir_fd``, and everything that is not a file (network, databases).
Devices, ``/proc`` and the directory of multiprocessing's sockets are passed through: a socket is bound by a C
library, and a DataLoader's workers hand their batches over through one.  So are the user's caches, and what `tempfile`
and torch's compiler make for a process: a compiler that is started there has to see it, and no user keeps files there.
"""

from __future__ import annotations

import builtins
import errno
import functools
import importlib.util
import io
import os
import shutil
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from multiprocessing.util import get_temp_dir
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar
from weakref import WeakSet

import torch

MAX_LOOKS = 50
"""After so many looks for a file that is hidden it is there: the script waits for it."""
_Wrapped = TypeVar("_Wrapped", bound=Callable[..., Any])

_WRITE_FLAGS = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_READING_FUNCTIONS = ("stat", "lstat", "access", "readlink", "getxattr", "listxattr")
_CHANGING_FUNCTIONS = ("chmod", "chown", "utime", "truncate", "setxattr")
_READ_MODES = ("r", "rb", "rt")
_PASSED_THROUGH = ("/dev", "/proc", "/sys")
_TEMPORARY = (tempfile.gettempprefix(), "torchinductor_", "triton_")
"""How names in the directory for temporary files begin that belong to a process and not to a user."""


def _caches() -> list[str]:
    """Where libraries keep what they can make again."""
    found = [os.environ.get("XDG_CACHE_HOME"), os.environ.get("TORCHINDUCTOR_CACHE_DIR")]
    return [os.path.realpath(path) for path in (*found, os.path.expanduser("~/.cache")) if path]  # noqa: PTH111


class FileOverlay:
    """A context manager; only one can be entered at a time.

    ``later``: paths of the lower layer that count as removed as long as ``is_early()``.  One that is looked for again
    and again is there nonetheless: the script waits for somebody else to make it.
    """

    def __init__(
        self, later: Collection[str] = frozenset(), is_early: Callable[[], bool] = lambda: False
    ) -> None:
        self._later, self._is_early = later, is_early
        self._upper = self._temporary = self._working = ""
        self._before: WeakSet[threading.Thread] = WeakSet()  # threads that are not the script's
        self._through: tuple[str, ...] = ()
        self._removed: set[str] = set()  # whiteouts: paths of the lower layer that count as removed
        self._missed: Counter[str] = Counter()  # how often what is hidden was looked for
        self._awaited: set[str] = set()  # what was looked for again and again
        self._empty = not later  # nothing was written or removed yet; imports look at thousands of files
        self._undo: list[tuple[Any, str, Any]] = []
        self._os: dict[str, Callable[..., Any]] = {}

    def __enter__(self) -> FileOverlay:
        self._before = WeakSet(threading.enumerate())
        self._upper = os.path.realpath(tempfile.mkdtemp(prefix="florlog-replay-"))
        self._through = (*_PASSED_THROUGH, self._upper, get_temp_dir(), *_caches())
        self._temporary = os.path.join(os.path.realpath(tempfile.gettempdir()), "")  # noqa: PTH118
        self._working = os.path.join(os.path.realpath(os.getcwd()), "")  # noqa: PTH109, PTH118
        opened = builtins.open
        for name in (
            *_READING_FUNCTIONS,
            *_CHANGING_FUNCTIONS,
            "open",
            "mkdir",
            "rmdir",
            "remove",
            "rename",
            "listdir",
            "scandir",
        ):
            self._os[name] = getattr(os, name)
        for name in _READING_FUNCTIONS:
            self._replace(os, name, self._reading(self._os[name]))
        for name in _CHANGING_FUNCTIONS:
            self._replace(os, name, self._changing(self._os[name]))
        self._replace(os, "open", self._open_descriptor)
        self._replace(os, "mkdir", self._mkdir)
        self._replace(os, "rmdir", self._removing(self._os["rmdir"]))
        for name in ("remove", "unlink"):
            self._replace(os, name, self._removing(self._os["remove"]))
        for name in ("rename", "replace"):
            self._replace(os, name, self._rename)
        self._replace(os, "listdir", self._listdir)
        self._replace(os, "scandir", self._scandir)
        self._replace(shutil, "_use_fd_functions", False)  # rmtree by path, not by descriptor
        for module in (builtins, io):
            self._replace(module, "open", self._opening(opened))
        self._replace(torch, "save", self._torch(torch.save, 1, "f", write=True))
        self._replace(torch, "load", self._torch(torch.load, 0, "f", write=False))
        if importlib.util.find_spec("safetensors") is not None:
            # Rust opens the files; transformers saves its checkpoints so.
            tensors = importlib.import_module("safetensors.torch")
            for name, place, write in (("serialize_file", 1, True), ("safe_open", 0, False)):
                through = self._torch(getattr(tensors, name), place, "filename", write=write)
                self._replace(tensors, name, through)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        left = WeakSet(thread for thread in threading.enumerate() if thread not in self._before)
        while self._undo:
            module, name, function = self._undo.pop()
            setattr(module, name, _ended(function, left) if left and callable(function) else function)
        shutil.rmtree(self._upper, ignore_errors=True)

    def _replace(self, module: Any, name: str, by: Any) -> None:
        self._undo.append((module, name, getattr(module, name)))
        setattr(module, name, by)

    # -- the two layers ----------------------------------------------------------------------------

    def _path(self, path: Any) -> str | None:
        """The absolute path that an argument means; None for what is passed through."""
        try:
            text = os.fsdecode(path)
        except TypeError:  # a descriptor
            return None
        text = os.path.abspath(text)  # noqa: PTH100 - pathlib keeps ".."
        if any(text == through or text.startswith(through + "/") for through in self._through):
            return None
        return None if self._is_temporary(text) else text

    def _listed(self, path: Any) -> str | None:
        """The same, of a directory whose entries are looked at."""
        return self._path(path)

    def _is_temporary(self, text: str) -> bool:
        """Whether a path lies in what `tempfile` or a compiler made for a process, and the program does not."""
        if not text.startswith(self._temporary):
            return False
        first = text[len(self._temporary) :].partition("/")[0]
        return first.startswith(_TEMPORARY) and not self._working.startswith(f"{self._temporary}{first}/")

    def _exists(self, path: str) -> bool:
        try:
            self._os["lstat"](path)
        except OSError:
            return False
        return True

    def _is_removed(self, path: str) -> bool:
        if self._later and not self._is_early():
            self._later = frozenset()
        return path in self._removed or path in self._later

    def _hidden(self, path: str) -> bool:
        if not (self._removed or self._later):
            return False
        if path in self._awaited and path not in self._removed:
            return False
        return self._is_removed(path) or any(self._is_removed(str(parent)) for parent in Path(path).parents)

    def _present(self, path: str) -> str:
        """Where the present version of a path is (or would be, if there is none)."""
        if self._empty:
            return path
        upper = self._upper + path
        return upper if self._exists(upper) or self._hidden(path) else path

    def _looked_for(self, path: str) -> str:
        """`_present`, for a look of the script's; it may wait for what another process makes."""
        present = self._present(path)
        if self._later and present != path and not (self._exists(present) or self._removed):
            self._missed[path] += 1
            if self._missed[path] == MAX_LOOKS:
                self._awaited.add(path)
        return present

    def _up(self, path: str, *, copy: bool = True) -> str:
        """The path in the upper layer to write to; the present version is copied there first."""
        upper, present = self._upper + path, self._present(path)
        self._empty = False
        parent = os.path.dirname(path)  # noqa: PTH120
        if present != upper and parent != path and self._exists(self._present(parent)):
            self._parents(upper)
        if copy and present != upper and self._exists(present):
            if os.path.isdir(path) and not os.path.islink(path):  # noqa: PTH112, PTH114
                self._parents(upper + "/x")
                for name in self._listdir(path):
                    self._up(f"{path}/{name}")
            else:
                shutil.copy2(present, upper, follow_symlinks=True)
        elif parent != path and self._exists(self._present(parent)):
            self._parents(upper)
        return upper

    def _parents(self, upper: str) -> None:
        missing = []
        parent = os.path.dirname(upper)  # noqa: PTH120
        while not self._exists(parent):
            missing.append(parent)
            parent = os.path.dirname(parent)  # noqa: PTH120
        for directory in reversed(missing):
            self._os["mkdir"](directory)

    # -- what takes the place of Python's functions -----------------------------------------------------

    def _opening(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def opening(file: Any, mode: str = "r", *args: Any, **options: Any) -> Any:
            path = None if self._empty and mode in _READ_MODES else self._path(file)
            if path is None:
                return function(file, mode, *args, **options)
            if set(mode) & set("wax+"):
                if "x" in mode and self._exists(self._present(path)):
                    raise FileExistsError(17, os.strerror(17), path)
                return function(self._up(path, copy="w" not in mode), mode, *args, **options)
            return function(self._looked_for(path), mode, *args, **options)

        return opening

    def _open_descriptor(self, path: Any, flags: int, *args: Any, **options: Any) -> int:
        text = self._path(path)
        if text is not None and options.get("dir_fd") is None:
            if flags & _WRITE_FLAGS:
                if flags & os.O_EXCL and self._exists(self._present(text)):
                    raise FileExistsError(17, os.strerror(17), text)
                if not flags & os.O_CREAT and not self._exists(self._present(text)):
                    raise FileNotFoundError(2, os.strerror(2), text)
                path = self._up(text, copy=not flags & os.O_TRUNC)
            else:
                path = self._looked_for(text)
        found: int = self._os["open"](path, flags, *args, **options)
        return found

    def _reading(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def reading(path: Any = ".", *args: Any, **options: Any) -> Any:
            if self._empty:
                return function(path, *args, **options)
            text = self._path(path) if options.get("dir_fd") is None else None
            return function(path if text is None else self._looked_for(text), *args, **options)

        return reading

    def _changing(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def changing(path: Any, *args: Any, **options: Any) -> Any:
            text = self._path(path) if options.get("dir_fd") is None else None
            return function(path if text is None else self._up(text), *args, **options)

        return changing

    def _removing(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def removing(path: Any, *args: Any, **options: Any) -> None:
            text = self._path(path) if options.get("dir_fd") is None else None
            if text is None:
                function(path, *args, **options)
                return
            upper, present = self._upper + text, self._present(text)
            if not self._exists(present):
                raise FileNotFoundError(2, os.strerror(2), text)
            if function is self._os["rmdir"] and self._listdir(text):
                raise OSError(39, os.strerror(39), text)
            if present == upper:
                function(upper)
            self._empty = False
            self._removed.add(text)

        return removing

    def _mkdir(self, path: Any, *args: Any, **options: Any) -> None:
        text = self._path(path) if options.get("dir_fd") is None else None
        if text is None:
            self._os["mkdir"](path, *args, **options)
            return
        if self._exists(self._present(text)):
            raise FileExistsError(17, os.strerror(17), text)
        self._os["mkdir"](self._up(text), *args, **options)

    def _rename(self, source: Any, target: Any, **options: Any) -> None:
        old, new = (None, None) if options else (self._path(source), self._path(target))
        if old is not None and not self._exists(self._present(old)):
            raise FileNotFoundError(2, os.strerror(2), old)
        # Either may be a path that is passed through: a file is made in the directory for temporary ones, and moved.
        given = source if old is None else self._up(old)
        self._os["rename"](given, target if new is None else self._up(new, copy=False), **options)
        if old is not None:
            self._removed.add(old)
        if new is not None and os.path.isdir(new):  # noqa: PTH112
            self._removed.add(new)  # the renamed directory does not contain what was there before

    def _listdir(self, path: Any = ".") -> list[Any]:
        text = None if self._empty else self._listed(path if path is not None else ".")
        if text is None:
            listed: list[Any] = self._os["listdir"](path)
            return listed
        names = [entry.name for entry in self._entries(text)]
        return [os.fsencode(name) for name in names] if isinstance(path, bytes) else names

    def _scandir(self, path: Any = ".") -> Any:
        text = None if self._empty else self._listed(path if path is not None else ".")
        if text is None:
            return self._os["scandir"](path)
        shown = os.fsdecode(path if path is not None else ".")
        entries = [_DirectoryEntry(entry, os.path.join(shown, entry.name)) for entry in self._entries(text)]  # noqa: PTH118
        return DirectoryListing(iter(entries))

    def _entries(self, path: str) -> list[os.DirEntry[str]]:
        upper = self._upper + path
        found: dict[str, os.DirEntry[str]] = {}
        if not self._hidden(path) and (self._exists(path) or not self._exists(upper)):
            with self._os["scandir"](path) as entries:
                found = {e.name: e for e in entries if not self._is_removed(os.path.join(path, e.name))}  # noqa: PTH118
        elif not self._exists(upper):
            raise FileNotFoundError(2, os.strerror(2), path)
        if self._exists(upper):
            with self._os["scandir"](upper) as entries:
                found |= {entry.name: entry for entry in entries}
        return list(found.values())

    def _torch(self, function: _Wrapped, place: int, name: str, *, write: bool) -> Callable[..., Any]:
        def through(*args: Any, **options: Any) -> Any:
            target = args[place] if len(args) > place else options.get(name)
            if isinstance(target, str | os.PathLike) and (path := self._path(target)) is not None:
                target = self._up(path, copy=False) if write else self._present(path)
                if len(args) > place:
                    args = (*args[:place], target, *args[place + 1 :])
                else:
                    options[name] = target
            return function(*args, **options)

        return through


def _ended(function: Callable[..., Any], left: WeakSet[threading.Thread]) -> Callable[..., Any]:
    """A function of the file system, which the threads that a script left behind can no longer call."""

    @functools.wraps(function)
    def calling(*args: Any, **options: Any) -> Any:
        if threading.current_thread() in left:
            raise OSError(errno.EROFS, "the replay that this thread belongs to has ended")
        return function(*args, **options)

    return calling


class _DirectoryEntry:
    """A directory entry under the name that the script knows."""

    def __init__(self, entry: os.DirEntry[str], path: str) -> None:
        self._entry = entry
        self.name = entry.name
        self.path = path

    def __getattr__(self, name: str) -> Any:
        return getattr(self._entry, name)

    def __fspath__(self) -> str:
        return self.path


class DirectoryListing:
    """What ``os.scandir`` returns."""

    def __init__(self, entries: Iterator[Any]) -> None:
        self._entries = entries

    def __iter__(self) -> Iterator[_DirectoryEntry]:
        return self._entries

    def __next__(self) -> Any:
        return next(self._entries)

    def __enter__(self) -> DirectoryListing:
        return self

    def __exit__(self, *args: object) -> None:
        pass

    def close(self) -> None:
        """There is nothing to close."""
