"""A whole replay, from a script to its values: here, or in a process of its own.

Another process is for a script that lies in another place, has to run in another directory, or must not share this
process's modules and settings.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, cast

from florlog_recovery import Plan, RunTree
from florlog_wal import RunLog

from florlog.errors import FlorlogError, SourceChangedError
from florlog.hindsight.plan_view import PlanView, view_of
from florlog.hindsight.request import Request, plan_for
from florlog.hindsight.request_data import found_data, found_value
from florlog.hindsight.requesting import request_of
from florlog.program.spawner import Child, Order, Stderr
from florlog.program.terminal import report
from florlog.redo.answer import Answer, Progress, answer

Announce = Callable[[PlanView], Progress | None]
"""Gets the plan before it is executed, and returns what gets the progress."""


@dataclass(frozen=True, slots=True)
class Question:
    """What a replay is asked: which run, with which script, for which iterations."""

    store: str
    run: str
    script: str  # absolute path
    where: str | None = None  # a condition on iterations
    first: int | None = None  # only so many of those for which it holds
    last: int | None = None
    force: bool = False  # also where recorded code was changed
    workers: int = 1
    shown: Mapping[str, str] = field(default_factory=dict)  # file -> what to call it, where that differs

    def order(self) -> Order:
        """The same as plain data: the arguments of `Question`."""
        return {
            "store": self.store, "run": self.run, "script": self.script, "where": self.where, "first": self.first,
            "last": self.last, "force": self.force, "workers": self.workers, "shown": dict(self.shown),
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Replayed:
    """A question, its plan and its answer, whose values name files as the question wants them shown."""

    run: str
    view: PlanView
    answer: Answer


def planned(log: RunLog, tree: RunTree, question: Question) -> tuple[Request, Plan]:
    """The request that a question makes of its run, and its cheapest plan; what was changed in the script is reported.

    Raises `FlorlogError` as `request_of` does.
    """
    try:
        request = request_of(
            log,
            tree,
            question.script,
            question.where,
            question.first,
            question.last,
            force=question.force,
            shown=question.shown,
        )
    except SourceChangedError as error:
        for change in error.changes[1:]:
            report(f"changed: {change}")
        raise
    for change in request.remarks.changes:
        report(f"changed: {change}")
    for text in request.remarks.altering:
        report(f"added code should only observe: {text}")
    return request, plan_for(request)


def replay_here(
    log: RunLog, tree: RunTree, question: Question, announce: Announce = lambda view: None
) -> Replayed:
    """Replay in this process.

    Raises `FlorlogError` where the question cannot be answered or the script fails.
    """
    request, plan = planned(log, tree, question)
    view = view_of(plan, request)
    progress = announce(view)
    workers = _possible_workers(question.workers, request)
    found = answer(log, request, plan, progress=progress, workers=workers)
    values = [replace(value, file=request.program.name(value.file)) for value in found.values]
    return Replayed(tree.run, view, replace(found, values=values))


def replay_elsewhere(
    question: Question,
    announce: Announce = lambda view: None,
    *,
    cwd: str | None = None,
    heard: Callable[[str], object] | None = None,
) -> Replayed:
    """Replay in a process of its own, which runs in the directory ``cwd``.

    ``heard`` gets, at the end, what the process said on stderr; without it, that goes to this process's.  Raises
    `FlorlogError` where the question cannot be answered, the script fails, or the process dies.
    """
    stderr = Stderr.SHARED if heard is None else Stderr.KEPT
    view: dict[str, Any] = {}
    progress: Progress | None = None
    done: tuple[str, dict[str, Any]] | None = None
    with Child("florlog.redo.replay_worker", question.order(), cwd=cwd, stderr=stderr) as child:
        try:
            for message in child.messages():
                match message:
                    case ["plan", dict() as view]:
                        progress = announce(cast(PlanView, view))
                    case ["progress", int() as redone]:
                        if progress is not None:
                            progress(redone)
                    case ["done", str() as run, dict() as fields]:
                        done = run, fields
                        break
            status = child.status()
        finally:
            said = child.said()
            if heard is not None:
                heard(said)
    if done is None:
        last = f": {said.strip().splitlines()[-1]}" if said.strip() else ""
        raise FlorlogError(f"the replay ended with status {status}{last}")
    run, fields = done
    return Replayed(run, cast(PlanView, view), _answer(fields))


def answer_data(found: Answer) -> dict[str, Any]:
    """An answer as plain data."""
    return {
        "values": [found_data(value) for value in found.values],
        "differences": list(found.differences),
        "seconds": found.seconds,
        "stored": found.stored,
        "spans": list(found.spans),
        "passed": dict(found.passed),
    }


def _answer(fields: dict[str, Any]) -> Answer:
    return Answer(**{**fields, "values": [found_value(value) for value in fields["values"]]})


def _possible_workers(workers: int, request: Request) -> int:
    """How many workers there will be; a reason for fewer, or against so many, is reported."""
    if workers > 1 and request.tree.status == "running":
        report("the run is still being recorded: one process replays it")
        return 1
    threads, cores = request.tree.begin.environment.get("threads", 1), os.cpu_count() or 1
    if workers > 1 and isinstance(threads, int) and workers * threads > cores:
        report(
            f"{workers} workers of {threads} threads share {cores} cores; fewer threads would change the numbers, "
            "fewer workers may be as fast"
        )
    return workers
