"""The functions of the run that is open: `florlog.log`, `florlog.loop`, `florlog.iteration`, `florlog.track`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

from florlog.recording.run import Iteration
from florlog.recording.session import current
from florlog.recording.transactions import joined

_T = TypeVar("_T")


def log(values: Mapping[str, Any] | None = None, /, **named: Any) -> None:
    """Log values in the current run, as `Run.log`; raises `NoRunError` outside one."""
    current("log").log_at(sys._getframe(1), named if values is None else joined(values, named))


def loop(name: str, iterable: Iterable[_T]) -> Iterator[_T]:
    """Iterate in the current run, as `Run.loop`; raises `NoRunError` outside one."""
    frame = sys._getframe(1)
    return current("loop").loop_at((frame.f_code, frame.f_lineno), name, iterable)


def iteration(name: str, index: int) -> Iteration:
    """A transaction of the current run, as `Run.iteration`; raises `NoRunError` outside one."""
    frame = sys._getframe(1)
    return current("iteration").iteration_at((frame.f_code, frame.f_lineno), name, index)


def track(*, derived: dict[str, Callable[[], Any]] | None = None, **objects: Any) -> None:
    """Track objects in the current run, as `Run.track`; raises `NoRunError` outside one."""
    current("track").track_all(objects, derived or {})
