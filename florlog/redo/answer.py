"""Executing a plan: a script is run along it, and what it finds is stored beside the recording, never in it."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from florlog_recovery import AtomSequence, Node, Plan, split
from florlog_recovery.costs import KIND
from florlog_wal import Hindsight, Note, RunBegin, Store, WalError
from florlog_wal import Path as IterationPath

from florlog.errors import ImageError
from florlog.following.guide import Guide
from florlog.following.trust import CONSISTENT, DIVERGED, PROVEN, UNVERIFIED, FoundValue
from florlog.hindsight.changed_code import ChangedCode
from florlog.hindsight.known_answers import asked
from florlog.hindsight.request import Question, plan_for
from florlog.program.environment import changes, environment, thread_variables
from florlog.program.terminal import report
from florlog.programs.finders import LocalModuleFinder
from florlog.programs.guided_run import guided_run
from florlog.programs.kinds import kind_of
from florlog.recording.journal import Journal
from florlog.redo.pool import merged, redo_in_parallel
from florlog.source.edit.edits import Edits
from florlog.source.edit.instrument import Instrumenter


@dataclass(slots=True)
class Answer:
    """What a replay found; ``passed``: how often each of the question's pieces was passed over."""

    values: list[FoundValue]
    differences: list[str]
    seconds: float  # of the script's run, set-up included
    stored: bool
    spans: list[float] = field(
        default_factory=list
    )  # seconds to the first restore, and from each to the next
    passed: Mapping[int, int] = field(default_factory=dict)


def answer(
    store: Store,
    question: Question,
    plan: Plan,
    *,
    progress: Callable[[int], None] | None = None,
    workers: int = 1,
    argv: Sequence[str] = (),
) -> Answer:
    """Execute ``plan`` by running the question's script, and store the values found.

    ``workers``: how many processes do it; they get ``argv``, the arguments of the replay command.
    Raises `FlorlogError` when the script itself fails.
    """
    started = time.perf_counter()
    if not question.request:
        return Answer(_with_answered(question, []), [], time.perf_counter() - started, stored=True)
    atoms = AtomSequence(question.tree, question.request)
    parts = (
        split(question.tree, question.request, workers, question.costs, question.unusable, question.skippable)
        if workers > 1
        else []
    )
    if len(parts) > 1:
        variables = thread_variables(question.tree.begin.environment)
        found, differences, passed = redo_in_parallel(argv, parts, len(atoms), progress, variables)
        done = Redone(found, differences, passed=passed)
    else:
        done = redo(store, question, plan, progress)
    seconds = time.perf_counter() - started
    stored = _save(store, question, done)
    values = _with_answered(question, done.values)
    return Answer(values, done.differences, seconds, stored, done.spans, done.passed)


@dataclass(slots=True)
class Redone:
    """What came of executing a request."""

    values: list[FoundValue]
    differences: list[str]
    spans: list[float] = field(default_factory=list)  # as in `Answer`; several processes have none
    passed: Mapping[int, int] = field(default_factory=dict)  # the same
    measured: dict[str, Any] = field(default_factory=dict)  # costs, for later plans


def redo(
    store: Store, question: Question, plan: Plan, progress: Callable[[int], None] | None = None
) -> Redone:
    """Execute a plan in this process."""
    guide = _guide(store, question, plan)
    try:
        _follow(question, guide, progress)
    except ImageError as error:
        report(f"the images cannot be used, all is redone from the run's start: {error}")
        for loop in question.tree.loops():
            question.unusable.update((loop, index) for index in loop.images if index or loop.depth > 1)
        guide = _guide(store, question, plan_for(question))
        _follow(question, guide, progress)
    found, differences, passed = guide.checks.found, guide.checks.differences, guide.checks.passed
    if guide.ran:
        report(guide.ran[0] + (f" (and {len(guide.ran) - 1} more)" if len(guide.ran) > 1 else ""))
    if guide.checks.mistaken:
        report(f"{guide.checks.mistaken}: from there on all is redone in full")
        known, told, over = guide.checks.before
        before, said, passed = found[:known], differences[:told], passed[:over]
        if (place := guide.checks.settled) is not None:
            atoms = AtomSequence(question.tree, question.request)
            question.request = atoms.part(atoms.before(*place), len(atoms))
        question.skippable, question.pieces, question.passing = {}, [], {}
        guide = _guide(store, question, plan_for(question))
        _follow(question, guide, progress)
        found = merged([before, guide.checks.found])
        differences = [*said, *guide.checks.differences]
    sites = {(added.file, added.call.line) for added in question.added}
    values = [f for f in found if (f.file, f.line) in sites and question.wants(f.path)]
    changed = changes(question.tree.begin.environment, environment())
    if changed:
        report(f"the environment differs from the recording's: {'; '.join(changed)}")
        for value in values:
            if value.trust == PROVEN:  # the recorded values came out equal, but these were computed elsewhere
                value.trust, value.detail = CONSISTENT, changed[0]
    if question.changed is not None:
        _doubt(values, question.changed, question.changes[0])
    return Redone(values, differences, guide.spans, Counter(passed), guide.measured.data)


