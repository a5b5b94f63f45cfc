"""Cuts off what a replayed script says, at the level of the process, and ends such a process.

A script, its libraries, C code, child processes and threads write to ``sys.stdout`` and ``sys.stderr``, to the file
descriptors 1 and 2, or to a stream that they kept.  `cut_off` points all of these to nowhere; florlog's own lines go
to a duplicate of what was there (`florlog.program.terminal`).

Threads and functions registered with `atexit` outlive the script.  A process that belongs to florlog (`claim`) stays
cut off for them: only the main thread's ``sys.stdout`` and ``sys.stderr`` are the terminal again.  It ends without
running any of them (`leave`), so that they cannot write files or keep it from ending.  In another process, such as a
notebook's, all is as before after the block.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
import threading
from collections.abc import Iterator
from typing import Any, TextIO, cast

from florlog.program import terminal

_STREAMS = ("stdout", "stderr")


class _OfMainThread:
    """A stream for the main thread; what other threads write goes nowhere."""

    def __init__(self, stream: TextIO, nowhere: TextIO) -> None:
        self._stream, self._nowhere = stream, nowhere

    def write(self, text: str) -> int:
        """As a stream's ``write``."""
        main = threading.current_thread() is threading.main_thread()
        return (self._stream if main else self._nowhere).write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class _State:
    """What was cut off in this process."""

    def __init__(self) -> None:
        self.claimed = False  # the process is florlog's
        self.cut = False  # for the rest of the process
        self.nowhere: TextIO | None = None


_state = _State()


def claim() -> None:
    """This process executes an order or a command of florlog's, and nothing else."""
    _state.claimed = True


@contextlib.contextmanager
def cut_off() -> Iterator[None]:
    """Within, nobody but florlog reaches the terminal."""
    if _state.nowhere is None:
        # Never closed: handlers of loggers keep it.
        _state.nowhere = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123
    before = {name: getattr(sys, name) for name in _STREAMS}
    if _state.cut:
        own, kept = before, {}
    else:
        _flush()
        kept = {number: os.dup(number) for number in (1, 2) if _is_open(number)}
        own = {name: _own(before[name], number, kept) for number, name in enumerate(_STREAMS, 1)}
        for number in kept:
            os.dup2(_state.nowhere.fileno(), number)
    sys.stdout = sys.stderr = _state.nowhere
    terminal.stands_for(own["stderr"])
    try:
        yield
    finally:
        if _state.claimed:
            _state.cut = True
            for name in _STREAMS:
                setattr(sys, name, own[name] if own is before else _OfMainThread(own[name], _state.nowhere))
        else:
            _flush()
            for number, duplicate in kept.items():
                os.dup2(duplicate, number)
                os.close(duplicate)
            for name in _STREAMS:
                setattr(sys, name, before[name])
            terminal.stands_for(None)


def leave(code: int) -> int:
    """End this process at once if a script was cut off in it, and nothing of it may run any more; else ``code``."""
    if _state.cut:
        for name in _STREAMS:
            with contextlib.suppress(OSError, ValueError):  # the reader is gone
                getattr(sys, name).flush()
        os._exit(code)
    return code


def _own(stream: TextIO, number: int, kept: dict[int, int]) -> TextIO:
    """A stream that still reaches where ``stream`` did, after its descriptor was pointed elsewhere."""
    try:
        shares = stream.fileno() == number
    except (OSError, ValueError, AttributeError):  # a notebook's, or closed
        shares = False
    if not shares or number not in kept:
        return stream
    return cast(
        TextIO,
        os.fdopen(os.dup(kept[number]), "w", buffering=1, encoding=stream.encoding, errors=stream.errors),
    )


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


def _flush() -> None:
    """Write out what Python and C libraries hold back."""
    for name in _STREAMS:
        with contextlib.suppress(OSError, ValueError, AttributeError):
            getattr(sys, name).flush()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).fflush(None)
