"""Watches what added code reads from outside while it runs: the calls themselves, and those of libraries.

No fingerprint tells whether a value that flows nowhere would be the same in another process.  So while an added
statement runs, a profile function sees each call of Python and of C, and looks it up in the table of outside sources.
A source that is called counts against what the statement logs, and against what is logged from names that the
statement binds, unless a function between the program's own code and the source is known to throw the result away: a
logger reads the clock for its own line, and PyTorch reads the environment for its settings.

Not seen: what compiled code calls by itself, unless Python code runs in between; types that are called (``list(s)``),
which source analysis sees; other threads and processes, whose start counts as a source.  A profiler that is active is
suspended meanwhile; debuggers and coverage use another hook.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterable
from types import CodeType, FrameType, ModuleType
from typing import Any

from florlog.program.environment import is_own
from florlog.program.import_roots import is_installed
from florlog.program.process import this_process
from florlog.source.edit.units import Names, Unit
from florlog.source.names.outside import (
    CLOCK,
    DIRECT,
    ENTROPY,
    ENVIRONMENT,
    FILES,
    HASHES,
    MEMORY,
    NETWORK,
    PROCESS,
    THREADS,
    Read,
    outside,
    public_name,
)

_SETTINGS = frozenset({CLOCK, ENVIRONMENT, PROCESS})
_ALL = frozenset({CLOCK, ENTROPY, ENVIRONMENT, FILES, MEMORY, NETWORK, PROCESS, THREADS})
THROWN_AWAY = {
    **dict.fromkeys((
        "florlog", "florlog_recovery", "florlog_wal", "importlib", "inspect", "linecache", "logging", "loguru", "queue",
        "rich", "structlog", "tensorboard", "tensorboardX", "tokenize", "torch._dynamo", "torch._functorch",
        "torch._inductor", "torch._jit_internal", "torch.fx", "torch.jit", "torch.utils.tensorboard", "tqdm",
        "traceback", "warnings",
    ), _ALL),
    **dict.fromkeys((
        "jax", "joblib", "matplotlib", "numpy", "pandas", "scipy", "threadpoolctl", "torch", "torchvision",
        "transformers",
    ), _SETTINGS),
    **dict.fromkeys(
        ("equinox", "flax", "lightgbm", "mlx", "optax", "sklearn", "xgboost"), frozenset({ENVIRONMENT, PROCESS})
    ),
    "threading": frozenset({CLOCK}),
    "florlog.following.sandbox": frozenset(),  # which stands in for the functions that open files
    "torch.utils.benchmark": frozenset(),
}  # fmt: skip
"""Module -> what it and the modules below it read without letting it into their results."""

_kinds: dict[Any, tuple[str, str]] = {}  # what is called -> what it reads, and its name
_codes: dict[int, tuple[CodeType, str, str]] = {}  # the same of code, by its id; the code is kept alive
_SEEDING = "random.Random.seed"  # which reads entropy if it is given no seed
_own: dict[str, bool] = {}  # file -> whether it is the program's
_noisy: dict[tuple[str, str], Read] = {}  # file and name -> what was read when an added statement bound it


class Watch:
    """What the added statements of one block read; ``units``: these statements, ``same_hashes``: as when recorded."""

    _before: Any  # the profile function

    __slots__ = ("_before", "_file", "_frame", "_last", "_outer", "_reads", "_same_hashes", "_told", "_units")

    def __init__(self, file: str, units: tuple[Unit, ...], *, same_hashes: bool) -> None:
        self._file = file
        self._units = units
        self._same_hashes = same_hashes
        self._reads: dict[int, Read] = {}  # line of the block -> the first read there
        self._last: Read | None = None  # since the statement that runs began, or told a value
        self._told: dict[str, Read | None] = {}  # what was read for the values that it told so far

    def start(self, frame: FrameType) -> None:
        """The block begins in a frame."""
        self._frame: FrameType | None = frame
        self._outer: Watch | None = this_process.watch
        self._before = sys.getprofile()
        if hasattr(self._before, "disable"):  # the profiler of cProfile stands for its function
            self._before.disable()
        this_process.watch = self
        sys.setprofile(_hook(self._note))

    def stop(self) -> None:
        """The block is left."""
        sys.setprofile(None)
        if hasattr(self._before, "enable"):
            self._before.enable()
        else:
            sys.setprofile(self._before)
        this_process.watch = self._outer
        for name, read in self._followed(sys.maxsize)[1].items():
            _noisy.setdefault((self._file, name), read)
        self._frame = None

    @property
    def reason(self) -> str:
        """What from outside reaches a value that is logged now, as text; "" if nothing does."""
        watch: Watch | None = self
        while watch is not None:
            here = watch._followed(0 if watch._frame is None else watch._frame.f_lineno)[0]
            if here is not None:
                return str(here)
            watch = watch._outer
        return ""

    def reason_of(self, name: str) -> str:
        """As `reason`, for one of the values that are logged now: what was read for the others does not count."""
        if name not in self._told:
            return self.reason
        own = self._told[name]
        around = self._outer.reason if self._outer is not None else ""
        return around if own is None else str(own)

    def begins(self, frame: FrameType) -> None:
        """A statement in a frame begins to tell values."""
        if frame is self._frame:
            self._last, self._told = None, {}

    def tells(self, frame: FrameType, value: str, names: Iterable[str]) -> None:
        """It has computed a value, which the text calls ``value``, and tells it under ``names``."""
        if frame is not self._frame:
            return
        reads = self._read_by(value, frame.f_lineno)
        if reads is not None:
            read, self._last = self._last, None
            if read is None:
                changed = self._followed(frame.f_lineno)[1]
                found = (changed.get(name) or _noisy.get((self._file, name)) for name in reads)
                read = next(filter(None, found), None)
            self._told.update((name, self._told.get(name) or read) for name in names)

    def _read_by(self, value: str, line: int) -> Names | None:
        """The names that a value's code reads; None if its statement does more than to tell values."""
        for first, last, *_, told in self._units:
            if first <= line <= last and told:
                return next((reads for name, reads in told if name == value), None)
        return None

    def _followed(self, line: int) -> tuple[Read | None, dict[str, Read]]:
        """What reaches the statement at a line, and the names that what was read before it reaches."""
        changed: dict[str, Read] = {}
        here = None
        for first, last, reads, binds, _ in self._units if self._reads or _noisy else ():
            if first > line:
                break
            read = next((read for at, read in self._reads.items() if first <= at <= last), None)
            for name in reads:
                read = read or changed.get(name) or _noisy.get((self._file, name))
            if read is not None:
                changed.update(dict.fromkeys(binds, read))
                here = read if line <= last else here
        return here, changed

    def _note(self, frame: FrameType, kind: str, name: str) -> None:
        """Something was read by a frame: it counts for the statements around, unless it is known not to reach them."""
        if kind == HASHES and self._same_hashes:
            return
        read: Read | None = None
        around, below = frame, None
        while True:
            if read is None:
                if around is self._frame or _is_program(around):
                    stands_in = below is None or is_own(str(below.f_globals.get("__name__", "")))
                    shown = name if below is None or stands_in else public_name(_name_of_code(below))
                    read = Read(kind, shown, around.f_code.co_filename, around.f_lineno)
                elif kind in DIRECT or kind in _thrown_away(str(around.f_globals.get("__name__", ""))):
                    return
            watch: Watch | None = self
            while watch is not None:
                if watch._frame is around and read is not None:
                    watch._reads.setdefault(around.f_lineno, read)
                    watch._last = watch._last or read
                watch = watch._outer
            if around.f_back is None:
                return
            below, around = around, around.f_back