def _doubt(values: list[FoundValue], changed: ChangedCode, first: str) -> None:
    """Label values of a forced replay: what changed code may have computed is vouched for by nothing recorded."""
    for value in values:
        if value.trust == DIVERGED:
            continue
        if doubt := changed.doubt(value.path):
            value.trust, value.detail = UNVERIFIED, doubt
        elif value.trust == PROVEN:
            value.trust, value.detail = CONSISTENT, first


def _with_answered(question: Question, values: list[FoundValue]) -> list[FoundValue]:
    """The values found, and those that the log had for other statements and iterations, in order of place."""
    fresh = {(found.file, found.line, found.path) for found in values}
    older = [f for f in question.answered if (f.file, f.line, f.path) not in fresh]
    if not older:
        return values

    def place(found: FoundValue) -> list[tuple[int, int]]:
        node: Node | None = question.tree.root
        steps = []
        for name, index in found.path:
            loop = None if node is None else node.find(name)
            steps.append((-1 if loop is None else loop.order, index))
            node = None if loop is None else loop.nodes.get(index)
        return steps

    return sorted([*values, *older], key=place)


def _guide(store: Store, question: Question, plan: Plan) -> Guide:
    return Guide(
        store,
        question.tree,
        plan,
        question.lines,
        exits=question.exits,
        unsteady=question.unsteady,
        skippable=question.skippable,
        pieces=question.pieces,
        passing=question.passing,
    )


def _follow(question: Question, guide: Guide, progress: Callable[[int], None] | None) -> None:
    if progress is not None:
        guide.progress = progress
    before = set(sys.modules)
    try:
        _execute(question, guide)
    finally:
        for name in set(sys.modules) - before:  # a second run of the script makes its modules anew
            if str(getattr(sys.modules[name], "__file__", None)) in question.diffs:
                del sys.modules[name]


def _execute(question: Question, guide: Guide) -> None:
    begin = question.tree.begin
    files = set(question.diffs)
    skips = [*question.skippable.values(), *(piece.left for piece in question.pieces)]
    edits = Edits(
        exits=tuple(question.exits.values()),
        added=question.apart,
        may_fail=frozenset(place for skipped in skips for place in skipped.may_fail),
        pieces=tuple(question.pieces),
    )
    instrumenter = Instrumenter(edits)
    with (
        LocalModuleFinder(files, instrumenter, question.places),
        guided_run(begin, guide, question.script, files, instrumenter),
    ):
        kind_of(begin).replay(question.script, instrumenter, question.reading)


def _save(store: Store, question: Question, done: Redone) -> bool:
    """Write a replay session; False when the store cannot be written now."""
    tree = question.tree
    try:
        writer = Store.open(store.path, mode="w")
    except WalError as error:
        report(f"the values were not stored: {error}")
        return False
    began = time.perf_counter()
    with writer:
        begin = RunBegin(
            run=tree.run,
            name=tree.begin.name,
            kind="replay",
            script=question.shown.get(question.script, question.script),
            argv=tree.begin.argv,
            cwd=str(Path.cwd()),
            params=tree.begin.params,
            environment=environment(),
            sources=(),
            started=time.time(),
            rank=0,
            world_size=1,
            resumed_from=0,
        )
        journal = Journal(writer, begin)
        for path, group in _by_iteration(done.values):
            held = tuple(
                (
                    journal.place(
                        question.shown.get(f.file, f.file),
                        f.line,
                        f.qualname,
                        tuple(n for n, _ in path),
                        (f.name,),
                        text_at=f.file,
                    ),
                    f.name,
                    f.value,
                )
                for f in group
            )
            journal.append(Hindsight(path, held, group[0].trust, group[0].detail), journal.session)
        if done.measured:
            journal.append(Note(KIND, "", done.measured), journal.session)
        if not done.differences and question.chosen is not None:
            keys = {
                (question.shown.get(file, file), line): key for (file, line), key in question.keys.items()
            }
            journal.append(asked(question.chosen, keys), journal.session)
        journal.end("", began, "complete", None)
        return not journal.stopped


def _by_iteration(values: list[FoundValue]) -> Iterator[tuple[IterationPath, list[FoundValue]]]:
    """Values of one iteration and one trust, in order."""
    group: list[FoundValue] = []
    for found in values:
        if group and (found.path, found.trust, found.detail) != (
            group[0].path,
            group[0].trust,
            group[0].detail,
        ):
            yield group[0].path, group
            group = []
        group.append(found)
    if group:
        yield group[0].path, group
