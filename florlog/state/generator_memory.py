"""Whether Python's and NumPy's random generators are as they were, seen in a microsecond.

Asking them for their states makes hundreds of numbers, at each beginning of a loop, and most trainings draw from
neither.  A state is a function of the memory that it lies in.  So equal memory means an equal state, whatever the
layout; other memory means nothing.  `can_see_draws` checks that no part of a state lies elsewhere.
"""

from __future__ import annotations

import ctypes
import functools
import random
from collections.abc import Callable
from typing import Any

import numpy as np

Memory = tuple[Any, bytes, bytes, bytes]
"""What Python's generator keeps for ``gauss()``, and the memory of it, of NumPy's and of what that draws from."""


class GeneratorMemory:
    """The memory of a ``random.Random`` and of a ``numpy.random.RandomState``."""

    def __init__(self, python: random.Random, numpy: np.random.RandomState) -> None:
        self._python, self._numpy = python, numpy
        self._bits: Any = None
        self._views = _after_head(python), _after_head(numpy)
        self._bits_view: Any = None

    def now(self) -> Memory | None:
        """The memory now; None where it does not show the state."""
        held: Any = self._numpy
        bits = held._bit_generator
        if bits is not self._bits:
            self._bits, self._bits_view = bits, _after_head(bits)
        if type(bits) is not np.random.MT19937 or not can_see_draws():
            return None
        python, numpy = self._views
        return self._python.gauss_next, python.raw, numpy.raw, self._bits_view.raw  # type: ignore[attr-defined]


def is_same(one: Memory | None, other: Memory | None) -> bool:
    """Whether two memories are known to hold the same states."""
    # Of numbers 0.0 equals -0.0.
    return one is not None and other is not None and one[0] is other[0] and one[1:] == other[1:]


def _after_head(held: Any) -> Any:
    """The memory of an object after its count of references; the object must outlive it."""
    head, size = object.__basicsize__, type(held).__basicsize__
    return (ctypes.c_char * (size - head)).from_address(id(held) + head)


@functools.cache
def can_see_draws() -> bool:
    """Check: whether each draw, and each number kept for later, shows in the memory, and nothing else does."""
    python, numpy = random.Random(1), np.random.RandomState(1)
    views = [_after_head(held) for held in (python, numpy, numpy._bit_generator)]

    def seen() -> list[Any]:
        return [python.gauss_next, *(view.raw for view in views)]  # type: ignore[attr-defined]

    def differs(draw: Callable[[], Any]) -> bool:
        before = seen()
        draw()
        return seen() != before

    # The second normal number is one that was kept.
    draws: tuple[Callable[[], Any], ...] = (
        python.random, lambda: python.getrandbits(1), lambda: python.gauss(0.0, 1.0), lambda: python.gauss(0.0, 1.0),
        numpy.random_sample, lambda: numpy.randint(2), numpy.standard_normal, numpy.standard_normal,
    )  # fmt: skip
    calm: list[Callable[[], Any]] = [python.getstate, lambda: numpy.get_state(legacy=False)]
    return all(map(differs, draws)) and not any(map(differs, calm))
