"""While a resumed run sets up, its script does not see the files that the run itself has made.

A resume is the real run: whatever is not hidden is read and written as ever.  A file that is hidden is not there until
the first loop begins.  What the set-up writes in its place is kept apart.  Where loops are executed again from their
beginning it is what is there then.  Otherwise it is thrown away: what is there came later.  Three things reach the real
place nonetheless: what is appended to a file or changed in its midst, what is not there, and what the script still
holds open for writing.
"""

from __future__ import annotations

import errno
import fcntl
import functools
import os
import shutil
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from types import TracebackType
from typing import Any

from florlog.following.sandbox import DirectoryListing, FileOverlay
from florlog.program.terminal import reason, warn

_DESCRIPTORS = "/proc/self/fd"


class HiddenFiles(FileOverlay):
    """A context manager; within, until `show`, the paths ``made`` and what is below them are not there."""

    def __init__(self, made: Collection[str]) -> None:
        super().__init__(made, lambda: True)
        self.hides = bool(made)
        """Whether anything is hidden."""
        self._process = os.getpid()
        self._shown: set[str] = set()
        self._replaced: list[tuple[Any, str, Any, Any]] = []

    def __enter__(self) -> HiddenFiles:
        if self.hides:
            super().__enter__()
            self._os["rename"] = _moving(self._os["rename"])
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.show()

    def show(self, *, anew: bool = False) -> None:
        """Everything is there from now on; ``anew``: the loops begin anew, on what the set-up wrote now."""
        if self.hides:
            self._put_back()
            held = dict(_held_open(self._upper))
            for path in _below(self._upper):
                place = path.removeprefix(self._upper)
                try:
                    _settle(path, place, held.get(path, ()), over=anew)
                except OSError as failed:
                    warn(f"{place}, which the script wrote before its first loop, is lost: {reason(failed)}")
            shutil.rmtree(self._upper, ignore_errors=True)

    def discard(self) -> None:
        """The process starts over: nothing that its set-up wrote in the place of a hidden file is kept."""
        if self.hides:
            self._put_back()
            shutil.rmtree(self._upper, ignore_errors=True)

    def _put_back(self) -> None:
        self.hides, self._later = False, frozenset()
        while self._replaced:
            module, name, before, by = self._replaced.pop()
            if getattr(module, name) is by:  # and the script has not replaced it too
                setattr(module, name, before)

    def _replace(self, module: Any, name: str, by: Any) -> None:
        before = getattr(module, name)
        if callable(by):
            by = self._named(before, by)
        self._replaced.append((module, name, before, by))
        setattr(module, name, by)

    def _named(self, before: Callable[..., Any], function: Callable[..., Any]) -> Callable[..., Any]:
        """What takes the place of a function; its errors name the path that it was given."""

        @functools.wraps(before)
        def calling(*args: Any, **options: Any) -> Any:
            try:
                return function(*args, **options)
            except OSError as error:
                if args and str(error.filename).startswith(self._upper) and not isinstance(args[0], int):
                    error.filename = os.fspath(args[0]) if isinstance(args[0], os.PathLike) else args[0]
                raise

        return calling

    # -- what is hidden ------------------------------------------------------------------------------

    def _path(self, path: Any) -> str | None:
        """As in a replay, for what is hidden; None for all else, and in a forked child."""
        text = self._listed(path)
        return text if text is not None and self._hidden(text) and text not in self._shown else None

    def _listed(self, path: Any) -> str | None:
        return super()._path(path) if self.hides and os.getpid() == self._process else None

    def _is_removed(self, path: str) -> bool:
        return path not in self._shown and super()._is_removed(path)

    def _opening(self, function: Callable[..., Any]) -> Callable[..., Any]:
        opening = super()._opening(function)

        def appending(file: Any, mode: str = "r", *args: Any, **options: Any) -> Any:
            if set(mode) & set("a+"):
                self._show_one(file)
            return opening(file, mode, *args, **options)

        return appending

    def _open_descriptor(self, path: Any, flags: int, *args: Any, **options: Any) -> int:
        if flags & (os.O_APPEND | os.O_RDWR) and options.get("dir_fd") is None:
            self._show_one(path)
        return super()._open_descriptor(path, flags, *args, **options)

    def _scandir(self, path: Any = ".") -> Any:
        """Python's own entries, where all that a directory has is real: the script may keep them."""
        text = self._listed(path if path is not None else ".")
        if text is None or self._hidden(text) or self._exists(self._upper + text):
            return super()._scandir(path)
        with self._os["scandir"](path) as entries:
            return DirectoryListing(
                iter([e for e in entries if not self._is_removed(os.path.join(text, os.fsdecode(e.name)))])  # noqa: PTH118
            )

    def _show_one(self, path: Any) -> None:
        """A file is appended to, or changed in its midst or through memory: what is in it is not to be lost."""
        text = self._path(path)
        if text is not None and self._exists(text) and not self._exists(self._upper + text):
            self._shown.add(text)


def _moving(rename: Callable[..., Any]) -> Callable[..., Any]:
    """``os.rename``, also from one file system to another."""

    def moving(source: Any, target: Any, **options: Any) -> None:
        try:
            rename(source, target, **options)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            if os.path.isdir(source):  # noqa: PTH112
                shutil.copytree(source, target)
                shutil.rmtree(source)
            else:
                shutil.copy2(source, target)
                os.unlink(source)  # noqa: PTH108

    return moving


def _below(directory: str) -> Iterator[str]:
    for folder, directories, names in os.walk(directory):
        yield from (os.path.join(folder, name) for name in (*directories, *names))  # noqa: PTH118


def _held_open(directory: str) -> dict[str, list[int]]:
    """The descriptors of this process by which files below a directory can be written."""
    found: dict[str, list[int]] = {}
    with suppress(OSError):
        for name in os.listdir(_DESCRIPTORS):  # noqa: PTH208
            with suppress(OSError):
                path = os.readlink(f"{_DESCRIPTORS}/{name}")  # noqa: PTH115
                if path.startswith(directory + "/"):
                    flags = fcntl.fcntl(int(name), fcntl.F_GETFL)
                    found.setdefault(path, []).extend([int(name)] if flags & os.O_ACCMODE else [])
    return found


def _settle(path: str, place: str, descriptors: Collection[int], *, over: bool) -> None:
    """What a set-up wrote comes to its real place: ``over`` what is there, or if the script goes on writing it."""
    if os.path.isdir(path):  # noqa: PTH112
        os.makedirs(place, exist_ok=True)  # noqa: PTH103
    elif over or descriptors or not os.path.lexists(place):
        shutil.copyfile(path, place)
    for descriptor in descriptors:
        flags = fcntl.fcntl(descriptor, fcntl.F_GETFL) & ~(os.O_CREAT | os.O_EXCL | os.O_TRUNC)
        real = os.open(place, flags)
        try:
            os.lseek(real, os.lseek(descriptor, 0, os.SEEK_CUR), os.SEEK_SET)
            os.dup2(real, descriptor, inheritable=os.get_inheritable(descriptor))
        finally:
            os.close(real)
