"""The program of a run as it was recorded, to be run again whatever its files hold now.

The recorded texts run under the paths that they had: ``__file__``, tracebacks and what the script reads from its
directory are as they were, and today's working tree does not matter.  Modules of the user that the recording does not
have (imported late by a run that was killed) are today's.
"""

from __future__ import annotations

import linecache
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property

from florlog_recovery import Loop, RunTree
from florlog_wal import RunLog

from florlog.errors import FlorlogError
from florlog.following.blind_entries import enterable_loops
from florlog.following.earlier_runs import EarlierRun, Usable, earlier_runs, other_text
from florlog.following.executable import check_executable
from florlog.following.guide import Guide
from florlog.following.trust import hashes_repeat
from florlog.program.recorded_sources import recorded_sources
from florlog.programs.adoption import adopted_again, adopting
from florlog.programs.finders import RecordedFinder
from florlog.programs.guided_run import guided_run
from florlog.programs.kinds import kind_of, recorded_rewrite
from florlog.programs.permission import Permit
from florlog.source.edit.instrument import Instrumenter
from florlog.source.names.excerpts import excerpt_of
from florlog.source.names.syntax import read_as
from florlog.source.reach.regions import Location, ProgramAnalysis


class RecordedProgram:
    """The script and the local modules of a run, which may be executed.

    Raises `FlorlogError` when the run has no recorded script, or can only be read.
    """

    def __init__(self, permit: Permit, log: RunLog, tree: RunTree) -> None:
        assert permit.run == tree.run
        check_executable(tree)
        self._begin = tree.begin
        self._same_hashes = hashes_repeat(tree)
        sources = recorded_sources(log, tree)
        self.texts = {source.path: source.text for source in sources}
        self._modules = {
            source.module: (source.path, source.text)
            for source in sources
            if source.module != "__main__" and excerpt_of(source.text) is None
        }
        self.script = next((source.path for source in sources if source.module == "__main__"), "")
        if not self.script:
            raise FlorlogError(f"the script of run {tree.run} was not recorded: it was not run as a file")
        first = {path: self.texts[path] for path, _, _ in tree.begin.sources}
        self._rewrite = recorded_rewrite(tree.begin, first)

    def run(self, guide: Guide, runs_before: Sequence[EarlierRun] = ()) -> None:
        """Run it along a guide; ``runs_before``: what becomes of the runs that it opens before.

        Raises `FlorlogError` for what it raises.
        """
        adopted = adopted_again(self.texts)
        for path, text in self.texts.items():
            if path in adopted:
                continue
            linecache.cache[path] = (len(text), None, text.splitlines(keepends=True), path)
        instrumenter = Instrumenter()
        with (
            RecordedFinder(self._modules, instrumenter),
            self._read(),
            adopting(adopted, instrumenter),
            guided_run(self._begin, guide, self.script, self.texts, instrumenter, runs_before),
        ):
            program = kind_of(self._begin)
            program.replay(self.script, instrumenter, self._rewrite, self.texts[self.script])

    def runs_before(self, log: RunLog, tree: RunTree, *, whole: bool) -> tuple[EarlierRun, ...]:
        """What becomes of the runs that it opened before a run; ``whole`` as of `earlier_runs`."""

        def usable(earlier: RunLog, its: RunTree) -> Usable:
            if other_text(earlier, its, self.texts):
                return Usable(obstacle="it was recorded from another text")
            return Usable(enterable=enterable_loops(its, lambda: self.analysis))

        return earlier_runs(log, tree, usable, whole=whole)

    def steady_before(self, loop: Loop) -> bool:
        """Whether the body around a loop, up to the loop, gives the same in every process (`steadiness`)."""
        file, qualname, line = loop.site
        outer = loop.parent.loop
        site = None if outer is None else outer.site
        return not self.analysis.unsteady(Location(file, line, qualname), site, same_hashes=self._same_hashes)

    @cached_property
    def analysis(self) -> ProgramAnalysis:
        """What its source says."""
        with self._read():
            return ProgramAnalysis(self.texts, self.script)

    def _read(self) -> AbstractContextManager[None]:
        return nullcontext() if self._rewrite is None else read_as(self._rewrite)
