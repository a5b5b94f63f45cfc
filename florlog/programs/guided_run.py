"""Running a recorded program again along a guide: its threads, its files, what it raises."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import torch
from florlog_wal import RunBegin

from florlog.bridges.other_trackers import sessions_of_their_own
from florlog.errors import EarlierRunError, FlorlogError, ImageError
from florlog.following.earlier_runs import EarlierRun
from florlog.following.files_made import files_made
from florlog.following.guide import Guide
from florlog.following.sandbox import FileOverlay
from florlog.program.environment import own_directories
from florlog.program.process import this_process
from florlog.program.silence import cut_off
from florlog.program.stores import store_of
from florlog.recording.roles import Replay
from florlog.source.edit.instrument import Instrumenter
from florlog.source.edit.skip_signal import SkipRest


@contextlib.contextmanager
def guided_run(
    begin: RunBegin,
    guide: Guide,
    script: str,
    files: Collection[str],
    instrumenter: Instrumenter,
    runs_before: Sequence[EarlierRun],
) -> Iterator[None]:
    """While the body runs ``script``, its run at the recorded place follows ``guide``.

    ``runs_before``: what becomes of those that the script opens before.
    What it says goes nowhere, what it writes goes to an overlay, its set-up does not see the files that the recorded
    run has made, and leaving early is no error.  ``instrumenter`` compiles its files.

    Raises `FlorlogError` for what it raises, with the place in ``files``, unless a skipped loop may have made it fail,
    and when it opens no such run; `EarlierRunError` where one of the earlier runs has to be executed that was passed
    over.
    """
    threads = begin.environment.get("threads")
    if isinstance(threads, int) and threads != torch.get_num_threads():
        torch.set_num_threads(threads)  # sums are split by threads: their number changes the bits
    replay = Replay(
        run=begin.run,
        name=begin.name,
        earlier=begin.earlier,
        guide=guide,
        instrumenter=instrumenter,
        store=store_of(guide.log),
        runs_before=runs_before,
    )
    made = files_made(guide.log, guide.tree, own_directories(script))
    try:
        with (
            _excused(guide, files),
            this_process.in_role(replay),
            cut_off(),
            sessions_of_their_own(),
            FileOverlay(made, lambda: guide.measured.setup is None),
        ):
            yield
    except FlorlogError:
        if replay.broken:
            raise EarlierRunError(replay.broken[0]) from None
        raise
    if replay.broken:  # whatever the script made of it
        raise EarlierRunError(replay.broken[0])
    if not replay.taken:
        raise FlorlogError(replay.missing(script))


@contextlib.contextmanager
def _excused(guide: Guide, files: Collection[str]) -> Iterator[None]:
    """Within, the program runs along a guide: what it raises is a `FlorlogError`, or nothing where that is no error."""
    try:
        yield
    except SkipRest:
        pass
    except SystemExit as leaving:
        text = f"the replayed script exited with {leaving.code!r}"
        if guide.image_error is None and leaving.code not in (None, 0) and not guide.omissions.failed(text):
            raise FlorlogError(text) from None
    except ImageError:
        raise
    except FlorlogError as error:
        if guide.image_error is None and not guide.omissions.failed(str(error)):
            raise
    except Exception as error:
        text = f"the replayed script raised {_located(error, files)}"
        if guide.image_error is None and not guide.omissions.failed(text):
            raise FlorlogError(text) from error
    if guide.image_error is not None:  # whatever the script made of it
        raise guide.image_error


def _located(error: Exception, files: Collection[str]) -> str:
    place = ""
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename in files:
            place = f" at {Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}"
        trace = trace.tb_next
    return f"{type(error).__name__}{place}: {error}"
