"""Opening runs: which store, and whether this process records, resumes or replays.

A script is the same in all three; ``florlog replay`` and ``florlog resume`` say what they want by setting
`command` before they execute it.
"""

from __future__ import annotations

import math
import os
import re
import sys
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from florlog_recovery import Plan, plan_redo, resume_atoms
from florlog_recovery.costs import KIND, fitted
from florlog_wal import Note, RunBegin, Store, Unencodable, WalError, encode_value

from florlog.errors import FlorlogError, LogValueError, NoRunError, RanksError
from florlog.following.guide import Guide, last_restore
from florlog.images.budget import Room
from florlog.images.policy import Policy
from florlog.program import cells as _cells
from florlog.program import environment as _environment
from florlog.program import units
from florlog.program.environment import environment, main_script, rank
from florlog.program.loading import seconds_since_import
from florlog.program.measured_costs import costs_of
from florlog.program.stores import newest_run, open_store, sessions_of, store_path, tree_of
from florlog.program.terminal import report
from florlog.recording.checkpointer import Tell
from florlog.recording.journal import Journal
from florlog.recording.run import Run
from florlog.source.edit.instrument import is_instrumented
from florlog.state.tree import plain


@dataclass(slots=True)
class Replay:
    """A replay of one run; ``guide`` leads the script's first run of that name."""

    name: str
    guide: Guide
    taken: bool = False


@dataclass(slots=True)
class Resume:
    """A resume of one run."""

    run: str
    taken: bool = False


WINDOW = 0.1
"""Seconds of commits that a power cut may cost (docs/decisions/11-a-window-of-100-ms.md)."""
_SESSIONS, _RECORDS = 16, 200  # how far back the log is asked what restores cost

command: Replay | Resume | None = None
_current: list[Run] = []


def current(what: str) -> Run:
    """The open run; raises `NoRunError`, naming the function ``what`` that needs it."""
    if not _current:
        raise NoRunError(what)
    return _current[-1]


def leave(file: str, line: int) -> None:
    """Instrumented code stands behind the statement at a line, the last of its iteration that a replay asks for."""
    if _current:
        _current[-1].leave(file, line)


def passed(piece: int, objects: tuple[Any, ...]) -> bool:
    """Instrumented code stands before a piece that a replay may pass over; whether it does."""
    return bool(_current) and _current[-1].passes(piece, objects)


def excuse() -> None:
    """A statement failed that reads what a loop makes: raise that again, unless the loop was skipped.

    What the program's own functions raise is excused where it arises, or not at all.
    """
    trace = sys.exc_info()[2]
    inner = None if trace is None else trace.tb_next
    while inner is not None and not is_instrumented(inner.tb_frame.f_code.co_filename):
        inner = inner.tb_next
    if inner is not None or not _current or not _current[-1].misses:
        raise


def run(
    name: str,
    *,
    store: str | os.PathLike[str] | None = None,
    params: dict[str, Any] | None = None,
    resume: str = "never",
    overhead: float = 0.02,
    max_redo: float | str | None = None,
    budget: int | str | None = None,
    durability: Literal["group", "sync"] = "group",
) -> Run:
    """Open a run: ``with florlog.run("digits", params={"lr": 1e-3}) as run:``.

    Args:
        name: what is trained; several runs may share it.
        store: the store's directory; default $FLORLOG_STORE, else ``./.florlog``.
        params: hyperparameters, kept with the run.
        resume: "never" starts a new run; "auto" continues the newest unfinished run of this name, if there
            is one; a run id continues that run.
        overhead: the share of training time that images may cost.
        max_redo: seconds of training (30, "30s", "5min", "1h") after which a crash should not have to be
            redone; images are taken that often where ``overhead`` allows it.
        budget: bytes ("500M", "10GB") that this run's images may take: older ones are dropped, evenly over the
            run's time, and where even two states do not fit no more are taken; the log tells.
        durability: "group" loses at most 0.3 s of commits at a power cut, and, when the process is killed, 0.2 s of
            iterations that are too brief to be committed one by one (under 8 ms at an overhead of 2 %); "sync"
            loses none.

    Raises:
        StoreError: the store cannot be opened or another process writes to it.
        NoSuchRunError: ``resume`` names a run that the store does not have.

    Of a training on several ranks (RANK and WORLD_SIZE, as torchrun sets them) rank 0 is recorded; on the others the
    loops run and nothing is logged.
    """
    if not isinstance(name, str) or not name:
        raise FlorlogError(f"a run needs a name, a non-empty string, and got {name!r}")
    if _current:
        if _environment.extra:
            raise FlorlogError(
                f"the program opens run {name!r} itself: it is recorded as it is, without florlog record or %%florlog"
            )
        raise FlorlogError(f"run {_current[-1].name!r} is still open: close it before opening {name!r}")
    if overhead < 0:
        raise FlorlogError(f"overhead is a share of training time, and got {overhead!r}")
    if isinstance(command, Replay):
        return _replay(command, name)
    number, ranks = rank()
    if ranks > 1:
        if resume != "never" or isinstance(command, Resume):
            raise RanksError(ranks)
        if number:
            if number == 1:
                report(f"of {ranks} ranks, rank 0 is recorded")
            return _unrecorded(name)
    path = store_path(store)
    held = {key: plain(value) for key, value in (params or {}).items()}
    try:
        encode_value(held)
    except Unencodable as error:
        raise LogValueError(f"cannot keep params: {error}") from None
    distance, bound = _seconds(max_redo), _bytes(budget)
    opened = open_store(path, "w", durability=durability, window=WINDOW)
    try:
        if not main_script():
            _begin_in_notebook()
        return _record(opened, name, held, resume, overhead, distance, bound)
    except BaseException:
        _leave()
        opened.close()
        raise


