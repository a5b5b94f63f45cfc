"""What a script and the code that replays it call: the function that opens a run, and the run that is open.

A script is the same whether it is recorded, resumed or replayed; ``florlog replay`` and ``florlog resume`` say what
they want by giving the process a role (`florlog.recording.roles`) before they execute it.
"""

from __future__ import annotations

import functools
import math
import os
import re
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any, Literal

from florlog_wal import encode_value

from florlog.errors import FlorlogError, LogValueError, NoRunError, OwnRunError, RanksError
from florlog.following.guide import Guide
from florlog.images.policy import Policy
from florlog.program import units
from florlog.program.cells import NotebookProgram
from florlog.program.environment import main_script, rank
from florlog.program.process import this_process
from florlog.program.stores import make_store, store_path
from florlog.program.terminal import reason, report, warn
from florlog.recording.opening import recorded_run
from florlog.recording.roles import Replay, Resume
from florlog.recording.run import Run
from florlog.state.logged_values import plain


def current(what: str) -> Run:
    """The open run; raises `NoRunError`, naming the function ``what`` that needs it."""
    run: Run | None = this_process.run
    if run is None:
        raise NoRunError(what)
    return run


def leave(file: str, line: int) -> None:
    """Instrumented code has executed the statement at a line, the last of its iteration that a replay asks for."""
    if (run := this_process.run) is not None:
        run.leave(file, line)


def passed(piece: int, objects: tuple[Any, ...]) -> bool:
    """Instrumented code has come to a piece that a replay may pass over; whether it does."""
    run: Run | None = this_process.run
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
    run: Run | None = this_process.run
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
            other process records, unless it is complete; a run id continues that run.
        overhead: the share of training time that images may cost.
        max_redo: seconds of training (30, "30s", "5min", "1h") after which a crash should not have to be
            redone; images are taken that often where ``overhead`` allows it.
        budget: bytes ("500M", "10GB") that this run's images may take; default a tenth of the space that is free when
            the run starts.  Older images are dropped, more of them the older they are, and where even two states do not
            fit no more are taken; the log says so.
        durability: "group" loses at most 0.3 s of commits at a power cut, and, when the process is killed, 0.2 s of
            iterations that are too brief to be committed one by one (under 8 ms at an overhead of 2 %); "sync"
            loses none.
        strict: raise what keeps the run, or a part of it, from being recorded.  Otherwise a warning says so, and the
            training goes on: a store that cannot be opened or written gives a run
            that is not recorded; of ``params`` what the log cannot keep is kept as text.
        audit: while a core is idle, redo the run from its first image to the next in a process of its own, and compare
            the whole state (docs/commands/audit.md).

    Raises:
        FlorlogError: the arguments are wrong, or a run is open.
        StoreError: with ``strict``, or where ``resume`` names a run: the store cannot be opened.
        NoSuchRunError: ``resume`` names a run that the store does not have.

    Of a training on several ranks (RANK and WORLD_SIZE, as torchrun sets them) rank 0 is recorded; on the others the
    loops run and nothing is logged.  Such a run is not resumed: with ``resume="auto"`` a new one begins, and a warning
    says so; a run that ``resume`` names is a `RanksError`, as is "auto" with ``strict``.
    """
    if not isinstance(name, str) or not name:
        raise FlorlogError(f"a run needs a name, a non-empty string, and got {name!r}")
    if this_process.run is not None:
        if this_process.hands_free is not None:
            raise OwnRunError(name)
        raise FlorlogError(f"run {this_process.run.name!r} is still open: close it before opening {name!r}")
    if durability not in ("group", "sync"):
        raise FlorlogError(f'durability is "group" or "sync", and got {durability!r}')
    if overhead < 0:
        raise FlorlogError(f"overhead is a share of training time, and got {overhead!r}")
    if not isinstance(params or {}, Mapping):
        raise FlorlogError(f"params is a dict of hyperparameters, and got {params!r}")
    distance, bound = _seconds(max_redo), _bytes(budget)
    role = this_process.role
    if isinstance(role, Replay):
        if name != role.name or role.taken:
            return _unrecorded(name)
        role.taken = True
        return _unrecorded(name, role.guide, strict=strict)
    number, ranks = rank()
    if ranks > 1:
        if resume not in ("never", "auto") or isinstance(role, Resume) or (strict and resume == "auto"):
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
        held = _kept(params or {}, strict=strict)
        opened = make_store(store_path(store))
        closing.callback(opened.close)
        if (program := _running_cells()) is not None:
            closing.enter_context(this_process.standing_for_script(program))
        made = recorded_run(
            opened,
            name,
            held,
            resume=resume,
            durability=durability,
            overhead=overhead,
            max_redo=distance,
            budget=bound,
            closing=closing,
            audit=audit,
            strict=strict,
        )
    except BaseException as error:
        closing.close()
        if strict or asked_to_resume or not isinstance(error, Exception):
            raise
        anew = " and starts at its beginning" if resume == "auto" else ""
        warn(f"run {name!r} is not recorded{anew}, the training goes on: {reason(error)}")
        return _unrecorded(name)
    return _opened(made, closing)


def _kept(params: Mapping[Any, Any], *, strict: bool) -> dict[str, Any]:
    """Parameters as the log keeps them.  Raises `LogValueError` with ``strict``."""
    held, as_text = {}, {}
    for key, value in params.items():
        try:
            held[str(key)] = plain(value)
            encode_value(held[str(key)])
        except Exception as error:
            if strict:
                raise LogValueError(f"cannot keep params: {reason(error)}") from None
            held[str(key)] = _text(value)
            as_text[str(key)] = reason(error)
    if as_text:
        warn(f"of params, {', '.join(as_text)} is kept as text: {next(iter(as_text.values()))}")
    return held


def _text(value: Any) -> str:
    """A value as text that is the same in another process."""
    try:
        return re.sub(r"\b0x[0-9a-f]+", "0x", repr(value))
    except Exception:
        return f"<{type(value).__name__}>"


def _running_cells() -> NotebookProgram | None:
    """Where there is no script, the program of the notebook's cell that is running, if one is."""
    if main_script() or "IPython" not in sys.modules:
        return None
    from florlog.program.cell_history import running_program  # which imports IPython

    return running_program()


def _unrecorded(name: str, guide: Guide | None = None, *, strict: bool = False) -> Run:
    closing = ExitStack()
    made = Run(
        run_id=guide.tree.run if guide else "",
        name=name,
        script=main_script() if guide else "",
        strict=strict,
        journal=None,
        guide=guide,
        policy=Policy(0.0),
        close=closing.close,
    )
    return _opened(made, closing)


def _opened(made: Run, closing: ExitStack) -> Run:
    """The run, which is the open one until it closes."""
    closing.enter_context(this_process.running(made))
    _watch_forks()
    return made


@functools.cache
def _watch_forks() -> None:
    """From the first run on: a forked child, such as a loader's worker, records nothing."""
    os.register_at_fork(after_in_child=_disown)


def _disown() -> None:
    if this_process.run is not None:
        this_process.run.disown()


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
