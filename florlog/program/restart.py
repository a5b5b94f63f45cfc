"""Starting this process over: the same command line, environment and directory, with a message to itself.

Python cannot take back what a program has done to its process.  A new start can: `os.execve` replaces the process and
keeps its id, so whoever waits for it notices nothing.  Neither ``finally`` blocks nor what the program registered for
its exit are executed: they would act on a training that is begun again at once.

The message lies in the environment variable `VARIABLE`.  It is taken out when florlog is imported, so the program's
children do not see it; one that was started before that ignores it, because it is not the process that is named there.
"""

from __future__ import annotations

import contextlib
import gc
import io
import json
import os
import sys
from collections.abc import Mapping
from typing import Any, NoReturn

from florlog.program.opened_runs import in_child

VARIABLE = "FLORLOG_STARTED_OVER"

_message = os.environ.pop(VARIABLE, "")
_process = os.getpid()
_environment = dict(os.environ)


def _directory() -> str | None:
    try:
        return os.getcwd()  # noqa: PTH109 - as it was when florlog was imported
    except OSError:  # it was removed
        return None


_cwd = _directory()


def message() -> dict[str, Any]:
    """What this process gave itself before it started over; empty if it did not."""
    try:
        found = json.loads(_message)
    except ValueError:
        return {}
    return found["message"] if found["process"] == _process else {}


def obstacle() -> str:
    """Why this process cannot start over, "" if it can."""
    main = getattr(sys.modules.get("__main__"), "__file__", None)
    if main is None or hasattr(sys, "ps1"):
        return "an interactive session cannot be started over by itself"
    if in_child():
        return "a process that another one has forked cannot be started over by itself"
    if not sys.executable or not sys.orig_argv or _cwd is None:
        return "the command that started this process is not known"
    return ""


def start_over(given: Mapping[str, Any]) -> NoReturn:
    """Replace this process by a new start of it, which finds ``given`` (plain data) by `message`."""
    _flush()
    multiprocessing = sys.modules.get("multiprocessing")
    for child in multiprocessing.active_children() if multiprocessing else ():
        child.kill()  # a loader's workers would wait for ever, because their parent's id is still there
        child.join()
    text = json.dumps({"process": _process, "message": dict(given)})
    assert _cwd is not None
    os.chdir(_cwd)
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**_environment, VARIABLE: text})


def _flush() -> None:
    """Write what Python still keeps of open files."""
    held = (
        thing for thing in gc.get_objects() if issubclass(type(thing), (io.TextIOBase, io.BufferedIOBase))
    )
    for stream in [*held, sys.stdout, sys.stderr]:
        with contextlib.suppress(Exception):
            stream.flush()
