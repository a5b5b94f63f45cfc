"""florlog: a database-style physiological log manager for Python training loops.

    with florlog.run("digits", params={"lr": 1e-3}) as run:
        run.track(model=model, optimizer=optimizer)
        for epoch in run.loop("epoch", range(20)):
            for x, y in run.loop("step", loader):
                ...
                run.log(loss=loss)

Each loop iteration is a transaction in a write-ahead log.  Afterwards ``florlog replay`` answers log
statements that were added later, ``florlog resume`` continues a killed run, and `florlog.open` reads.
"""

from __future__ import annotations

import sys as _sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from florlog.errors import (
    ChangedError,
    DivergedError,
    FlorlogError,
    LogValueError,
    LoopError,
    NoRunError,
    NoSuchRunError,
    SourceChangedError,
    StoreError,
    TrackError,
)
from florlog.reading.reader import Log, RunView
from florlog.reading.reader import open_log as open  # noqa: A004 - florlog.open reads a store
from florlog.recording.run import Iteration, Run
from florlog.recording.session import current as _current_run
from florlog.recording.session import run
from florlog.state.codecs import register

_T = TypeVar("_T")


def log(**values: Any) -> None:
    """Log values in the current run, as `Run.log`; raises `NoRunError` outside one."""
    _current_run("log").log_at(_sys._getframe(1), values)


def loop(name: str, iterable: Iterable[_T]) -> Iterator[_T]:
    """Iterate in the current run, as `Run.loop`; raises `NoRunError` outside one."""
    frame = _sys._getframe(1)
    return _current_run("loop").loop_at((frame.f_code, frame.f_lineno), name, iterable)


def iteration(name: str, index: int) -> Iteration:
    """A transaction of the current run, as `Run.iteration`; raises `NoRunError` outside one."""
    frame = _sys._getframe(1)
    return _current_run("iteration").iteration_at((frame.f_code, frame.f_lineno), name, index)


def track(*, derived: dict[str, Callable[[], Any]] | None = None, **objects: Any) -> None:
    """Track objects in the current run, as `Run.track`; raises `NoRunError` outside one."""
    _current_run("track").track(derived=derived, **objects)


def load_ipython_extension(shell: Any) -> None:
    """``%load_ext florlog`` in a notebook: `florlog.notebook.magic` says what that gives."""
    from florlog.notebook.magic import load

    load(shell)


__all__ = [
    "ChangedError",
    "DivergedError",
    "FlorlogError",
    "Iteration",
    "Log",
    "LogValueError",
    "LoopError",
    "NoRunError",
    "NoSuchRunError",
    "Run",
    "RunView",
    "SourceChangedError",
    "StoreError",
    "TrackError",
    "iteration",
    "log",
    "loop",
    "open",
    "register",
    "run",
    "track",
]
