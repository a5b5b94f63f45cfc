"""A directory with the source of a run as it was recorded; the user's own files may have changed since.

It mirrors the file system from the root: ``/home/me/train.py`` of the recording lies at ``DIRECTORY/home/me/train.py``.
The recorded files are written there with the recorded text; everything else next to them and next to their parents
(data, configurations, modules that were not recorded) is there as a symbolic link.  So a script finds what it
looks for relative to ``__file__``, and none of the user's files is copied, moved or written.

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

_NOT_LINKED = {"__pycache__", ".git"}


class SourceMirror:
    """A context manager that makes the directory and deletes it at the end.

    ``script`` is the recorded script's path, ``texts`` gives for each recorded file its text.  Raises `OSError`
    where the temporary directory cannot be written.
    """

    def __init__(self, script: str, texts: Mapping[str, str]) -> None:
        self._texts = {script: "", **texts}
        self._script = script
        self._directory = ""

    def __enter__(self) -> SourceMirror:
        self._directory = os.path.realpath(tempfile.mkdtemp(prefix="florlog-source-"))
        for recorded, text in self._texts.items():
            self.write(recorded, text)
        for directory in {parent for recorded in self._texts for parent in Path(recorded).parents}:
            self._link(directory)
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
        return self._directory + recorded

    def recorded(self, path: str) -> str:
        """The recorded file that lies at a path in the directory; any other path as it is."""
        original = path.removeprefix(self._directory)
        return original if original in self._texts else path

    def write(self, recorded: str, text: str) -> None:
        """Write another text for a recorded file into the directory."""
        place = Path(self.path(recorded))
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text, encoding="utf-8")

    def _link(self, directory: Path) -> None:
        try:
            entries = list(os.scandir(directory))
        except OSError:  # it is gone, or may not be read
            return
        for entry in entries:
            place = Path(self.path(entry.path))
            if entry.name not in _NOT_LINKED and entry.path != self._directory and not os.path.lexists(place):
                place.symlink_to(entry.path)