def _begin_in_notebook() -> None:
    """Outside a script: a cell of a notebook, where one runs, is what is recorded."""
    if "IPython" in sys.modules:
        from florlog.program.cell_history import running_program  # which imports IPython

        if (program := running_program()) is not None:
            _cells.begin(program)


def _leave() -> None:
    """No run is open any more."""
    _current.clear()
    _cells.end()


def _replay(replay: Replay, name: str) -> Run:
    if name != replay.name or replay.taken:
        return _unrecorded(name)
    replay.taken = True
    return _unrecorded(name, replay.guide)


def _unrecorded(name: str, guide: Guide | None = None) -> Run:
    return _opened(
        Run(
            run_id=guide.tree.run if guide else "",
            name=name,
            script=main_script(),
            journal=None,
            guide=guide,
            policy=Policy(0.0),
            close=_current.clear,
        )
    )


def _record(
    store: Store,
    name: str,
    params: dict[str, Any],
    resume: str,
    overhead: float,
    max_redo: float,
    budget: int | None,
) -> Run:
    script = main_script()
    resumed = _resumed_run(store, name, resume)
    tree = plan = guide = None
    if resumed is not None:
        tree = tree_of(store, resumed)
        if tree.status == "complete":
            raise FlorlogError(f"run {resumed!r} is complete: there is nothing to resume")
        request, node, place = resume_atoms(tree)
        plan = plan_redo(tree, request, costs_of(store, tree))
        guide = Guide(store, tree, plan, None, frontier=(node, place))
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
        resumed_from=_resumed_from(plan),
    )
    journal = Journal(store, begin, overhead)
    if resumed is None:  # what a replay has to do before the run begins, with florlog imported
        cells = _cells.current
        setup = seconds_since_import() if cells is None else cells.seconds
        journal.append(Note(KIND, "", {"setup": setup}), journal.session)

    restore = _restore_costs(store)

    def room_of(tell: Tell) -> Room:
        assert budget is not None
        return Room(store, begin.run, budget, fresh=resumed is None, tell=tell)

    def close() -> None:
        _leave()
        try:
            store.close()
        except WalError as error:
            report(str(error))
        if guide is not None and guide.checks.differences:
            report(f"the resumed run differs from what was recorded before: {guide.checks.differences[0]}")

    return _opened(
        Run(
            run_id=begin.run,
            name=name,
            script=script,
            journal=journal,
            guide=guide,
            policy=Policy(overhead, max_redo, restore),
            room=None if budget is None else room_of,
            close=close,
        )
    )


def _restore_costs(store: Store) -> Callable[[int], float] | None:
    """What restores have cost in this store, by the bytes of the state; None if none was measured."""
    notes = []
    for session in store.sessions()[-_SESSIONS:]:
        last = session.last_lsn
        records = store.scan(
            max(session.lsn, last - _RECORDS), last + 1, types=[Note], session=session.lsn, reverse=True
        )
        notes += [e.record.data for e in records if isinstance(e.record, Note) and e.record.kind == KIND]
    measured = any(note.get("restores", [0.0])[0] for note in notes)
    return fitted(reversed(notes)).seconds if measured else None


def _bytes(budget: int | str | None) -> int | None:
    """A number of bytes, such as 500 or "2GB"."""
    try:
        found = budget if budget is None or isinstance(budget, int) else units.size(budget)
    except (TypeError, ValueError):
        found = -1
    if found is not None and found < 0:
        raise FlorlogError(f'budget is a number of bytes such as 10_000_000 or "2GB", and got {budget!r}')
    return found


def _seconds(span: float | str | None) -> float:
    """A span of time, such as 30 or "30s", in seconds."""
    if span is None:
        return math.inf
    try:
        return units.seconds(str(span))
    except ValueError:
        raise FlorlogError(f'max_redo is a time such as 30, "30s" or "5min", and got {span!r}') from None


def _opened(run: Run) -> Run:
    _current.append(run)
    return run


def _resumed_run(store: Store, name: str, resume: str) -> str | None:
    if isinstance(command, Resume) and not command.taken:
        sessions = sessions_of(store, command.run)
        if sessions[0].begin.name != name:
            return None
        command.taken = True
        return command.run
    if resume == "never":
        return None
    if resume != "auto":
        sessions_of(store, resume)
        return resume
    newest = newest_run(store, lambda begin: begin.name == name)
    return newest if newest is not None and tree_of(store, newest).status != "complete" else None


def _resumed_from(plan: Plan | None) -> int:
    place = last_restore(plan.root) if plan is not None else None
    if place is None:
        return 0
    loop, index = place
    return loop.images[index].lsn


def _new_id(name: str) -> str:
    slug = re.sub(r"[^A-Za-z0-9._]+", "-", name).strip("-") or "run"
    return f"{slug}-{time.strftime('%Y%m%d-%H%M%S')}-{uuid.uuid4().hex[:4]}"


def _after_fork_in_child() -> None:
    for opened in _current:
        opened.disown()


os.register_at_fork(after_in_child=_after_fork_in_child)
