"""Executing a plan: a script is run along it, here or by several workers, and what it finds is stored."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace

from florlog_recovery import AtomSequence, Node, Plan, RunTree, split
from florlog_wal import RunLog

from florlog.errors import EarlierRunError, FlorlogError, ImageError
from florlog.following.failed_images import FailedImages, not_entered
from florlog.following.guide import Guide
from florlog.following.outside import Outside, present_texts
from florlog.following.shortcuts import Shortcuts
from florlog.following.trust import CONSISTENT, DIVERGED, PROVEN, UNVERIFIED, FoundValue
from florlog.hindsight.request import Request, plan_for
from florlog.program.environment import changes, environment
from florlog.program.process import Adopted
from florlog.program.recorded_sources import recorded_sources
from florlog.program.terminal import report
from florlog.programs.adoption import adopted_again, adopting
from florlog.programs.finders import LocalModuleFinder
from florlog.programs.guided_run import guided_run
from florlog.programs.kinds import kind_of
from florlog.redo.pool import redo_in_parallel
from florlog.redo.redone import Redone, merged
from florlog.redo.storing import store_values
from florlog.source.edit.edits import Edits
from florlog.source.edit.instrument import Instrumenter
from florlog.source.names.syntax import read_as

Progress = Callable[[int], None]
"""Gets the number of innermost iterations that were executed so far."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a replay found."""

    values: Sequence[FoundValue]  # in the order of the run, with those that earlier replays found
    differences: Sequence[str]  # from the recording
    seconds: float  # of the script's run, set-up included
    stored: bool
    spans: Sequence[float] = ()  # as of `Guide`
    passed: Mapping[int, int] = field(
        default_factory=dict
    )  # how often each of the request's pieces was passed over


def answer(
    log: RunLog, request: Request, plan: Plan, *, progress: Progress | None = None, workers: int = 1
) -> Answer:
    """Execute a plan by running the request's script in so many processes, and store the values found.

    One worker is this process.  Raises `FlorlogError` when the script itself fails.
    """
    started = time.perf_counter()
    atoms = request.wanted.atoms
    if not atoms:
        return Answer(_with_earlier(request, []), [], time.perf_counter() - started, stored=True)
    parts = (
        split(
            request.tree,
            atoms,
            workers,
            request.costs,
            request.unusable,
            request.skippable.loops,
            request.enterable.__contains__,
        )
        if workers > 1
        else []
    )
    if len(parts) > 1:
        done = redo_in_parallel(log, request, parts, progress)
    else:
        done = redo(log, request, plan, progress)
    seconds = time.perf_counter() - started
    stored = store_values(log, request, done)
    values = _with_earlier(request, done.values)
    return Answer(values, done.differences, seconds, stored, done.spans, done.passed)


def redo(log: RunLog, request: Request, plan: Plan, progress: Progress | None = None) -> Redone:
    """Execute a plan in this process; where an image cannot be restored, one that does without it."""
    guide, request = _led(log, request, plan, progress)
    if ran := guide.shortcuts.ran:
        report(ran[0] + (f" (and {len(ran) - 1} more)" if len(ran) > 1 else ""))
    if guide.checks.excused:
        report(f"not compared, as it comes from outside of the program: {guide.checks.excused[0]}")
    found, differences, passed = guide.found.values, guide.checks.differences, guide.omissions.passed
    if guide.omissions.mistaken:
        report(f"{guide.omissions.mistaken}: from there on all is redone in full")
        values_before, differences_before, passed_before = guide.checks.before
        request = _rest(request, guide).without_skipping()
        again, request = _led(log, request, plan_for(request), progress)
        found = merged([found[:values_before], again.found.values])
        differences = [*differences[:differences_before], *again.checks.differences]
        passed = passed[:passed_before]
        guide = again
    sites = {(added.file, added.line) for added in request.added}
    values = [f for f in found if (f.file, f.line) in sites and request.wants(f.path)]
    labelled = _doubted(_elsewhere(values, request.tree), request)
    return Redone(labelled, differences, Counter(passed), guide.spans, guide.measured.data)


def _rest(request: Request, guide: Guide) -> Request:
    """The request for what comes after the place up to which a guide's values hold."""
    if (place := guide.checks.settled) is None:
        return request
    atoms = AtomSequence(request.tree, request.wanted.atoms)
    return request.limited_to(atoms.part(atoms.before(*place), len(atoms)))


def _elsewhere(values: Sequence[FoundValue], tree: RunTree) -> Sequence[FoundValue]:
    """Values labelled by the environment: not PROVEN where the recorded ones came out equal in another one."""
    changed = changes(tree.begin.environment, environment())
    if not changed:
        return values
    report(f"the environment differs from the recording's: {'; '.join(changed)}")
    return [
        replace(value, trust=CONSISTENT, detail=changed[0]) if value.trust == PROVEN else value
        for value in values
    ]


