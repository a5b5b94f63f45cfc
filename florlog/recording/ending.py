"""The end of a run: the last records of its session, and what it failed with."""

from __future__ import annotations

import linecache
from types import TracebackType

from florlog_recovery.costs import KIND
from florlog_wal import Abort, Failure, Note, Path, WalError

from florlog.following.guide import Guide
from florlog.program.measured_costs import remember
from florlog.program.process import this_process
from florlog.recording.journal import Journal
from florlog.recording.transactions import Transactions


def log_end(
    transactions: Transactions,
    guide: Guide | None,
    script: str,
    started: float,
    error: BaseException | None,
) -> None:
    """Write what ends the session of a run that began at ``started`` (`time.perf_counter`).

    ``error`` is what ended the run, None for its own end.  Images that are being persisted are waited for.
    """
    journal = transactions.journal
    if journal is None:
        return
    transactions.checkpointer.close()
    if guide is not None:
        journal.append(Note(KIND, "", guide.measured.data), journal.session)
        remember(journal.log, guide.measured.data)
        for difference in guide.checks.differences:
            journal.append(Note("divergence", difference, {}), journal.session)
    failure = None if error is None else _failure(error, _failed_path(transactions))
    if transactions.recording:
        _end_recording(transactions, journal, script, started, failure)
    else:  # a resume that ended before it came to its place
        journal.end(script, started, "failed", failure)


def _end_recording(
    transactions: Transactions, journal: Journal, script: str, started: float, failure: Failure | None
) -> None:
    stack = transactions.stack
    if failure is not None:
        innermost = stack[-1:] if len(stack) > 1 else []
        for iteration in [*(it.iteration for it in transactions.pending), *innermost]:
            loop = iteration.loop
            if loop is not None and loop.lsn:  # else this session has logged nothing of it
                journal.append(Abort(loop.lsn, iteration.index, failure.exception), iteration.prev)
    transactions.log_values(stack[0])
    journal.end(script, started, "complete" if failure is None else "failed", failure)
    try:
        journal.log.sync()
    except WalError:
        pass  # reported when it happened


def _failed_path(transactions: Transactions) -> Path:
    """The address of the innermost iteration that the error left."""
    failed = transactions.pending[0].iteration if transactions.pending else transactions.stack[-1]
    return failed.path


def _failure(error: BaseException, path: Path) -> Failure:
    frames = []
    trace = error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        file, line = this_process.notebook.placed(code.co_filename, trace.tb_lineno)
        frames.append((file, code.co_qualname, line, _source_line(trace)))
        trace = trace.tb_next
    return Failure(type(error).__name__, _said(error), path, tuple(frames))


def _said(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # an exception of the user's may fail to say what it is
        return ""


def _source_line(trace: TracebackType) -> str:
    return linecache.getline(trace.tb_frame.f_code.co_filename, trace.tb_lineno).strip()
