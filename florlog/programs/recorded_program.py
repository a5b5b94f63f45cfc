"""The program of a run as it was recorded, to be run again whatever has become of its files.

The recorded texts run under the paths that they had: ``__file__``, tracebacks and what the script reads beside
itself are as they were, and today's working tree does not matter.  Modules of the user that the recording does not
have (imported late by a run that was killed) are today's.
"""

from __future__ import annotations

import linecache
import sys
from contextlib import AbstractContextManager, nullcontext

from florlog_recovery import Loop, RunTree
from florlog_wal import Store

from florlog.errors import FlorlogError
from florlog.following.guide import Guide
from florlog.program.environment import CELLS
from florlog.program.recorded_sources import recorded_sources
from florlog.programs.hands_free import KEY, replay_hands_free
from florlog.programs.notebook_cells import run_cells
from florlog.programs.rerunning import rerunning
from florlog.programs.scripts import RecordedFinder, run_as_main
from florlog.source.edit.loop_choice import choose
from florlog.source.edit.rewrite import reading
from florlog.source.names.syntax import read_as
from florlog.source.reach.regions import Location, ProgramAnalysis


class RecordedProgram:
    """The script and the local modules of a run.  Raises `FlorlogError` when the run has no recorded script."""

    def __init__(self, store: Store, tree: RunTree) -> None:
        self._begin = tree.begin
        sources = recorded_sources(store, tree)
        self._texts = {source.path: source.text for source in sources}
        self._modules = {
            source.module: (source.path, source.text) for source in sources if source.module != "__main__"
        }
        self.script = next((source.path for source in sources if source.module == "__main__"), "")
        if not self.script:
            raise FlorlogError(f"the script of run {tree.run} was not recorded: it was not run as a file")
        first = {path: self._texts[path] for path, _, _ in tree.begin.sources}
        self._reading = reading(choose(first).loops) if tree.begin.environment.get(KEY) else None

    def run(self, guide: Guide) -> None:
        """Run it along a guide.  Raises `FlorlogError` for what it raises."""
        for path, text in self._texts.items():
            linecache.cache[path] = (len(text), None, text.splitlines(keepends=True), path)
        sys.meta_path.insert(0, finder := RecordedFinder(self._modules))
        text = self._texts[self.script]
        try:
            with rerunning(self._begin, guide, self.script, self._texts):
                if CELLS in self._begin.environment:
                    run_cells(self.script, self._begin, self._reading, text)
                elif self._reading is None:
                    run_as_main(self.script, self._begin.argv, instrumented=True, text=text)
                else:
                    replay_hands_free(self.script, self._begin, self._reading, text)
        finally:
            sys.meta_path.remove(finder)

    def steady_before(self, loop: Loop) -> bool:
        """Whether the body around a loop, up to the loop, gives the same in every process (`steadiness`)."""
        file, qualname, line = loop.site
        outer = loop.parent.loop
        with self._read():
            program = ProgramAnalysis(self._texts, self.script)
            return program.steady(Location(file, line, qualname), None if outer is None else outer.site)

    def _read(self) -> AbstractContextManager[None]:
        return nullcontext() if self._reading is None else read_as(self._reading)
