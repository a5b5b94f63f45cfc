"""One question put to many runs, each replayed from the source that it was recorded from.

The statements that a script has and a run's source lacks are placed into that source
(`florlog.source.diff.placement`), in a scratch directory (`florlog.programs.source_mirror`); the run is replayed from
there, by a process of its own, so that no run's settings or modules reach another one's.  Nothing of the user's is
written: no file, branch or index.

Which statements: those that the newest run of the script lacks; where it has them all, to each run those that this run
lacks.  What else was added comes along only where a placed statement reads what it binds.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from florlog_recovery import RunTree
from florlog_wal import RunLog, Store

from florlog.errors import FlorlogError, NoSuchRunError
from florlog.hindsight.compared_files import Compared, compared, present_paths
from florlog.hindsight.plan_text import plan_text
from florlog.hindsight.plan_view import PlanView
from florlog.program.recorded_sources import recorded_sources
from florlog.program.stores import is_recorded_from, listed_runs, log_of, tree_of
from florlog.program.terminal import report
from florlog.programs.permission import Permit, Trust, permit
from florlog.programs.source_mirror import SourceMirror
from florlog.redo.answer import Progress
from florlog.redo.progress import progress_line
from florlog.redo.replaying import Question, Replayed, replay_elsewhere
from florlog.source.diff.placement import CannotPlaceError, Wanted, needed, place, statement_at
from florlog.source.names.syntax import SourceError


@dataclass(frozen=True, slots=True)
class Version:
    """A run, and what came of the question there."""

    run: str
    replayed: Replayed | None = None
    refused: str = ""  # why there is no answer


def runs_of(store: Store, script: str) -> list[str]:
    """The runs that were recorded from a script, oldest first."""
    return [listed.run for listed in listed_runs(store) if is_recorded_from(listed.script, script)]


def replay_versions(
    store: Store,
    runs: Sequence[str],
    question: Question,
    trust: Trust,
    *,
    cwd: str | None = None,
    heard: Callable[[str], object] | None = None,
) -> list[Version]:
    """Answer a script's question for each of some runs whose code may be executed.

    The run and the script of ``question`` are replaced by each run and its own source; ``cwd`` and ``heard`` are as in
    `replay_elsewhere`.  Raises `NoSuchRunError` where there is no such run, and `FlorlogError` where the script asks
    for nothing.
    """
    script = question.script
    if not runs:
        raise NoSuchRunError(f"no run in {store.path} was recorded from {script}: `florlog runs` lists them")
    for run in runs:
        log_of(store, run)  # all of them exist
    log = log_of(store, (runs_of(store, script) or list(runs))[-1])
    wanted = _asked_of(compared(log, tree_of(log), script))

    def version(run: str) -> Version:
        log = log_of(store, run)
        tree = tree_of(log)
        try:
            texts = _placed(log, tree, script, wanted)
        except (CannotPlaceError, SourceError) as reason:
            return Version(run, refused=str(reason))
        if not texts:
            return Version(run, refused=NOTHING_NEW)
        try:
            return Version(run, _replayed(permit(log, tree, trust), log, tree, texts, question, cwd, heard))
        except FlorlogError as reason:
            return Version(run, refused=str(reason))

    found = [version(run) for run in runs]
    if all(version.refused == NOTHING_NEW for version in found):
        raise FlorlogError(f"no log statement of {script} is new to any of these runs: add one")
    return found


def report_versions(found: Iterable[Version]) -> None:
    """Say which runs have no values, and which differ from their recording."""
    for version in found:
        if version.replayed is None:
            report(f"run {version.run} has no values: {version.refused}")
        elif differences := version.replayed.answer.differences:
            report(f"run {version.run} differs from its recording: {differences[0]}")


NOTHING_NEW = "its source has every log statement of the script"


@dataclass(frozen=True)
class _File:
    """What is to be placed of a file, and its present text."""

    text: str
    wanted: tuple[Wanted, ...]


def _asked_of(files: Iterable[Compared]) -> dict[str, _File]:
    """The log statements that a run lacks and what else they need, by present file."""
    asked = {}
    for file in files:
        tree = ast.parse(file.new)
        logs = [added for added in file.diff.added if added.log_calls]
        if not logs:
            continue
        whole = {a.line: a for a in file.diff.added}
        main = {statement_at(tree, a.line) for a in logs}
        others = {statement_at(tree, a.line) for a in file.diff.added if not a.log_calls}
        chosen = main | needed(tree, main, others)
        wanted = []
        for node in sorted(chosen, key=lambda n: n.lineno):
            added = whole[node.lineno]
            known = file.diff.line_map.get(node.lineno) is not None
            names = tuple(n for call in added.log_calls for n in call.names) if known else ()
            wanted.append(Wanted(node.lineno, names))
        asked[file.present] = _File(file.new, tuple(wanted))
    return asked


def _placed(log: RunLog, tree: RunTree, script: str, asked: dict[str, _File]) -> dict[str, str]:
    """The texts of a run's files with the statements in them, by recorded path; none if it lacks none."""
    sources = recorded_sources(log, tree)
    if not asked:
        asked = _asked_of(compared(log, tree, script))
        if not asked:
            return {}
    places = present_paths(log, tree, sources, script)
    present = {places[source.path]: source for source in sources}
    texts = {source.path: source.text for source in sources}
    for file, what in asked.items():
        if file not in present:
            raise CannotPlaceError(f"its source has no {Path(file).name}")
        source = present[file]
        old = ast.parse(source.text)
        name = Path(source.path).name
        texts[source.path] = place(old, source.text, ast.parse(what.text), what.wanted, name).text
    return texts


def _replayed(
    allowed: Permit,
    log: RunLog,
    tree: RunTree,
    texts: dict[str, str],
    question: Question,
    cwd: str | None,
    heard: Callable[[str], object] | None,
) -> Replayed:
    with SourceMirror(allowed, tree.begin.script, texts) as mirror, ExitStack() as line:

        def announce(view: PlanView) -> Progress | None:
            print(plan_text(view), file=sys.stderr)
            return line.enter_context(progress_line(view["iterations_redone"]))

        shown = {mirror.path(recorded): recorded for recorded in texts}
        asked = replace(question, store=str(log.path), run=tree.run, script=mirror.script, shown=shown)
        return replay_elsewhere(asked, announce, cwd=cwd, heard=heard)
