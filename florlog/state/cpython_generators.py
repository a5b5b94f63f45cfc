"""What florlog needs of how CPython keeps waiting generators; as `florlog.state.cpython`, which says more.

The check passed on CPython 3.11.7, 3.12.1 and 3.13.0.  The module imports neither florlog nor torch.
"""

from __future__ import annotations

import dis
import functools
import gc
from bisect import bisect_right
from collections.abc import Callable, Iterator
from types import CodeType, GeneratorType
from typing import Any


@functools.lru_cache(maxsize=1024)
def _yields(code: CodeType) -> list[int]:
    return [step.offset for step in dis.get_instructions(code) if step.opname == "YIELD_VALUE"]


def suspended_at(generator: GeneratorType[Any, Any, Any]) -> int:
    """The number of the ``yield`` in its code at which a generator waits, from 1; 0 before it begins, -1 after its end.

    Statements that are added to the code do not change it.
    """
    frame = generator.gi_frame
    if frame is None:
        return -1
    return bisect_right(_yields(generator.gi_code), frame.f_lasti)


def stack_of(generator: GeneratorType[Any, Any, Any]) -> list[Any]:
    """What a waiting generator holds besides its variables: the iterators of the loops that it is in, outermost first.

    The collector visits a frame's variables, then its stack, then the exception that the generator handles, or None
    once it, or what it called, has handled one.  Exceptions and None are left out: whether there are any depends on
    what was called on the way.  Raises ValueError where it is not seen.
    """
    code, frame = generator.gi_code, generator.gi_frame
    if frame is None:
        return []
    held = gc.get_referents(generator)
    start = next((i for i, part in enumerate(held) if getattr(part, "__code__", None) is code), -1) + 1
    if not start or start >= len(held) or held[start] is not code:
        raise ValueError("a generator is not as it is expected")
    own = set(code.co_varnames) - set(code.co_cellvars)
    bound = frame.f_locals
    variables = sum(name in bound for name in own) + len(code.co_cellvars) + len(code.co_freevars)
    return [
        part
        for part in held[start + 1 + variables :]
        if not (part is None or isinstance(part, BaseException))
    ]


@functools.cache
def can_see_stacks() -> bool:
    """Check: whether `suspended_at` and `stack_of` see where generators wait, with closures and several loops."""

    def handle() -> None:
        try:
            raise ValueError
        except ValueError:
            pass

    def probe(first: Any, unused: Any = None) -> Iterator[Any]:
        shared = [1, 2]
        handle()
        for one in first:
            yield one
            for two in enumerate(shared):
                other = lambda: shared  # noqa: E731
                yield two, other
        yield from first

    def fail() -> None:
        try:
            raise KeyError
        except KeyError:
            pass

    def handling() -> Iterator[Any]:
        for one in (fail,):
            one()
            yield one

    handled: Any = handling()
    next(handled)
    first = [5, 6]
    made: Any = probe(first)
    seen = [(suspended_at(made), stack_of(made))]
    for _ in range(6):
        next(made)
        seen.append((suspended_at(made), list(map(type, stack_of(made)))))
    next(made)
    rest = stack_of(made)
    lists: list[type] = [type(iter([]))]
    counters = [*lists, enumerate]
    return (
        seen == [(0, []), (1, lists), (2, counters), (2, counters), (1, lists), (2, counters), (2, counters)]
        and suspended_at(made) == 3
        and rest[0].__reduce__()[1][0] is first
        and len(stack_of(handled)) == 1
    )


CHECKS: tuple[Callable[[], bool], ...] = (can_see_stacks,)
"""What shows that an interpreter is as this module takes it to be."""
