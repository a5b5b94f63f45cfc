"""Lines for the person at the terminal, and warnings: each with florlog's name in front, each one line.

Neither ever raises.  A warning is a `RuntimeWarning` at the line of the user's that led to it; where warnings are made
errors (``python -W error``) it is a line on stderr, because logging must not end a training.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import warnings
from pathlib import Path
from typing import TextIO

_OWN = tuple(
    f"{Path(__file__).parents[2] / name}/" for name in ("florlog", "florlog_wal", "florlog_recovery")
)
_MAX_REASON_CHARACTERS = 300


_own: list[TextIO] = []  # the stream for florlog's lines while ``sys.stderr`` is not the terminal's
_warned: set[str] = set()  # meanwhile


def stands_for(stream: TextIO | None) -> None:
    """From now on a stream takes florlog's lines in the place of ``sys.stderr``; None: no longer."""
    _own[:] = [] if stream is None else [stream]


def stream() -> TextIO:
    """Where florlog's lines go."""
    return _own[0] if _own else sys.stderr


def report(text: str) -> None:
    """A line for the person at the terminal."""
    start = "\n" if _bars_are_shown() else ""
    with contextlib.suppress(OSError, ValueError):  # stderr was closed, or its pipe has no reader
        print(f"{start}florlog: {harmless(text)}", file=stream(), flush=True)


def _bars_are_shown() -> bool:
    """Whether a progress bar of tqdm's may stand on the present line."""
    bars = getattr(getattr(sys.modules.get("tqdm"), "tqdm", None), "_instances", ())
    files = [getattr(bar, "fp", None) for bar in [*bars]]
    return any(getattr(file, "_wrapped", file) is stream() for file in files)


def warn(text: str) -> None:
    """Warn that something is not recorded."""
    line = " ".join(f"florlog: {text}".split())
    if _own:  # warnings are the script's own, and are not shown
        if line not in _warned:
            _warned.add(line)
            report(line.removeprefix("florlog: "))
        return
    file, number = _user_line()
    try:
        warnings.warn_explicit(line, RuntimeWarning, file, number)
    except Exception:  # a filter that makes warnings errors, or a `warnings.showwarning` that fails
        report(line.removeprefix("florlog: "))


def reason(error: BaseException) -> str:
    """What an exception says, in one line."""
    try:
        text = " ".join(str(error).strip().split("\n", 1)[0].split())
    except Exception:  # an exception of the user's may fail to say what it is
        text = ""
    return text[:_MAX_REASON_CHARACTERS] or type(error).__name__


def _user_line() -> tuple[str, int]:
    """The innermost line of the calling thread that is not florlog's; florlog itself, on a thread of its own."""
    frame = sys._getframe(2)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_OWN):
        frame = frame.f_back
    if frame.f_code.co_filename in (threading.__file__, __file__):
        return "florlog", 1
    return frame.f_code.co_filename, frame.f_lineno


def harmless(text: str) -> str:
    """Lines without control characters, of which a log may contain any."""
    return "".join(char if char.isprintable() or char == "\n" else ascii(char)[1:-1] for char in text)
