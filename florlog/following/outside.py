"""Which values of a program come from outside of it, and may differ in each process that executes it.

Files, the environment and the network are not among them: a run that reads them again has to find what it found.

The time that an epoch took is logged by many scripts, and is another one whenever the epoch is executed again.  Source
analysis tells such values (`florlog.source.skip.noise`).  It is asked only where something differs.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from florlog_recovery import RunTree

from florlog.following.trust import hashes_repeat
from florlog.program.process import this_process

if TYPE_CHECKING:  # importing florlog does not wait for source analysis
    from florlog.source.reach.regions import ProgramAnalysis


def present_texts(files: Iterable[str]) -> dict[str, str]:
    """The texts of those files that there are."""
    texts = {file: this_process.text_of(file) for file in files}
    return {file: text for file, text in texts.items() if text}


class Outside:
    """The answers for one program.  ``texts``: its files, of which ``script`` is one; read when they are needed."""

    def __init__(self, tree: RunTree, texts: Callable[[], Mapping[str, str]], script: str) -> None:
        self._tree = tree
        self._texts = texts
        self._script = script

    @functools.cached_property
    def _program(self) -> ProgramAnalysis | None:
        from florlog.source.names.syntax import SourceError
        from florlog.source.reach.regions import ProgramAnalysis

        try:
            return ProgramAnalysis(dict(self._texts()), self._script)
        except (SourceError, LookupError):
            return None

    def excuses(self, site: tuple[str, int, str], name: str) -> bool:
        """Whether the value that a site (file, line, qualified name) logs under a name comes from outside."""
        from florlog.source.names.outside import INPUTS
        from florlog.source.reach.regions import Location

        if self._program is None:
            return False
        if site[0] in self._adopted and name.endswith(self.clock_keys()):
            return True
        same_hashes = hashes_repeat(self._tree)
        read = self._program.outside(Location(*site), [name], same_hashes=same_hashes).outside
        return read is not None and read.kind not in INPUTS

    @functools.cached_property
    def _adopted(self) -> frozenset[str]:
        """The files of frameworks of which the program has excerpts."""
        from florlog.source.names.excerpts import excerpt_of

        return frozenset(file for file, text in self._texts().items() if excerpt_of(text) is not None)

    def clock_keys(self) -> tuple[str, ...]:
        """How the keys end under which adopted modules of frameworks keep what they read from the clock."""
        return () if self._program is None else self._program.clock_keys

    def noisy(self) -> frozenset[tuple[str, str]]:
        """The variables, by their code's qualified name, and attributes, with "" for that, that hold such values."""
        if self._program is None:
            return frozenset()
        return self._program.noisy(same_hashes=hashes_repeat(self._tree))
