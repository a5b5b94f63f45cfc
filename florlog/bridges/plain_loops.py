"""What a turned script calls: its loops, its statements, and finding what to track.

Before each loop the variables in reach of the user's frames are looked through for modules, optimizers,
schedulers and the like, which are tracked under their variables' names, so that `state_at` shows their state under
these names; all else is state that the variables reach (`florlog.state.variables`).
"""

from __future__ import annotations

import builtins
import itertools
import os
import re
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import FrameType
from typing import Any

import torch

from florlog.bridges.other_trackers import in_replay
from florlog.errors import FlorlogError, TrackError
from florlog.program.process import this_process
from florlog.program.terminal import reason, warn
from florlog.recording.roles import Replay
from florlog.recording.run import Run
from florlog.source.edit.rewrite import RUNTIME
from florlog.source.names.calls import COMPUTED_NAME
from florlog.state.stateful import class_has_state_dict
from florlog.state.user_code import is_user_class, is_user_file

_MAX_DEPTH = 3  # of containers and objects in a variable
_MAX_ITEMS = 50  # of a container that is looked through
_SHOWN = frozenset({"torch", "accelerate"})  # libraries whose optimizers, schedulers and scalers are tracked


class Told:
    """The values that one statement tells, and their names."""

    def __init__(self) -> None:
        self.values: list[tuple[str, Any]] = []
        self._name: str | None = None  # of the next value whose name the text does not say

    def name(self, name: Any) -> None:
        """The next such value has a name."""
        self._name = str(name)

    def add(self, name: str, value: Any) -> list[str]:
        """A value under its name; under `COMPUTED_NAME`, under the one given before, or each of a mapping's.

        Returns the names.
        """
        told = [(name, value)]
        if name == COMPUTED_NAME:
            given, self._name = self._name, None
            told = [(given or "value", value)]
            if isinstance(value, Mapping):
                prefix = "" if given is None else f"{given}/"
                told = [(f"{prefix}{key}", item) for key, item in value.items()]
        self.values += told
        return [name for name, _ in told]


