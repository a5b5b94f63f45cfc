"""Opening a run that is recorded: a new one, or an earlier one that goes on."""

from __future__ import annotations

import atexit
import math
import sys
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from florlog_recovery import Loop, Plan, RunTree, last_restore, plan_resume
from florlog_recovery.costs import KIND
from florlog_wal import Commit, Note, RunBegin, RunLog, Store

from florlog.errors import FlorlogError, OnlyReadError
from florlog.following.blind_entries import enterable_loops
from florlog.following.failed_images import images_of_others
from florlog.following.outside import present_texts
from florlog.following.recorded_analysis import recorded_analysis
from florlog.images.budget import Room, default_budget, default_text
from florlog.images.policy import Policy
from florlog.program import units
from florlog.program.environment import environment, main_script, own_directories, rank
from florlog.program.loading import seconds_since_import
from florlog.program.measured_costs import costs_of, restore_costs
from florlog.program.process import this_process
from florlog.program.recorded_sources import recorded_sources
from florlog.program.stores import tree_of
from florlog.program.terminal import report
from florlog.recording.checkpointer import NO_IMAGE, Tell
from florlog.recording.early_audit import early_audit
from florlog.recording.journal import Journal
from florlog.recording.log_to_write import log_to_write
from florlog.recording.own_files import MIN_PROOF_SECONDS, hidden_files
from florlog.recording.resuming import ResumeGuide, went_back
from florlog.recording.roles import Resume
from florlog.recording.run import Run
from florlog.recording.run_arguments import Options

if TYPE_CHECKING:  # importing florlog does not wait for source analysis
    from florlog.source.reach.regions import ProgramAnalysis

PROOF_SHARE = 0.01
"""Of the run's recorded time: what a resume may re-execute to be proven; recording costs as much."""
MAX_UNSYNCED_SECONDS = 0.5
"""Seconds of commits that a power cut may cost (docs/decisions/11-a-window-of-half-a-second.md)."""


def recorded_run(
    store: Store,
    name: str,
    params: dict[str, Any],
    *,
    resume: str,
    how: Options,
    closing: ExitStack,
    meant: Resume | None,
    counts: bool,
) -> Run:
    """A run that writes into ``store``; ``closing`` is what happens when it closes.

    ``meant``: the resume that is meant for the run that opens now; ``counts``: whether the runs of this process name
    those before them.  The other arguments are those of `session.run`.
    """
    script = main_script()
    opened = this_process.opened
    options = {"durability": how.durability, "window": MAX_UNSYNCED_SECONDS}
    log, run, resumed = log_to_write(store, name, params, resume, options, meant, counts=counts)
    closing.callback(_close, log)
    guide = _guide_of(log, run, how.max_redo, meant, closing, anew=resume == "auto") if resumed else None
    number, size = rank()
    begin = RunBegin(
        run=run,
        name=name,
        kind="resume" if resumed else "record",
        script=script,
        argv=tuple(sys.argv[1:]),
        cwd=str(Path.cwd()),
        params=params,
        environment=environment(),
        sources=(),
        started=time.time(),
        rank=number,
        world_size=size,
        resumed_from=0 if guide is None else _resumed_from(guide.plan),
        earlier=log.sessions()[0].begin.earlier if resumed else opened.named if counts else (),
    )
    journal = Journal(log, begin, how.overhead, strict=how.strict)
    closing.callback(journal.close)
    if guide is not None:
        guide.journal = journal
    journal.watch()
    if not resumed:  # what a replay has to do before the run begins, with florlog imported
        notebook = this_process.notebook
        setup = notebook.seconds if notebook.file else seconds_since_import() - opened.seconds
        journal.append(Note(KIND, "", {"setup": setup}), journal.session)

    restore = restore_costs(store.path)
    policy = Policy(how.overhead, how.max_redo, restore)
    bound = default_budget(store.path) if how.budget is None else how.budget
    if bound is not None:
        if how.budget is None and not resumed:
            report(default_text(bound))
        journal.append(Note("policy", f"images may take {bound} bytes", {"budget": bound}), journal.session)

    def room_of(tell: Tell) -> Room:
        assert bound is not None
        return Room(log, bound, fresh=not resumed, tell=tell)

    made = Run(
        run_id=begin.run,
        name=name,
        script=script,
        journal=journal,
        guide=guide,
        policy=policy,
        room=None if bound is None else room_of,
        audit=early_audit(journal, begin, policy) if how.audit and not resumed and size == 1 else None,
        close=closing.close,
        strict=how.strict,
    )
    atexit.register(made.let_go)
    closing.callback(atexit.unregister, made.let_go)
    return made


def _close(log: RunLog) -> None:
    """Close the log of a run that was not opened, for which there is an error already; its journal closes any other."""
    with suppress(Exception):
        log.close()


