"""Opening a run that is recorded: a new one, or an earlier one that goes on."""

from __future__ import annotations

import math
import re
import sys
import time
import uuid
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from florlog_recovery import Loop, Plan, RunTree, last_restore, plan_resume
from florlog_recovery.costs import KIND, fitted
from florlog_wal import Commit, Note, RunBegin, RunLog

from florlog.errors import FlorlogError
from florlog.following.failed_images import images_of_others, without_worker_state
from florlog.images.budget import Room
from florlog.images.policy import Policy
from florlog.program.environment import environment, main_script, rank
from florlog.program.loading import seconds_since_import
from florlog.program.measured_costs import costs_of
from florlog.program.process import this_process
from florlog.program.stores import newest_run, sessions_of, tree_of
from florlog.program.terminal import report
from florlog.recording.checkpointer import Tell
from florlog.recording.early_audit import early_audit
from florlog.recording.journal import Journal
from florlog.recording.resuming import ResumeGuide, begins_anew, went_back
from florlog.recording.roles import Resume
from florlog.recording.run import Run

MIN_PROOF_SECONDS = 10.0
"""What a resume may always re-execute to be proven: a person who resumes waits for the set-up anyway."""
PROOF_SHARE = 0.01
"""Of the run's recorded time: what a resume may re-execute to be proven; recording costs as much."""
_MAX_SESSIONS_READ = 16
"""How many of a store's newest sessions are read for what restores cost."""
_MAX_RECORDS_READ = 200
"""How many of the last records of each."""


def recorded_run(
    store: RunLog,
    name: str,
    params: dict[str, Any],
    *,
    resume: str,
    overhead: float,
    max_redo: float,
    budget: int | None,
    audit: bool,
    closing: ExitStack,
    strict: bool,
) -> Run:
    """A run that writes into ``store``; ``closing`` is what happens when it closes.  Arguments as of `session.run`."""
    script = main_script()
    resumed = _resumed_run(store, name, resume)
    guide = None if resumed is None else _guide_of(store, resumed, max_redo, anew=resume == "auto")
    number, size = rank()
    begin = RunBegin(
        run=resumed or _new_id(name),
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
    )
    journal = Journal(store, begin, overhead, strict=strict)
    closing.callback(journal.close)
    if guide is not None:
        guide.journal = journal
    journal.watch()
    if resumed is None:  # what a replay has to do before the run begins, with florlog imported
        notebook = this_process.notebook
        setup = notebook.seconds if notebook.file else seconds_since_import()
        journal.append(Note(KIND, "", {"setup": setup}), journal.session)

    restore = restore_costs(store)
    policy = Policy(overhead, max_redo, restore)

    def room_of(tell: Tell) -> Room:
        assert budget is not None
        return Room(store, begin.run, budget, fresh=resumed is None, tell=tell)

    return Run(
        run_id=begin.run,
        name=name,
        script=script,
        journal=journal,
        guide=guide,
        policy=policy,
        room=None if budget is None else room_of,
        audit=early_audit(journal, begin, policy) if audit and resumed is None and size == 1 else None,
        close=closing.close,
        strict=strict,
    )


def _guide_of(store: RunLog, run: str, max_redo: float, *, anew: bool) -> ResumeGuide:
    """What leads the resume of a run; arguments as of `recorded_run` and `ResumeGuide`."""
    tree = tree_of(store, run)
    role = this_process.role
    commanded = role if isinstance(role, Resume) and role.run == run else None
    reopen(tree, extend=commanded is not None and commanded.extend)
    before = went_back(run, store, tree)

    def has_fingerprint(loop: Loop, index: int) -> bool:
        record = store.record(loop.commits[index]).record
        return isinstance(record, Commit) and bool(record.state or record.rng)

    if strange := images_of_others(store, tree):
        report(
            f"run {run} was not recorded on this machine by you: its images are not restored without "
            f"`florlog resume --trust {run}`, and all is redone from its start"
        )
    plan, frontier = plan_resume(
        tree,
        costs_of(store, tree),
        before.images(tree) | without_worker_state(tree)[1] | strange,
        proof_seconds=proof_seconds(tree, max_redo),
        has_fingerprint=has_fingerprint,
    )
    force = commanded is not None and commanded.force
    return ResumeGuide(store, tree, plan, frontier, before, force=force, anew=anew and commanded is None)


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


def restore_costs(store: RunLog) -> Callable[[int], float] | None:
    """What restores have cost in this store, in seconds by the bytes of the state; None if none was measured."""
    notes = []
    for session in store.sessions()[-_MAX_SESSIONS_READ:]:
        last = session.last_lsn
        records = store.scan(
            max(session.lsn, last - _MAX_RECORDS_READ),
            last + 1,
            types=[Note],
            session=session.lsn,
            reverse=True,
        )
        notes += [e.record.data for e in records if isinstance(e.record, Note) and e.record.kind == KIND]
    measured = any(note.get("restores", [0.0])[0] for note in notes)
    return fitted(reversed(notes)).seconds if measured else None


def _resumed_run(store: RunLog, name: str, resume: str) -> str | None:
    """The id of the run that goes on; None for a new one."""
    role = this_process.role
    if isinstance(role, Resume) and not role.taken:
        sessions = sessions_of(store, role.run)
        if sessions[0].begin.name != name:
            return None
        role.taken = True
        return role.run
    if resume == "never":
        return None
    if resume != "auto":
        sessions_of(store, resume)
        return resume
    newest = newest_run(store, lambda begin: begin.name == name)
    if newest is None or begins_anew(newest) or tree_of(store, newest).status == "complete":
        return None
    return newest


def _resumed_from(plan: Plan | None) -> int:
    place = last_restore(plan.root) if plan is not None else None
    if place is None:
        return 0
    loop, index = place
    return loop.images[index].lsn


def _new_id(name: str) -> str:
    slug = re.sub(r"[^A-Za-z0-9._]+", "-", name).strip("-") or "run"
    return f"{slug}-{time.strftime('%Y%m%d-%H%M%S')}-{uuid.uuid4().hex[:4]}"