def _doubted(values: Sequence[FoundValue], request: Request) -> Sequence[FoundValue]:
    """Values of a forced replay, labelled: for what changed code may have computed, nothing recorded vouches."""
    doubts = request.doubts
    if doubts is None:
        return values

    def labelled(value: FoundValue) -> FoundValue:
        if value.trust == DIVERGED:
            return value
        if doubt := doubts.of(request.tree, value.path):
            return replace(value, trust=UNVERIFIED, detail=doubt)
        if value.trust == PROVEN:
            return replace(value, trust=CONSISTENT, detail=request.remarks.changes[0])
        return value

    return [labelled(value) for value in values]


def _with_earlier(request: Request, values: Sequence[FoundValue]) -> Sequence[FoundValue]:
    """The values found, and those that the log had for other statements and iterations, in order of place."""
    fresh = {(found.file, found.line, found.path) for found in values}
    older = [f for f in request.earlier.values if (f.file, f.line, f.path) not in fresh]
    if not older:
        return values

    def place(found: FoundValue) -> list[tuple[int, int]]:
        node: Node | None = request.tree.root
        steps = []
        for name, index in found.path:
            loop = None if node is None else node.find(name)
            steps.append((-1 if loop is None else loop.order, index))
            node = None if loop is None else loop.nodes.get(index)
        return steps

    return sorted([*values, *older], key=place)


def _led(log: RunLog, request: Request, plan: Plan, progress: Progress | None) -> tuple[Guide, Request]:
    """Run the request's script along a plan, and along others as long as images fail; the guide that led it to its end.

    Also the request, without the images that failed.
    """
    failed = FailedImages(log.path, request.tree)
    while True:
        guide = _guide(log, request, plan)
        if progress is not None:
            guide.progress = progress
        try:
            _follow(log, request, guide)
        except EarlierRunError as error:
            request = _executing_runs_before(request, str(error))
        except FlorlogError as error:
            if guide.image is None and request.passes_over_runs:
                request = _executing_runs_before(request, str(error))
                continue
            if guide.image is None or not isinstance(error, ImageError):
                raise
            if guide.lost:
                report(not_entered(guide.image, str(error)))
                request = replace(request, enterable=frozenset())
            else:
                unusable = failed.without(request.unusable, guide.image, str(error))
                request = replace(request, unusable=unusable)
            plan = plan_for(request)
        else:
            if not (guide.checks.differences and request.passes_over_runs):
                return guide, request
            request = _executing_runs_before(request, guide.checks.differences[0])


def _executing_runs_before(request: Request, why: str) -> Request:
    report(f"earlier runs of the program, which were passed over, are executed ({why})")
    return request.executing_runs_before()


def _guide(log: RunLog, request: Request, plan: Plan) -> Guide:
    program = request.program
    guide = Guide(
        log,
        request.tree,
        plan,
        request.program.lines,
        readings=request.wanted.readings,
        shortcuts=Shortcuts(
            request.wanted.exits,
            request.skippable.loops,
            request.skippable.pieces,
            request.skippable.passing,
        ),
    )
    guide.checks.excuse(Outside(request.tree, lambda: present_texts(program.files), program.script))
    return guide


def _follow(log: RunLog, request: Request, guide: Guide) -> None:
    """Run the request's script along a guide."""
    before = set(sys.modules)
    adopted = adopted_again({source.path: source.text for source in recorded_sources(log, request.tree)})
    try:
        _execute(request, guide, adopted)
    finally:
        for name in set(sys.modules) - before:  # a second run of the script makes its modules anew
            if str(getattr(sys.modules[name], "__file__", None)) in request.program.files.keys() - adopted:
                del sys.modules[name]


def _execute(request: Request, guide: Guide, adopted: Mapping[str, Adopted]) -> None:
    program, skippable = request.program, request.skippable
    begin, files = request.tree.begin, program.files.keys() - adopted.keys()
    skips = [*skippable.loops.values(), *(piece.left for piece in skippable.pieces)]
    edits = Edits(
        exits=tuple(request.wanted.exits.values()),
        added=program.apart,
        may_fail=frozenset(place for skipped in skips for place in skipped.may_fail),
        pieces=skippable.pieces,
        unasked=request.unasked,
    )
    instrumenter = Instrumenter(edits)
    modules = {name: path for name, path in program.modules.items() if path in files}
    with (
        LocalModuleFinder(files, instrumenter, modules),
        nullcontext() if program.reading is None else read_as(program.reading),
        adopting(adopted, instrumenter),
        guided_run(begin, guide, program.script, files, instrumenter, request.runs_before),
    ):
        kind_of(begin).replay(program.script, instrumenter, program.reading)
