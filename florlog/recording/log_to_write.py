"""The log that a run is recorded into: that of a new run, or of an unfinished one that goes on."""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from florlog_wal import RunExists, RunLocked, RunLog, Store, WalError

from florlog.errors import OnlyReadError
from florlog.program.catalogue import ListedRun
from florlog.program.process import this_process
from florlog.program.stores import listed_runs, log_of, open_run, tree_of
from florlog.program.terminal import reason, report
from florlog.recording.resuming import begins_anew
from florlog.recording.roles import Resume
from florlog.recording.run_arguments import same_params

_MAX_SLUG_CHARACTERS = 150  # of a run's name, in its id


def log_to_write(
    store: Store,
    name: str,
    params: Mapping[str, Any],
    resume: str,
    options: Mapping[str, Any],
    meant: Resume | None,
    *,
    counts: bool,
) -> tuple[RunLog, str, bool]:
    """The log of the run that is recorded, its id, and whether it is one that goes on."""
    if meant is not None:
        meant.let_go()
        return open_run(store, meant.run, **options), meant.run, True
    if resume not in ("never", "auto") and not _is_behind(store, resume):
        begin = log_of(store, resume).sessions()[0].begin
        this_process.opened.goes_on = Resume(
            run=resume, name=begin.name, earlier=begin.earlier, commanded=False, taken=True
        )
        return open_run(store, resume, **options), resume, True
    if resume == "auto" and (found := _unfinished(store, name, params, options, counts=counts)) is not None:
        return *found, True
    while True:
        run = _new_id(name)
        with suppress(RunExists):
            return store.new_log(run, **options), run, False


def _is_behind(store: Store, run: str) -> bool:
    """Whether a run that the script names has gone on in this process, to its end: what follows are other runs."""
    role, opened = this_process.role, this_process.opened
    resumes = role if isinstance(role, Resume) else opened.goes_on
    return resumes is not None and resumes.run == run and tree_of(log_of(store, run)).status == "complete"


def _unfinished(
    store: Store, name: str, params: Mapping[str, Any], options: Mapping[str, Any], *, counts: bool
) -> tuple[RunLog, str] | None:
    """The newest run of this name and these parameters that nobody writes to, its log locked; None if it is complete.

    Runs that are being recorded are passed over: in a sweep that was killed each process takes another one.  With
    ``counts``, so are those of which only their place tells which they are, and that had another one.
    """
    others = ""
    found = listed_runs(store)
    known = {listed.run: listed for listed in found}
    for listed in reversed(found):
        if listed.name != name:
            continue
        if counts and not (_is_here(listed) or _is_alone(listed, known)):
            continue
        if not same_params(listed.params, params):
            others = others or listed.run
            continue
        if begins_anew(listed.run):
            return None
        try:
            log = store.open_log(listed.run, **options)
        except RunLocked:
            continue
        except (WalError, OSError) as error:
            report(f"run {listed.run} cannot go on: {reason(error)}")
            continue
        tree = tree_of(log)
        if tree.status != "complete" and not tree.hooked:
            return log, listed.run
        log.close()
        if tree.status != "complete":
            report(f"{OnlyReadError(listed.run, tree.hooked)}: a new run begins")
        return None
    if others:
        report(f"run {others} has other parameters: a new run begins")
    return None


def _is_here(listed: ListedRun) -> bool:
    """Whether a run is one of this process's own, or came after runs of the same names."""
    before = this_process.opened.runs
    names = [name for name, _ in before]
    return any(run == listed.run for _, run in before) or [name for name, _ in listed.earlier] == names


def _is_alone(listed: ListedRun, known: Mapping[str, ListedRun]) -> bool:
    """Whether no other run of its process had its name and parameters before it."""
    return not any(
        name == listed.name and (run not in known or same_params(known[run].params, listed.params))
        for name, run in listed.earlier
    )


def _new_id(name: str) -> str:
    slug = re.sub(r"[^A-Za-z0-9._]+", "-", name)[:_MAX_SLUG_CHARACTERS].strip("-.") or "run"
    return f"{slug}-{time.strftime('%Y%m%d-%H%M%S')}-{uuid.uuid4().hex[:4]}"