class Runtime:
    """The name ``__florlog__`` while a turned script runs."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.tracked: dict[str, Any] = {}
        self.entered = False
        self.on_first_loop: Callable[[], None] = lambda: None
        self._failed = False  # looking through the variables
        self._statements: list[Told] = []
        self._loops: set[str] = set()  # that have begun
        self._thread = threading.get_ident()
        self._process = os.getpid()

    def install(self) -> None:
        """Make the name known to every module."""
        setattr(builtins, RUNTIME, self)

    @staticmethod
    def uninstall() -> None:
        """Take the name away again."""
        if hasattr(builtins, RUNTIME):
            delattr(builtins, RUNTIME)

    def records(self) -> bool:
        """Whether what is executed here and now is recorded in a run."""
        return bool(self.run.id) and not isinstance(this_process.role, Replay) and self._active()

    def _active(self) -> bool:
        return threading.get_ident() == self._thread and os.getpid() == self._process

    # -- loops -------------------------------------------------------------------------------------

    def loop(self, name: str, iterable: Iterable[Any]) -> Iterable[Any]:
        """The loop as a loop of the run."""
        if not self._active():
            return iterable
        frame = sys._getframe(1)
        try:
            self._track(frame)
        except TrackError:  # of a strict run
            raise
        except Exception as error:  # an object of the user's may fail when it is looked at
            if not self._failed:
                self._failed = True
                warn(f"looking for what can be shown as state failed: {reason(error)}")
        name = self.begins(name)
        return self.run.loop_at((frame.f_code, frame.f_lineno), name, iterable, bare=True)

    def begins(self, name: str) -> str:
        """A loop begins; what it is called inside those that are open."""
        self._loops.add(name)
        if not self.entered:
            self.entered = True
            self.on_first_loop()
        around = self.run.open_loops
        while name in around:
            name += "_"
        return name

    @staticmethod
    def passes() -> Iterator[int]:
        """The passes of a while loop."""
        return itertools.count()

    def entered_blindly(self) -> bool:
        """Whether the pass of a while loop that begins was entered blindly: then its test was true when recorded."""
        return self.run.entered_blindly and self._active()

    # -- statements --------------------------------------------------------------------------------

    def begin(self) -> int:
        """A statement begins to evaluate its arguments."""
        if not self._active():
            return 0
        self._statements.append(Told())
        if this_process.watch is not None:
            this_process.watch.begins(sys._getframe(1))
        return len(self._statements)

    def named(self, name: Any) -> Any:
        """The name, which the text does not say, of the value that the statement tells next."""
        if self._active() and self._statements:
            self._statements[-1].name(name)
        return name

    def see(self, name: str, value: Any) -> Any:
        """A value that the statement tells."""
        if self._active() and self._statements:
            told = value
            if sys._getframe(1).f_code.co_filename in this_process.adopted:
                told = self._without_loops(value)
            names = self._statements[-1].add(name, told)
            if this_process.watch is not None:
                this_process.watch.tells(sys._getframe(1), name, names)
        return value

    def told(self, function: Any) -> Any:
        """What is called to tell a tracker: in a replay nothing is told to one, only the values are taken."""
        return in_replay(function) if isinstance(this_process.role, Replay) else function

    def said(self, mark: int, result: Any) -> Any:
        """The statement has run: its values are logged."""
        if mark:
            told = self._statements[mark - 1]
            del self._statements[mark - 1 :]
            self._log(sys._getframe(1), told.values)
        return result

    def log(self, frame: FrameType, values: Mapping[str, Any]) -> None:
        """A framework tells values, for the statement that ``frame`` is executing."""
        self._log(frame, self._without_loops(values).items())

    def _without_loops(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Where its loops are is not told: the path of each value says it."""
        return {key: held for key, held in values.items() if key not in self._loops}

    def _log(self, frame: FrameType, told: Iterable[tuple[str, Any]]) -> None:
        values = {name: self._loggable(name, value) for name, value in told}
        if values:
            self.run.log_at(frame, values)

    def _loggable(self, name: str, value: Any) -> Any:
        try:
            return self.run.loggable(name, value)
        except FlorlogError:
            pass
        try:
            return re.sub(r"0x[0-9a-f]+", "0x", str(value))
        except Exception:
            return f"<{type(value).__name__}>"

    # -- state -------------------------------------------------------------------------------------

    def _track(self, frame: FrameType) -> None:
        frames = []
        current: FrameType | None = frame
        while current is not None:
            file = current.f_code.co_filename
            if is_user_file(file) or file in this_process.adopted:
                frames.append(current)
            # Around a notebook's cell are the shell's frames.
            code = current.f_code
            outermost = code.co_name == "<module>" and this_process.notebook.has_code_of(code.co_filename)
            current = None if outermost else current.f_back
        found: dict[str, Any] = {}
        seen: set[int] = set()
        for outer in reversed(frames):
            for name, value in list(outer.f_locals.items()):
                self._consider(name, value, found, seen, 0)
        inside = {
            id(child)
            for value in found.values()
            if isinstance(value, torch.nn.Module)
            for child in value.modules()
            if child is not value
        }
        new = {
            name: value
            for name, value in found.items()
            if id(value) not in inside and self.tracked.get(name) is not value
        }
        if new:
            self.tracked.update(new)
            self.run.track_all(new, {})

    def _consider(self, name: str, value: Any, found: dict[str, Any], seen: set[int], depth: int) -> None:
        if (
            name.startswith("__")
            or id(value) in seen
            or (not depth and this_process.notebook.is_shell_variable(name))
        ):
            return
        kind: Any = type(value)
        if isinstance(value, torch.nn.Module):
            seen.add(id(value))
            if next(value.parameters(), None) is not None or next(value.buffers(), None) is not None:
                self._add(name, value, found)
        elif _has_state(value) and not isinstance(value, type):
            seen.add(id(value))
            self._add(name, value, found)
        elif kind in (list, tuple, dict) and depth < _MAX_DEPTH and 0 < len(value) <= _MAX_ITEMS:
            seen.add(id(value))
            items = value.items() if kind is dict else enumerate(value)
            for key, item in items:
                self._consider(f"{name}_{key}", item, found, seen, depth + 1)
        elif is_user_class(kind) and depth < _MAX_DEPTH and hasattr(value, "__dict__"):
            seen.add(id(value))
            for key, item in list(vars(value).items()):
                self._consider(key, item, found, seen, depth + 1)

    @staticmethod
    def _add(name: str, value: Any, found: dict[str, Any]) -> None:
        word = base = re.sub(r"\W", "_", name)
        number = 1
        while word in found:
            number += 1
            word = f"{base}_{number}"
        found[word] = value


def _has_state(value: Any) -> bool:
    kind = type(value)
    library = kind.__module__.partition(".")[0] in _SHOWN and "data" not in kind.__module__
    return library and class_has_state_dict(kind)
