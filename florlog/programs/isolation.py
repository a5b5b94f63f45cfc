"""Added code draws from copies of the random generators, and is watched.

A statement added afterwards may draw random numbers without meaning to: every ``for`` over a DataLoader draws a
seed, whether it shuffles or not.  Had it been there when the run was recorded, all that came after would have
been another run.  What is asked for is a value of the run that was recorded; so in a replay the global
generators of Python, NumPy and torch are put back after added code (`florlog.source.edit.instrument` puts it into a
``with Isolated(...)``).

What added code reads from outside the program meanwhile is watched (`florlog.programs.watching`): a value that depends
on the clock is not a value of the run that was recorded.

Not covered: generators that are objects of the script, and whatever else added code changes.  The fingerprints
show those.
"""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Any

import numpy as np
import torch

from florlog.following.trust import hashes_repeat
from florlog.program.process import this_process
from florlog.program.terminal import report
from florlog.programs.watching import Watch
from florlog.recording.roles import Replay
from florlog.source.edit.units import Unit
from florlog.state.random_generators import Randomness

_randomness = Randomness()
_reported: set[tuple[str, int]] = set()


class Watched:
    """Inside the block, what is read from outside is noted; ``units``: the statements of the block."""

    __slots__ = ("_place", "_watch")

    def __init__(self, file: str, line: int, units: tuple[Unit, ...]) -> None:
        self._place = file, line
        role = this_process.role
        same_hashes = isinstance(role, Replay) and hashes_repeat(role.guide.tree)
        self._watch = Watch(file, units, same_hashes=same_hashes)

    def __enter__(self) -> None:
        self._watch.start(sys._getframe(1))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._watch.stop()


class Isolated(Watched):
    """Inside the block, what is drawn from the global random generators is drawn from copies, and it is watched."""

    __slots__ = ("_before",)

    def __enter__(self) -> None:
        self._before = _randomness.capture()
        self._watch.start(sys._getframe(1))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._watch.stop()
        if _same(self._before, _randomness.capture()):
            return
        _randomness.restore(self._before)
        if self._place not in _reported:
            _reported.add(self._place)
            file, line = self._place
            report(
                f"added code draws random numbers ({file.rpartition('/')[2]}:{line}): it draws from copies of the "
                "generators, so that the recorded code draws what it drew then"
            )


def _same(before: Any, after: Any) -> bool:
    if isinstance(before, torch.Tensor):
        return torch.equal(before, after)
    if isinstance(before, np.ndarray):
        return np.array_equal(before, after)
    if isinstance(before, dict):
        return before.keys() == after.keys() and all(_same(before[key], after[key]) for key in before)
    if isinstance(before, list | tuple):
        return len(before) == len(after) and all(map(_same, before, after))
    return bool(before == after)
