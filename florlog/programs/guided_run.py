"""Running a recorded program again along a guide: its threads, its files, what it raises."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator
from pathlib import Path

import torch
from florlog_wal import RunBegin

from florlog.bridges.other_trackers import sessions_of_their_own
from florlog.errors import FlorlogError, ImageError, RanksError
from florlog.following.guide import Guide
from florlog.program.process import this_process
from florlog.program.silence import cut_off
from florlog.programs.sandbox import FileOverlay
from florlog.recording.roles import Replay
from florlog.source.edit.instrument import Instrumenter
from florlog.source.edit.skip_signal import SkipRest


@contextlib.contextmanager
def guided_run(
    begin: RunBegin, guide: Guide, script: str, files: Collection[str], instrumenter: Instrumenter
) -> Iterator[None]:
    """While the body runs ``script``, its first run of the recorded name follows ``guide``.

    What it says goes nowhere, what it writes goes to an overlay, and leaving early is no error.  ``instrumenter``
    compiles its files.  Raises `FlorlogError` for what it raises, with the place in ``files``, unless a skipped loop
    may have made it fail, and when it opens no such run.
    """
    if begin.world_size > 1:
        raise RanksError(begin.world_size)
    threads = begin.environment.get("threads")
    if isinstance(threads, int) and threads != torch.get_num_threads():
        torch.set_num_threads(threads)  # sums are split by threads: their number changes the bits
    replay = Replay(name=begin.name, guide=guide, instrumenter=instrumenter)
    try:
        with (
            this_process.in_role(replay),
            cut_off(),
            sessions_of_their_own(),
            FileOverlay(),
        ):
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
    if not replay.taken:
        raise FlorlogError(f"{script} opened no run named {begin.name!r}: is it the script of this run?")


def _located(error: Exception, files: Collection[str]) -> str:
    place = ""
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename in files:
            place = f" at {Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}"
        trace = trace.tb_next
    return f"{type(error).__name__}{place}: {error}"