def _guide_of(
    log: RunLog, run: str, max_redo: float, meant: Resume | None, closing: ExitStack, *, anew: bool
) -> ResumeGuide:
    """What leads the resume of a run; arguments as of `recorded_run` and `ResumeGuide`."""
    tree = tree_of(log)
    if tree.hooked:
        raise OnlyReadError(run, tree.hooked)
    commanded = meant if meant is not None and meant.commanded else None
    reopen(tree, extend=commanded is not None and commanded.extend)
    before = went_back(run, log, tree)

    def has_fingerprint(loop: Loop, index: int) -> bool:
        record = log.record(loop.commits[index]).record
        return isinstance(record, Commit) and bool(record.state or record.rng)

    if strange := images_of_others(log, tree):
        report(
            f"run {run} was not recorded on this machine by you: its images are not restored without "
            f"`florlog resume --trust {run}`, and all is redone from its start"
        )
    enterable = enterable_loops(tree, lambda: _unchanged_program(log, tree)) if before.blind else frozenset()
    plan, frontier = plan_resume(
        tree,
        costs_of(log, tree),
        before.images(tree) | strange,
        proof_seconds=proof_seconds(tree, max_redo),
        has_fingerprint=has_fingerprint,
        enterable=enterable.__contains__,
    )
    if not before.reasons and (said := _starting_over(log, tree, plan)):
        report(said)
    hidden = None if meant is None else meant.hidden
    if hidden is None:
        hidden = closing.enter_context(hidden_files(log, tree, own_directories(main_script())))
    force = commanded is not None and commanded.force
    return ResumeGuide(
        log,
        tree,
        plan,
        frontier,
        before,
        force=force,
        anew=anew and commanded is None,
        passed=() if meant is None else meant.passed,
        hidden=hidden,
    )


def _starting_over(log: RunLog, tree: RunTree, plan: Plan) -> str:
    """What it means that a resume executes all of a run's loops again, and why it does; "" where it does not."""
    restored = last_restore(plan.root)
    if restored is not None and (restored[1] > 0 or restored[0] is not tree.root.loops[0]):
        return ""
    count = sum(loop.count for loop in tree.loops())
    if not count:
        return f"run {tree.run} starts over: it was killed in its first iteration, or before"
    images = [(loop, index) for loop in tree.loops() for index in loop.images if (loop, index) != restored]
    notes = (entry.record for entry in log.scan(types=(Note,)))
    told = [note.text for note in notes if isinstance(note, Note) and note.kind == NO_IMAGE]
    why = told[0] if told else "no image was written before it was killed"
    took = units.duration_text(sum(sum(loop.seconds) for loop in tree.root.loops))
    again = f"{count} iterations, which took {took}, are executed again and compared"
    if images and not told:
        why = "so near to its start, it takes that to prove the state of an image"
    return f"run {tree.run} starts over: {again}; {why}"


def _unchanged_program(log: RunLog, tree: RunTree) -> ProgramAnalysis | None:
    """The program that goes on, analysed; None where its files are not what they were."""
    recorded = {source.path: source.text for source in recorded_sources(log, tree)}
    return recorded_analysis(log, tree) if present_texts(recorded) == recorded else None


def proof_seconds(tree: RunTree, max_redo: float) -> float:
    """What a resume may re-execute only to be proven: a hundredth of the run, or what its user has said of a crash."""
    recorded = sum(sum(loop.seconds) for loop in tree.root.loops)
    said = max_redo if math.isfinite(max_redo) else 0.0
    return max(MIN_PROOF_SECONDS, PROOF_SHARE * recorded, said)


def reopen(tree: RunTree, *, extend: bool) -> str:
    """Make a run's tree one that a resume can go on with; what is executed again, for a person, "" for a killed run.

    A complete run goes on where the script caught an exception that left an outermost loop; with ``extend`` also where
    a break or return left one.  Raises `FlorlogError` for a run that has nothing to go on with.
    """
    if tree.status != "complete":
        tree.reopen_unproven()
        return ""
    nothing = f"run {tree.run!r} is complete: there is nothing to resume"
    loop = next((loop for loop in reversed(tree.root.loops) if loop.left), None)
    if loop is None:
        raise FlorlogError(nothing)
    index = loop.count if loop.cut else loop.count - 1
    of = f" of {loop.length}" if loop.length >= 0 else ""
    where = f"loop {loop.name!r} at index {index}{of}"
    if not loop.cut and not extend:
        raise FlorlogError(
            f"{nothing}; a break or return left {where}: with --extend the run goes on there, and executes it again"
        )
    text = f"the script caught an exception that left {where}" if loop.cut else f"it goes on in {where}"
    loop.take_back()
    return text


def _resumed_from(plan: Plan | None) -> int:
    place = last_restore(plan.root) if plan is not None else None
    if place is None:
        return 0
    loop, index = place
    return loop.images[index].lsn