def _hook(note: Callable[[FrameType, str, str], None]) -> Callable[[FrameType, str, Any], None]:
    """The profile function that tells ``note`` of each call of a source: the calling frame, the kind and the name."""
    kinds, codes = _kinds.get, _codes.get

    def hook(frame: FrameType, event: str, called: Any) -> None:  # which is run twice a call
        if event == "c_call":
            owner = called.__self__
            kind = owner.__class__
            key: Any = called
            if kind is type:
                key = owner, called.__name__
            elif kind is not ModuleType:
                key = kind, called.__name__
            found = kinds(key)
            if found is None:
                found = _kinds[key] = _kind(_name_of(called, owner))
            if found[0]:
                note(frame, *found)
        elif event == "call":
            code = frame.f_code
            known = codes(id(code))
            if known is None:
                known = _codes[id(code)] = code, *_kind("" if _is_program(frame) else _name_of_code(frame))
            if known[1] and frame.f_back is not None:
                note(frame.f_back, known[1], known[2])
            elif known[2] == _SEEDING and frame.f_back is not None and frame.f_locals.get("a") is None:
                note(frame.f_back, ENTROPY, "random.Random")

    return hook


def _kind(name: str) -> tuple[str, str]:
    name = public_name(name)
    return outside(name), name


def _name_of(called: Any, owner: Any) -> str:
    """The dotted name of a compiled function or method."""
    name = str(called.__name__)
    if isinstance(owner, ModuleType) or owner is None:
        return f"{getattr(called, '__module__', None) or getattr(owner, '__name__', '')}.{name}"
    kind = owner if isinstance(owner, type) else type(owner)
    names = [
        f"{base.__module__}.{base.__qualname__}.{name}" for base in kind.__mro__ if name in base.__dict__
    ]
    return next((found for found in names if outside(public_name(found))), f"{kind.__module__}.{name}")


def _name_of_code(frame: FrameType) -> str:
    return f"{frame.f_globals.get('__name__', '')}.{frame.f_code.co_qualname}"


@functools.cache
def _thrown_away(module: str) -> frozenset[str]:
    while module:
        if (found := THROWN_AWAY.get(module)) is not None:
            return found
        module = module.rpartition(".")[0]
    return frozenset()


def _is_program(frame: FrameType) -> bool:
    file = frame.f_code.co_filename
    if (known := _own.get(file)) is None:
        made = file.startswith("<") and not file.startswith(("<ipython", "<stdin"))
        known = not (made or is_installed(file) or is_own(str(frame.f_globals.get("__name__", ""))))
        _own[file] = known
    return known
