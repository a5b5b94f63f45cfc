"""Whether a program that opens a run goes on with what an earlier process recorded, and how it comes there.

A process that was killed in the third run of its script is started again, and opens the first.  With `florlog resume`,
with ``resume="auto"`` and with a run's id it is clear, when the first run is opened, which one goes on; those before it
are passed over or executed whole (`florlog.following.earlier_runs`).
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, replace
from typing import Any, NoReturn

from florlog_recovery import RunTree
from florlog_wal import RunLocked, RunLog, Store, WalError

from florlog.errors import FlorlogError, ImageError
from florlog.following.blind_entries import enterable_loops
from florlog.following.earlier_runs import (
    DIFFERED,
    NO_IMAGE,
    EarlierGuide,
    EarlierRun,
    Usable,
    earlier_run,
    has_images,
)
from florlog.following.outside import Outside, present_texts
from florlog.following.recorded_analysis import recorded_analysis
from florlog.program import restart
from florlog.program.catalogue import ListedRun
from florlog.program.environment import main_script
from florlog.program.opened_runs import OpenedRuns
from florlog.program.process import this_process
from florlog.program.recorded_sources import recorded_sources
from florlog.program.stores import listed_runs, log_of, open_store, tree_of
from florlog.program.terminal import reason, report
from florlog.recording.resuming import begins_anew, learnt
from florlog.recording.roles import Replay, Resume
from florlog.recording.run_arguments import same_params
from florlog.state.left_out import READ, reads


def resume_here(
    store: Store, name: str, params: Mapping[str, Any], resume: str, *, counts: bool
) -> tuple[Resume | None, bool]:
    """The resume in which the program opens a run, None outside of one, and whether this is an earlier run of it.

    ``params`` and ``resume`` as of `florlog.run`, ``counts`` as of `Meant.place`.  Raises `FlorlogError` where the
    user has asked for the resume of a run, and it is not the one here.
    """
    opened = this_process.opened
    role = this_process.role
    found = role if isinstance(role, Resume) else opened.goes_on
    if found is None and counts:
        found = _named(store, resume, opened) if resume not in ("never", "auto") else None
        if resume == "auto" and not opened.runs:
            found = _unfinished(store, name, params)
        opened.goes_on = found
    if found is None:
        return None, False
    try:
        place = found.place(name, opened.runs, counts=counts)
        if place != "later" and found.anew and (why := _other_params(store, found, params)):
            raise FlorlogError(why)
    except FlorlogError as error:
        if not found.anew:
            raise
        report(f"run {found.run} does not go on, and run {name!r} begins anew: {reason(error)}")
        opened.goes_on = None
        found.let_go()
        return None, False
    if place == "later":
        return None, False
    return found, place == "earlier"


def _named(store: Store, run: str, opened: OpenedRuns) -> Resume | None:
    """The resume of a run that the script names, where others come before it; None where that opens now."""
    begin = log_of(store, run).sessions()[0].begin
    if len(begin.earlier) <= len(opened.runs) or any(run == other for _, other in opened.runs):
        return None
    return Resume(run=run, name=begin.name, earlier=begin.earlier, commanded=False)


def _unfinished(store: Store, name: str, params: Mapping[str, Any]) -> Resume | None:
    """The resume of the newest run of this script and these arguments that came after others, and is not complete.

    The first of those is called ``name`` and has these parameters.  None where a run decides that came after none.
    """
    listed = listed_runs(store)
    known = {found.run: found for found in listed}
    recording: set[str] = set()
    for found in reversed(listed):
        if found.run in recording:
            continue
        if not found.earlier:
            if found.name == name and same_params(found.params, params):
                return None
            continue
        if not _begins_like(found, known, name, params):
            continue
        if begins_anew(found.run):
            return None
        try:
            log = store.open_log(found.run)
        except RunLocked:
            recording.update(run for _, run in found.earlier)
            continue
        except (WalError, OSError) as error:
            report(f"run {found.run} cannot go on: {reason(error)}")
            continue
        tree = tree_of(log)
        if tree.status == "complete" or tree.hooked:
            log.close()
            return None
        return Resume(
            run=found.run, name=found.name, earlier=found.earlier, commanded=False, anew=True, held=log
        )
    return None


def _begins_like(
    found: ListedRun, known: Mapping[str, ListedRun], name: str, params: Mapping[str, Any]
) -> bool:
    first_name, first = found.earlier[0]
    if (found.script, found.argv) != (main_script(), tuple(sys.argv[1:])) or first_name != name:
        return False
    return first not in known or same_params(known[first].params, params)


def _other_params(store: Store, resume: Resume, params: Mapping[str, Any]) -> str:
    """That the run that opens now has not the parameters that it had, "" if it has."""
    position = len(this_process.opened.runs)
    run = [*(run for _, run in resume.earlier), resume.run][position]
    if run not in store:
        return ""
    then = store.log(run).sessions()[0].begin.params
    return "" if same_params(then, params) else f"run {run} had other parameters"


# -- earlier runs --------------------------------------------------------------------------------------


def passing(resume: Resume, store: Store, params: Mapping[str, Any]) -> EarlierGuide | None:
    """What leads the earlier run that opens now to its end; None, and a line, where it is executed whole."""
    name, run = resume.earlier[len(this_process.opened.runs)]

    def usable(log: RunLog, tree: RunTree) -> Usable:
        if not same_params(tree.begin.params, params):
            return Usable(obstacle="it had other parameters")
        return _usable(log, tree)

    whole = DIFFERED if learnt(resume.run).whole else restart.obstacle()
    if not whole and not resume.passed and not has_images(tree_of(log_of(store, resume.run))):
        whole = NO_IMAGE
    found = earlier_run(store, name, run, usable, whole=whole)
    if not found.passed_over:
        report(_executed(found, resume.run))
        return None
    resume.passed.append(run)
    log = store.log(run)
    tree = tree_of(log)
    outside = Outside(tree, lambda: present_texts(tree.sources), main_script())
    return EarlierGuide(
        log, tree, found, None, outside, lambda why: execute_whole(resume, f"run {run}: {why}")
    )


def passing_in_replay(replay: Replay, closing: ExitStack) -> EarlierGuide | None:
    """As `passing`, in a replay; ``closing`` closes the earlier run's log."""
    found = replay.runs_before[len(this_process.opened.runs)]
    if not found.passed_over:
        report(_executed(found, replay.run))
        return None

    def broken(why: str) -> NoReturn:
        text = f"run {found.run}, which came before {replay.run}: {why}"
        replay.broken.append(text)
        raise ImageError(text)

    assert replay.store is not None
    log = closing.enter_context(open_store(replay.store)).log(found.run)
    guide = replay.guide
    return EarlierGuide(log, tree_of(log), found, guide.statements.lines, guide.checks.outside, broken)


def _executed(found: EarlierRun, meant: str) -> str:
    which = f"run {found.run}" if found.run else f"run {found.name!r}"
    return f"{which}, which came before {meant}, is executed again and not recorded: {found.why}"


def _usable(log: RunLog, tree: RunTree) -> Usable:
    recorded = {source.path: source.text for source in recorded_sources(log, tree)}
    if present_texts(recorded) != recorded:
        return Usable(obstacle="the program is not what it was")
    return Usable(enterable=enterable_loops(tree, lambda: recorded_analysis(log, tree)))


def execute_whole(resume: Resume, why: str) -> NoReturn:
    """Start this process over, so that it executes whole what it has passed over."""
    report(f"what came before run {resume.run} was passed over and is executed whole now: {why}")
    resume.let_go()
    restart.start_over(asdict(replace(learnt(resume.run), whole=True)))


def check_gradients(resume: Resume) -> None:
    """The run that is meant opens: nothing may have read a gradient that an image has left out."""
    if resume.passed and reads():
        execute_whole(resume, READ)
