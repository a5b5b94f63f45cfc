"""What becomes of calls of other trackers in a replay: nothing is told to one, and its session writes nowhere.

A recording calls them as ever.  A replay takes the values that they are given (`florlog.source.names.telling` says
where those stand) and leaves the call out.  What is called decides, not its name: a function of the program is code,
and runs.  A session of wandb is opened disabled, and mlflow's in a directory that goes with it.

Not covered: sessions of other trackers, which are opened as in the recording, and those that a library opens for the
script other than by the variables that wandb and mlflow read.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import os
import sys
import tempfile
from collections.abc import Iterator
from types import CodeType, ModuleType
from typing import Any

from florlog.program.process import this_process
from florlog.source.names.telling import is_tracker
from florlog.state.user_code import is_user_file


def in_replay(function: Any) -> Any:
    """What a replay calls in the place of a function that tells a tracker, or that opens its session."""
    if _is_users(function):
        return function
    names = _modules_of(function)
    match names[0].partition(".")[0], getattr(function, "__name__", ""):
        case "wandb", "init":
            return functools.partial(_disabled, function)
        case "mlflow", "set_tracking_uri":
            return _nobody
    added = this_process.watch is not None
    return _nobody if is_tracker(names, added=added) else function


@contextlib.contextmanager
def sessions_of_their_own() -> Iterator[None]:
    """Within, sessions that libraries open write nowhere; afterwards none is open."""
    with tempfile.TemporaryDirectory(prefix="florlog-replay-") as scratch:
        ours = {
            "MLFLOW_ALLOW_FILE_STORE": "true",
            "MLFLOW_TRACKING_URI": f"file:{scratch}/mlruns",
            "WANDB_MODE": "disabled",
        }
        before = {name: os.environ.get(name) for name in ours}
        os.environ.update(ours)
        try:
            yield
        finally:
            _end_sessions()
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value


def _end_sessions() -> None:
    for library, end in (("mlflow", "end_run"), ("wandb", "finish")):
        with contextlib.suppress(Exception):  # a tracker's trouble is none of the replay's
            if (module := sys.modules.get(library)) is not None:
                getattr(module, end)()


def _nobody(*told: Any, **named: Any) -> None:
    """Is told values in the place of a tracker."""


def _disabled(init: Any, *args: Any, **options: Any) -> Any:
    """A run of wandb that does nothing.  Images contain runs by their class, and it goes by the name of a real one."""
    run = init(*args, **{**options, "mode": "disabled"})
    real = type(run).__mro__[-2]
    with contextlib.suppress(TypeError):  # a version of wandb with another layout: images do not fit then
        run.__class__ = type(
            real.__name__, (type(run),), {"__module__": real.__module__, "__qualname__": real.__qualname__}
        )
    return run


def _modules_of(function: Any) -> list[str]:
    """The modules of what is called, and of the classes of its object."""
    owner = getattr(function, "__self__", function)
    kinds = [] if isinstance(owner, ModuleType) else type(owner).__mro__
    return [str(getattr(part, "__module__", "")) for part in (function, *kinds)]


def _is_users(function: Any) -> bool:
    """Whether what is called is a function of the program."""
    inner = inspect.unwrap(getattr(function, "__func__", function))
    code = getattr(inner, "__code__", None)
    return isinstance(code, CodeType) and is_user_file(code.co_filename)
