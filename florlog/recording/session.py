"""What a script and the code that replays it call: the function that opens a run, and the run that is open.

A script is the same whether it is recorded, resumed or replayed; ``florlog replay`` and ``florlog resume`` say what
they want by giving the process a role (`florlog.recording.roles`) before they execute it.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from typing import Any, Literal

from florlog.errors import FlorlogError, NoRunError, OwnRunError, RanksError
from florlog.following.guide import Guide
from florlog.images.policy import Policy
from florlog.program.cells import NotebookProgram
from florlog.program.environment import main_script, rank
from florlog.program.process import this_process
from florlog.program.stores import make_store, store_path
from florlog.program.terminal import reason, report, warn
from florlog.recording.going_on import check_gradients, passing, passing_in_replay, resume_here
from florlog.recording.opening import recorded_run
from florlog.recording.roles import Replay, Resume
from florlog.recording.run import Run
from florlog.recording.run_arguments import Options, bytes_of, kept_params, seconds_of
from florlog.state.worker_history import noting_tasks


def current(what: str) -> Run:
    """The open run; raises `NoRunError`, naming the function ``what`` that needs it."""
    run = _here()
    if run is None:
        raise NoRunError(what)
    return run


def _here() -> Run | None:
    """The run that is open in this thread or task: the process's one, or one beside it."""
    found: Run | None = this_process.beside.get() or this_process.run
    return found


def leave(file: str, line: int) -> None:
    """Instrumented code has executed the statement at a line, the last of its iteration that a replay asks for."""
    if (run := _here()) is not None:
        run.leave(file, line)


def passed(piece: int, objects: tuple[Any, ...]) -> bool:
    """Instrumented code has come to a piece that a replay may pass over; whether it does."""
    run = _here()
    return run is not None and run.passes(piece, objects)


def excuse() -> None:
    """A statement failed that reads what a loop makes: raise that again, unless the loop was skipped.

    What the program's own functions raise is excused where it arises, or not at all.
    """
    trace = sys.exc_info()[2]
    inner = None if trace is None else trace.tb_next
    role = this_process.role
    files = role.instrumenter.files if isinstance(role, Replay) else {}
    while inner is not None and inner.tb_frame.f_code.co_filename not in files:
        inner = inner.tb_next
    run = _here()
    if inner is not None or run is None or not run.misses:
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
    strict: bool = False,
    audit: bool = True,
) -> Run:
    """Open a run: ``with florlog.run("digits", params={"lr": 1e-3}) as run:``.

    Args:
        name: what is trained; several runs may share it.
        store: the store's directory; default $FLORLOG_STORE, else ``./.florlog``.
        params: hyperparameters, kept with the run.
        resume: "never" starts a new run; "auto" continues the newest run of this name and these parameters that no
            other process records, unless it is complete; a run id continues that run.  Of a script that opens several
            runs, those before it are passed over (docs/commands/resume.md).
        overhead: the share of training time that images may cost.
        max_redo: seconds of training (30, "30s", "5min", "1h") after which a crash should not have to be
            redone; images are taken that often where ``overhead`` allows it.
        budget: bytes ("500M", "10GB") that this run's images may take; default a tenth of the space that is free when
            the run starts.  Older images are dropped, more of them the older they are, and where even two states do not
            fit no more are taken; the log says so.
        durability: "group" loses at most a second of commits at a power cut, and, when the process is killed, 0.4 s of
            iterations that are too brief to be committed one by one (under 20 ms at an overhead of 2 %); "sync"
            loses none.
        strict: raise what keeps the run, or a part of it, from being recorded.  Otherwise a warning says so, and the
            training goes on: a store that cannot be opened or written gives a run
            that is not recorded, as does a run that is open in the process; of ``params`` what the log cannot keep is
            kept as text.
        audit: while a core is idle, redo the run from its first image to the next in a process of its own, and compare
            the whole state (docs/commands/audit.md).

    Raises:
        FlorlogError: the arguments are wrong; with ``strict``, or where ``resume`` names a run: another run is open.
        StoreError: with ``strict``, or where ``resume`` names a run: the store cannot be opened.
        NoSuchRunError: ``resume`` names a run that the store does not have.

    Of a training on several ranks (RANK and WORLD_SIZE, as torchrun sets them) rank 0 is recorded; on the others the
    loops run and nothing is logged.  Such a run is not resumed: with ``resume="auto"`` a new one begins, and a warning
    says so; a run that ``resume`` names is a `RanksError`, as is "auto" with ``strict``.
    """
    if not isinstance(name, str) or not name:
        raise FlorlogError(f"a run needs a name, a non-empty string, and got {name!r}")
    if this_process.hands_free is not None and this_process.run is not None:
        raise OwnRunError(name)
    if durability not in ("group", "sync"):
        raise FlorlogError(f'durability is "group" or "sync", and got {durability!r}')
    if overhead < 0:
        raise FlorlogError(f"overhead is a share of training time, and got {overhead!r}")
    if not isinstance(params or {}, Mapping):
        raise FlorlogError(f"params is a dict of hyperparameters, and got {params!r}")
    how = Options(seconds_of(max_redo), bytes_of(budget), overhead, durability, audit=audit, strict=strict)
    held = this_process.slot
    if not held.acquire(blocking=False):
        return _beside(name, strict=strict or resume not in ("never", "auto"))
    try:
        return _only_run(name, store, params or {}, resume, how)
    except BaseException:
        held.release()
        raise


