"""A directory with the source of a run as it was recorded; the user's own files may have changed since.

It mirrors the file system from the root: ``/home/me/train.py`` of the recording lies at ``DIRECTORY/home/me/train.py``.
The recorded files are written there with the recorded text; everything else next to them and next to their parents
(data, configurations, modules that were not recorded) is there as a symbolic link.  So a script finds what it
looks for relative to ``__file__``, and none of the user's files is copied, moved or written.

A recorded path is never used as a path, because a store from somebody else may say anything.  It is read as names, and
each name that is not plain (`_is_plain`), or that differs from another one in case alone, is replaced by a name of
ours.  Files are made new in the directory, before there is a link in it, so nothing outside is written.

Not linked: ``__pycache__``, which belongs to other text, and ``.git``, so that a script that runs git does not take
the mirror for the user's work tree.  Code that walks directories without following links does not see what lies
below a linked one.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from florlog.programs.permission import Permit

_OURS = "florlog-source-"
_NOT_LINKED = {"__pycache__", ".git"}
_MAX_NAME_BYTES = 200  # file systems take 255
_MAX_PATH_BYTES = 2000  # below the directory; the system takes 4096
_Names = tuple[str, ...]


class SourceMirror:
    """A context manager that makes the directory and deletes it at the end.

    ``script`` is the recorded script's path, ``texts`` gives for each recorded file its text; ``permit`` says that this
    run's code may be executed.  Raises `OSError` where the temporary directory cannot be written.
    """

    def __init__(self, permit: Permit, script: str, texts: Mapping[str, str]) -> None:
        self._texts = {script: "", **texts}
        self._permit = permit
        self._script = script
        self._directory = ""
        self._places: dict[str, str] = {}  # recorded file -> its path in the directory
        self._recorded: dict[str, str] = {}  # and back

    def __enter__(self) -> SourceMirror:
        self._directory = os.path.realpath(tempfile.mkdtemp(prefix=_OURS))
        places = _placed(self._texts)
        for recorded, names in places.items():
            place = self._places[recorded] = "/".join((self._directory, *names))
            self._recorded[place] = recorded
            self._write(place, self._texts[recorded])
        own = {names[:depth] for names in places.values() for depth in range(len(names))}
        for names in own:
            self._link(names)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        shutil.rmtree(self._directory, ignore_errors=True)

    @property
    def script(self) -> str:
        """The script's path in the directory."""
        return self.path(self._script)

    def path(self, recorded: str) -> str:
        """The path of a recorded file in the directory."""
        return self._places[recorded]

    def recorded(self, path: str) -> str:
        """The recorded file that lies at a path in the directory; any other path as it is."""
        return self._recorded.get(path, path)

    @staticmethod
    def _write(place: str, text: str) -> None:
        Path(place).parent.mkdir(parents=True, exist_ok=True)
        with Path(place).open("x", encoding="utf-8", errors="replace") as file:
            file.write(text)

    def _link(self, names: _Names) -> None:
        """Link what lies in a directory of the user next to what the mirror has of it."""
        directory = "/" + "/".join(names)
        try:
            entries = list(os.scandir(directory))
        except (OSError, ValueError):  # it is gone, may not be read, or has a name of ours
            return
        for entry in entries:
            place = Path(self._directory, *names, entry.name)
            if entry.name not in _NOT_LINKED and entry.path != self._directory and not os.path.lexists(place):
                place.symlink_to(entry.path)


def _placed(recorded: Mapping[str, str]) -> dict[str, _Names]:
    """For each recorded path the names of its place below the directory; no two are in each other's way."""
    known: dict[_Names, dict[str, str]] = {}  # directory -> name of it, folded -> the name as it is used
    files: set[_Names] = set()
    found: dict[str, _Names] = {}
    for number, path in enumerate(recorded):
        parts = path.split("/")
        head, names = parts[0], parts[1:]
        own = bool(head) or not names or not all(map(_is_plain, names))
        if own or len(os.fsencode(path)) > _MAX_PATH_BYTES or not _fits(tuple(names), known, files):
            # A finder recognises a package by this name.
            names = [f"{_OURS}{number}", "__init__.py" if parts[-1] == "__init__.py" else f"{number}.py"]
        for depth, name in enumerate(names):
            known.setdefault(tuple(names[:depth]), {})[name.casefold()] = name
        files.add(tuple(names))
        found[path] = tuple(names)
    return found


def _fits(names: _Names, known: Mapping[_Names, Mapping[str, str]], files: set[_Names]) -> bool:
    """Whether a file can lie there next to the others: none is its directory, and no name differs in case alone."""
    if names in known or any(names[:depth] in files for depth in range(1, len(names) + 1)):
        return False
    return all(
        known.get(names[:depth], {}).get(name.casefold(), name) == name for depth, name in enumerate(names)
    )


def _is_plain(name: str) -> bool:
    """Whether a name of a recorded path is one that any file system takes, for one file in its directory."""
    if name in ("", ".", "..") or "\0" in name or name.startswith(_OURS):
        return False
    try:
        return len(os.fsencode(name)) <= _MAX_NAME_BYTES
    except UnicodeEncodeError:  # half a letter
        return False
