"""Loops that a framework's hooks tell of: one call of its training, turned into iterations and values of the run.

Each hook is one of three: an iteration `began`, a loop has `ended`, values are `told`.  An iteration ends where the
next one of its loop begins, so what a framework logs after the last hook of a step is in that step.

Nothing of the training depends on it: what goes wrong is one warning, and this call is not recorded any further.
"""

from __future__ import annotations

import builtins
import functools
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import FrameType
from typing import Any

from florlog.bridges.plain_loops import Runtime
from florlog.errors import StoreError
from florlog.program.terminal import reason, warn
from florlog.recording.once import from_signal_handler
from florlog.recording.run import Iteration
from florlog.source.edit.rewrite import RUNTIME
from florlog.state.user_code import is_user_file


def hooked_loops(framework: str) -> HookedLoops | None:
    """The loops of a call that begins now, for the frame that calls this one's; None where nothing is recorded.

    ``framework``: its name and version.
    """
    runtime: Runtime | None = getattr(builtins, RUNTIME, None)
    if runtime is None or not runtime.records():
        return None
    return HookedLoops(framework, runtime, _user_frame(sys._getframe(2)))


@dataclass(slots=True)
class _Open:
    """A loop that is open: as the hooks call it, and as it is called in the run."""

    hooked: str
    name: str
    index: int
    iteration: Iteration
    over: bool = False
    """Whether the iteration has ended already."""


class HookedLoops:
    """The loops of one call; ``frame`` of the user's program is where its records say that they are from."""

    def __init__(self, framework: str, runtime: Runtime, frame: FrameType) -> None:
        self._framework = framework
        self._runtime = runtime
        self._frame: FrameType | None = frame
        self._open: list[_Open] = []
        self._depth = 0  # of what was open before the first

    def began(self, hooked: str) -> None:
        """The next iteration of a loop begins; the one before it has ended, with all inside."""
        if self._frame is None:
            return
        found = next((it for it in self._open if it.hooked == hooked), None)
        if found is None:
            self._begin(hooked)
            return
        self.between(hooked)
        found.over, found.index = False, found.index + 1 if found.iteration.goes_on else 0
        found.iteration = self._entered(found.name, found.index, self._frame)

    def _begin(self, hooked: str) -> None:
        assert self._frame is not None
        run = self._runtime.run
        if not self._open:
            run.is_only_read(self._framework)
            self._depth = run.depth
        name = self._runtime.begins(hooked)
        self._open.append(_Open(hooked, name, 0, self._entered(name, 0, self._frame)))

    def _entered(self, name: str, index: int, frame: FrameType) -> Iteration:
        return self._runtime.run.iteration_at((frame.f_code, frame.f_lineno), name, index).__enter__()

    def between(self, hooked: str) -> None:
        """The iteration of a loop has ended; another one may begin."""
        found = next((it for it in self._open if it.hooked == hooked), None)
        while found is not None and self._open[-1] is not found:
            self._end()
        if found is not None and not found.over:
            found.iteration.__exit__(None, None, None)
            found.over = True

    def ended(self, hooked: str) -> None:
        """A loop has ended, if it is open."""
        if any(it.hooked == hooked for it in self._open):
            while self._open and self._end() != hooked:
                pass

    def _end(self) -> str:
        ended = self._open.pop()
        if not ended.over:
            ended.iteration.__exit__(None, None, None)
        self._runtime.run.end_iterations()
        return ended.hooked

    def told(self, values: Mapping[str, Any]) -> None:
        """The framework logs values."""
        if self._frame is not None and values:
            self._runtime.log(self._frame, values)

    def is_open(self, hooked: str) -> bool:
        """Whether an iteration of a loop is open."""
        return any(it.hooked == hooked and not it.over for it in self._open)

    def close(self) -> None:
        """The call has returned."""
        self.guarded(self._close)()

    def _close(self) -> None:
        while self._open:
            self._end()
        self._frame = None

    def left(self) -> None:
        """An exception has left the call."""
        self.guarded(self._leave)()

    def _leave(self) -> None:
        self._frame = None
        if self._open:
            self._open.clear()
            self._runtime.run.left_iterations(self._depth)
            self._runtime.run.end_iterations()  # of a loop that was between two

    def guarded(self, hook: Callable[..., None]) -> Callable[..., None]:
        """A hook that raises nothing, and does nothing where this call is not recorded any more."""

        @functools.wraps(hook)
        def called(*args: Any, **kwargs: Any) -> None:
            if self._frame is None or not self._runtime.records():
                return
            with self.harmless():
                hook(*args, **kwargs)

        return called

    @contextmanager
    def harmless(self) -> Iterator[None]:
        """Within, what is raised ends the recording of this call, and nothing else."""
        try:
            yield
        except StoreError:  # of a strict run
            raise
        except Exception as error:
            if from_signal_handler(error):
                raise
            self.fail(error)

    def fail(self, error: Exception) -> None:
        """Record nothing more of this call: something in florlog, or what it looks at, is not as it was understood."""
        with suppress(Exception):
            self._leave()
        warn(f"the loops of {self._framework} are not recorded any more: {reason(error)}")


def _user_frame(frame: FrameType) -> FrameType:
    """The innermost frame of the user's program; the frame itself where there is none."""
    found: FrameType | None = frame
    while found is not None and not is_user_file(found.f_code.co_filename):
        found = found.f_back
    return found or frame