def _beside(name: str, *, strict: bool) -> Run:
    """A run of which nothing is recorded, because another one is open; with ``strict`` that is an error.

    What its own thread or task calls finds this one, and what others call does not.
    """
    other: Run | None = this_process.run
    why = "another thread opens a run" if other is None else f"run {other.name!r} is still open"
    if strict:
        raise FlorlogError(f"{why}: close it before opening {name!r}")
    if not isinstance(this_process.role, Replay):
        warn(
            f"run {name!r} is not recorded, the training goes on: {why}, and a process records one run at a time"
        )
    closing = ExitStack()
    closing.callback(this_process.beside.set, this_process.beside.get())
    made = _without_log(name, closing)
    this_process.beside.set(made)
    return made


def _only_run(
    name: str,
    store: str | os.PathLike[str] | None,
    params: Mapping[Any, Any],
    resume: str,
    how: Options,
) -> Run:
    """As `run`, where no other run is open."""
    opened = this_process.opened
    program, counts = None, False
    with suppress(Exception):  # as without a working directory: opening the log says what is wrong
        program = _running_cells()
        counts = opened.begin(
            this_process.notebook.text or main_script() if program is None else program.text
        )
    role = this_process.role
    if isinstance(role, Replay):
        return _replayed(role, name, counts=counts, strict=how.strict)
    number, ranks = rank()
    if ranks > 1:
        if resume not in ("never", "auto") or isinstance(role, Resume) or (how.strict and resume == "auto"):
            raise RanksError(ranks)
        if number:
            if number == 1:
                report(f"of {ranks} ranks, rank 0 is recorded")
            return _unrecorded(name)
        if resume == "auto":
            warn(f"run {name!r} begins anew: a run of {ranks} ranks is not resumed")
            resume = "never"
    # A resume that was asked for is never a training that begins again, unrecorded.
    asked_to_resume = resume not in ("never", "auto") or (isinstance(role, Resume) and not role.taken)
    closing = ExitStack()
    try:
        held = kept_params(params, strict=how.strict)
        made_store = make_store(store_path(store))
        closing.callback(made_store.close)
        if program is not None:
            closing.enter_context(this_process.standing_for_script(program))
        meant, comes_before = resume_here(made_store, name, held, resume, counts=counts)
        if meant is not None and comes_before:
            guide = passing(meant, made_store, held)
            place = meant.earlier[len(opened.runs)][1]
            return _unrecorded(name, guide, closing, place=place, strict=how.strict)
        if meant is not None:
            meant.taken = True
            check_gradients(meant)
        made = recorded_run(
            made_store,
            name if meant is None else meant.name,
            held,
            resume=resume,
            how=how,
            closing=closing,
            meant=meant,
            counts=counts,
        )
    except BaseException as error:
        closing.close()
        if how.strict or asked_to_resume or not isinstance(error, Exception):
            raise
        anew = " and starts at its beginning" if resume == "auto" else ""
        warn(f"run {name!r} is not recorded{anew}, the training goes on: {reason(error)}")
        return _unrecorded(name)
    return _opened(made, closing, made.id)


def _replayed(role: Replay, name: str, *, counts: bool, strict: bool) -> Run:
    """A run of a replay: led by its guide if it is the one that is meant, or to its end if it comes before that."""
    opened = this_process.opened.runs
    match role.place(name, opened, counts=counts):
        case "meant":
            role.taken = True
            return _unrecorded(name, role.guide, strict=strict)
        case "earlier":
            closing = ExitStack()
            return _unrecorded(name, passing_in_replay(role, closing), closing)
    return _unrecorded(name)


def _running_cells() -> NotebookProgram | None:
    """Where there is no script, the program of the notebook's cell that is running, if one is."""
    if main_script() or "IPython" not in sys.modules:
        return None
    from florlog.program.cell_history import running_program  # which imports IPython

    return running_program()


def _unrecorded(
    name: str,
    guide: Guide | None = None,
    closing: ExitStack | None = None,
    *,
    place: str = "",
    strict: bool = False,
) -> Run:
    """A run of which nothing is recorded; ``place``: the id of the run in whose place it is."""
    closing = closing or ExitStack()
    return _opened(_without_log(name, closing, guide, place=place, strict=strict), closing, place)


def _without_log(
    name: str, closing: ExitStack, guide: Guide | None = None, *, place: str = "", strict: bool = False
) -> Run:
    return Run(
        run_id=guide.tree.run if guide else place,
        name=name,
        script=main_script() if guide else "",
        strict=strict,
        journal=None,
        guide=guide,
        policy=Policy(0.0),
        close=closing.close,
    )


def _opened(made: Run, closing: ExitStack, place: str) -> Run:
    """The run, which is the open one until it closes."""
    closing.callback(this_process.slot.release)
    this_process.opened.opened(made.name, place)
    closing.enter_context(this_process.running(made))
    closing.enter_context(this_process.opened.time_open())
    closing.enter_context(noting_tasks())
    _watch_forks()
    return made


@functools.cache
def _watch_forks() -> None:
    """From the first run on: a forked child, such as a loader's worker, records nothing."""
    os.register_at_fork(after_in_child=_disown)


def _disown() -> None:
    if this_process.run is not None:
        this_process.run.disown()
