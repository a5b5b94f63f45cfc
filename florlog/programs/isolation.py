"""Added code draws from copies of the random generators.

A statement added afterwards may draw random numbers without meaning to: every ``for`` over a DataLoader draws a
seed, whether it shuffles or not.  Had it been there when the run was recorded, all that came after would have
been another run.  What is asked for is a value of the run that was recorded; so in a replay the global
generators of Python, NumPy and torch are put back after added code (`florlog.source.edit.instrument` puts it into a
``with Isolated(...)``).

Not covered: generators that are objects of the script, and whatever else added code changes.  The fingerprints
show those.
"""

from __future__ import annotations

from types import TracebackType
from typing import Any

import numpy as np
import torch

from florlog.program.terminal import report
from florlog.state.random_generators import Randomness

_randomness = Randomness()
_reported: set[tuple[str, int]] = set()


class Isolated:
    """Inside the block, what is drawn from the global random generators is drawn from copies."""

    __slots__ = ("_before", "_place")

    def __init__(self, file: str, line: int) -> None:
        self._place = file, line

    def __enter__(self) -> None:
        self._before = _randomness.capture()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
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
