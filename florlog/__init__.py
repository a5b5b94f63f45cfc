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

from typing import TYPE_CHECKING, Any

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
    UntrustedRunError,
)
from florlog.program import restart as _restart  # noqa: F401 - keeps how the process began
from florlog.program.loading import load as _load

if TYPE_CHECKING:
    from florlog import ignite, keras, lightning, skorch, transformers
    from florlog.reading.reader import Log, RunView
    from florlog.reading.reader import open_log as open  # noqa: A004 - florlog.open reads a store
    from florlog.recording.current_run import iteration, log, loop, track
    from florlog.recording.run import Iteration, Run
    from florlog.recording.session import run
    from florlog.state.codecs import register

_IMPORTED_ON_USE = {
    "Iteration": ("florlog.recording.run", "Iteration"),
    "Log": ("florlog.reading.reader", "Log"),
    "Run": ("florlog.recording.run", "Run"),
    "RunView": ("florlog.reading.reader", "RunView"),
    "iteration": ("florlog.recording.current_run", "iteration"),
    "log": ("florlog.recording.current_run", "log"),
    "loop": ("florlog.recording.current_run", "loop"),
    "open": ("florlog.reading.reader", "open_log"),
    "register": ("florlog.state.codecs", "register"),
    "run": ("florlog.recording.session", "run"),
    "track": ("florlog.recording.current_run", "track"),
}
"""Name -> module and name there.  Recording needs torch, and most commands do not: who reads a log waits for less."""
_MODULES_OF_FRAMEWORKS = {"ignite", "keras", "lightning", "skorch", "transformers"}
"""For the users of these frameworks, imported on use as well; they import no framework."""


if not TYPE_CHECKING:  # a type checker that saw this function would accept any name

    def __getattr__(name: str) -> Any:
        if name in _MODULES_OF_FRAMEWORKS:
            return _load(f"{__name__}.{name}")
        if name not in _IMPORTED_ON_USE:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        module, attribute = _IMPORTED_ON_USE[name]
        found = globals()[name] = getattr(_load(module), attribute)  # found without this function from now on
        return found


def __dir__() -> list[str]:
    return sorted({*globals(), *_IMPORTED_ON_USE, *_MODULES_OF_FRAMEWORKS})


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
    "UntrustedRunError",
    "ignite",
    "iteration",
    "keras",
    "lightning",
    "log",
    "loop",
    "open",
    "register",
    "run",
    "skorch",
    "track",
    "transformers",
]
