"""What florlog needs of CPython's insides, in one place.

The language does not promise what is used here.  So each part has a check that tries it on small objects of its own,
and whoever uses a part refuses its work where the check fails.  All checks passed on CPython 3.11.7, 3.12.1 and 3.13.0.
The module imports neither florlog nor torch: any interpreter can run its checks (tests/state/test_cpython.py does).
"""

from __future__ import annotations

import contextlib
import ctypes
import dis
import functools
import gc
import inspect
import itertools
import sys
import warnings
from bisect import bisect_right
from collections.abc import Callable, Iterator, MutableMapping
from types import CodeType, FrameType, GeneratorType, TracebackType
from typing import Any

_HOLD_A_TUPLE = (zip, map, itertools.zip_longest)  # their inner iterators lie in a tuple that they hold


# -- running frames -----------------------------------------------------------------------------------


def frame_of(code: CodeType) -> FrameType | None:
    """The innermost running frame of a code object, None if it does not run in this thread."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code is not code:
        frame = frame.f_back
    return frame


@contextlib.contextmanager
def writable_variables(frame: FrameType) -> Iterator[MutableMapping[str, Any]]:
    """The variables of a running frame; what is assigned to them reaches the frame when the block ends."""
    variables: Any = frame.f_locals
    yield variables
    if sys.version_info < (3, 13):
        # Before PEP 667 a frame's f_locals is a copy, written back by this call (pdb does the same).
        ctypes.pythonapi.PyFrame_LocalsToFast(ctypes.py_object(frame), ctypes.c_int(0))


@functools.cache
def can_write_variables() -> bool:
    """Check: whether `writable_variables` changes a function's variables, one that a closure shares included."""

    def probe() -> tuple[str, str]:
        own = shared = "before"

        def closure() -> str:
            return shared

        frame = frame_of(probe.__code__)
        if frame is not None:
            with writable_variables(frame) as variables:
                variables["own"] = variables["shared"] = "after"
        return own, closure()

    return probe() == ("after", "after")


# -- why a loop was left ------------------------------------------------------------------------------

_YOUNG_GENERATIONS = 2  # of the garbage collector: a traceback that was made just now lies in one of these


def departure(frame: FrameType | None) -> str:
    """Why an iterator is being dropped, by the frame that drops it: "break", "exception", or "" if it cannot be seen.

    A ``break`` or ``return`` pops the iterator of its ``for`` by an instruction of its own.  An exception has left a
    traceback at the instruction that the frame stands at.  A generator that is closed while it waits at a ``yield``
    passes on what its own consumer does.
    """
    while frame is not None:
        operation = dis.opname[frame.f_code.co_code[frame.f_lasti]] if frame.f_lasti >= 0 else ""
        if not (frame.f_code.co_flags & inspect.CO_GENERATOR and operation == "YIELD_VALUE"):
            if operation == "POP_TOP":
                return "break"
            if operation == "POP_EXCEPT" or _raised_at(frame):
                return "exception"
            return ""
        frame = frame.f_back
    return ""


def _raised_at(frame: FrameType) -> bool:
    return any(
        type(made) is TracebackType and made.tb_frame is frame and made.tb_lasti == frame.f_lasti
        for generation in range(_YOUNG_GENERATIONS)
        for made in gc.get_objects(generation)
    )


@functools.cache
def can_see_departure() -> bool:
    """Check: whether `departure` says what ends a loop, also one around which there are other iterators."""
    seen: list[str] = []

    def numbers() -> Iterator[int]:
        try:
            yield 1
        except GeneratorExit:
            seen.append(departure(sys._getframe(0).f_back))
            raise

    def drawn() -> Iterator[Any]:
        for number in numbers():  # noqa: UP028 - as progress bars are written
            yield number

    def shown(iterable: Any) -> Iterator[Any]:
        try:
            for number in iterable:  # noqa: UP028
                yield number
        finally:
            seen.extend(())

    def leave(make: Callable[[], Any], how: str) -> int:
        for number in make():
            if how == "break":
                break
            if how == "return":
                return number if isinstance(number, int) else 0
            if how == "break by another":
                try:
                    int("no number")
                except ValueError:
                    break
            if how == "raise":
                raise KeyError(number)
            int("no number")
        return 0

    def left(make: Callable[[], Any], how: str) -> str:
        seen.clear()
        with contextlib.suppress(KeyError, ValueError):
            leave(make, how)
        return ",".join(seen)

    expected = {
        "break": "break",
        "return": "break",
        "break by another": "break",
        "raise": "exception",
        "call": "exception",
    }
    return all(
        left(made, how) == why
        for how, why in expected.items()
        for made in (
            numbers,
            lambda: enumerate(numbers()),
            lambda: zip(numbers(), "ab", strict=False),
            drawn,
            lambda: shown(numbers()),
            lambda: enumerate(shown(drawn())),
        )
    )


# -- generators ---------------------------------------------------------------------------------------


def generator_module(generator: GeneratorType[Any, Any, Any]) -> str:
    """The name of the module in which a generator's code was defined, "" if that cannot be found.

    A generator that has ended has no frame any more: then it is the module that was loaded from the code's file.
    """
    if generator.gi_frame is not None:
        return str(generator.gi_frame.f_globals.get("__name__", ""))
    file = generator.gi_code.co_filename
    modules = list(sys.modules.items())
    return next((name for name, module in modules if getattr(module, "__file__", None) == file), "")


@functools.cache
def can_name_modules() -> bool:
    """Check: whether `generator_module` gives the module of a generator that runs."""

    def probe() -> Iterator[None]:
        yield

    generator: Any = probe()
    return generator_module(generator) == __name__


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

    The collector visits a frame's variables and then its stack.  Raises ValueError where it is not seen.
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
    return held[start + 1 + variables :]


@functools.cache
def can_see_stacks() -> bool:
    """Check: whether `suspended_at` and `stack_of` see where generators wait, with closures and several loops."""

    def probe(first: Any, unused: Any = None) -> Iterator[Any]:
        shared = [1, 2]
        for one in first:
            yield one
            for two in enumerate(shared):
                other = lambda: shared  # noqa: E731
                yield two, other
        yield from first

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
        and list_under(rest[0]) is first
    )


# -- iterators around an iterator ---------------------------------------------------------------------


def inner_iterators(outer: Any) -> list[Any]:
    """The iterators that an ``enumerate``, ``zip`` or ``map`` draws from, in order, as pickling it gives them."""
    arguments = list(outer.__reduce__()[1])
    if isinstance(outer, enumerate):
        return arguments[:1]
    return arguments[1:] if isinstance(outer, map) else arguments


def iterators_around(iterator: Any) -> Iterator[Any]:
    """The iterators that draw from an iterator, inner before outer.

    The garbage collector knows who refers to it.  It looks at every object there is: some 50 ms for each iterator
    under torch.
    """
    pending, seen = [iterator], {id(iterator)}
    while pending:
        inner = pending.pop()
        for outer in gc.get_referrers(inner):
            if id(outer) in seen or (isinstance(inner, tuple) and not isinstance(outer, _HOLD_A_TUPLE)):
                continue
            if isinstance(outer, Iterator):
                seen.add(id(outer))
                pending.append(outer)
                yield outer
            elif type(outer) is tuple:
                seen.add(id(outer))
                pending.append(outer)


@functools.cache
def can_see_iterators() -> bool:
    """Check: whether `inner_iterators` and the collector's references agree; that costs no search."""
    inner = iter(number for number in range(1))
    whole: list[Any] = [zip(inner, inner, strict=False), map(abs, inner)]
    by_tuple = all(
        any(type(held) is tuple and inner in held for held in gc.get_referents(outer)) for outer in whole
    )
    counter = enumerate(inner)
    return (
        by_tuple
        and inner in gc.get_referents(counter)
        and inner_iterators(counter) == [inner]
        and [inner_iterators(outer) for outer in whole] == [[inner, inner], [inner]]
    )


# -- the count of an enumerate ------------------------------------------------------------------------


def next_number(counter: enumerate[Any]) -> int:
    """The number that an ``enumerate`` gives next, as pickling it gives it."""
    number: Any = counter.__reduce__()[1][1]
    return int(number)


def move_enumerate(counter: enumerate[Any], by: int) -> bool:
    """Let an ``enumerate`` count from ``by`` further on, or back; its iterator is not touched.  False if impossible."""
    memory = _number_memory(counter)
    if memory is not None:
        memory.value += by
    return memory is not None


def can_move(counter: enumerate[Any]) -> bool:
    """Whether `move_enumerate` can move this one; not one beyond 64 bits, for instance."""
    return _number_memory(counter) is not None


def _number_memory(counter: enumerate[Any]) -> ctypes.c_ssize_t | None:
    """The memory of an enumerate's next number: after the object's head.  None if it does not have that number."""
    memory = ctypes.c_ssize_t.from_address(id(counter) + object.__basicsize__)
    return memory if memory.value == next_number(counter) else None


@functools.cache
def can_count() -> bool:
    """Check: whether an ``enumerate`` goes on from where it was moved to."""
    counter = enumerate("abc", 1 << 40)
    return move_enumerate(counter, 5) and list(counter) == [
        ((1 << 40) + 5 + i, c) for i, c in enumerate("abc")
    ]


# -- the place of a list's iterator -------------------------------------------------------------------


def list_under(iterator: Any) -> list[Any] | None:
    """The list that a list's iterator runs over, as pickling it gives it; None for an iterator that has ended."""
    _, arguments, *place = iterator.__reduce__()
    return arguments[0] if place else None


def move_list_iterator(iterator: Any, by: int) -> bool:
    """Let a list's iterator go on ``by`` items further on, also beyond the list's present end.  False if impossible.

    ``__setstate__`` would end an iterator that is put beyond the end, and a list that is about to be restored is short.
    """
    if list_under(iterator) is None:
        return False
    memory = ctypes.c_ssize_t.from_address(id(iterator) + object.__basicsize__)
    if memory.value != iterator.__reduce__()[2]:
        return False
    memory.value += by
    return True


@functools.cache
def can_place() -> bool:
    """Check: whether a list's iterator goes on from where it was moved to, in a list that grows only afterwards."""
    held = [1]
    iterator = iter(held)
    moved = list_under(iterator) is held and next(iterator) == 1 and move_list_iterator(iterator, 2)
    held += [2, 3, 4, 5]
    return moved and list(iterator) == [4, 5] and list_under(iterator) is None


# -- where an iterator stands -------------------------------------------------------------------------


def taken_apart(iterator: Any) -> tuple[Any, ...]:
    """What makes an iterator, with which arguments, and the state that it is given then; it is not advanced.

    Raises TypeError for one that does not say it.  ``itertools`` warns of it since 3.12, and ends it in 3.14.
    """
    if type(iterator).__module__ != "itertools":
        return tuple(iterator.__reduce__())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return tuple(iterator.__reduce__())


def range_left(iterator: Any) -> range:
    """What an iterator over a range has still to give."""
    _, (whole,), *place = taken_apart(iterator)
    left: range = whole[place[0] :] if place and place[0] else whole
    return left


def place_range(iterator: Any, left: range) -> bool:
    """Let an iterator over a range give ``left`` from now on.  False where its memory is not as expected."""
    now = range_left(iterator)
    size = ctypes.sizeof(ctypes.c_long)
    base = id(iterator) + object.__basicsize__
    fields = [ctypes.c_long.from_address(base + number * size) for number in range(4)]
    if sys.version_info < (3, 12):  # the index comes first, and start and length are those of the whole range
        index = fields.pop(0)
        seen = (
            fields[0].value + index.value * fields[1].value,
            fields[1].value,
            fields[2].value - index.value,
        )
    else:
        index = ctypes.c_long()
        seen = (fields[0].value, fields[1].value, fields[2].value)
    if seen != (now.start, now.step, len(now)) and len(now):
        return False
    index.value, fields[0].value, fields[1].value, fields[2].value = 0, left.start, left.step, len(left)
    return True


@functools.cache
def can_place_ranges() -> bool:
    """Check: whether an iterator over a range gives what it was given."""
    found = []
    for left in (range(5, 9), range(9, 0, -2), range(0)):
        for taken in (0, 2, 6):
            iterator = iter(range(1, 13, 2))
            for _ in range(taken):
                next(iterator)
            found.append(place_range(iterator, left) and [*iterator] == [*left])
    return all(found)


def dict_under(iterator: Any) -> dict[Any, Any] | None:
    """The mapping that one of its iterators runs over, None for one that has ended."""
    return next((held for held in gc.get_referents(iterator) if isinstance(held, dict)), None)


def place_in_dict(iterator: Any, given: int) -> None:
    """Let an iterator over a mapping go on after its first ``given`` items; the mapping was filled anew.

    Raises ValueError where its memory is not as expected: the mapping, its size, the place, a result, what is left.
    """
    held = dict_under(iterator)
    base = id(iterator) + object.__basicsize__
    size = ctypes.sizeof(ctypes.c_ssize_t)
    if held is None or ctypes.c_ssize_t.from_address(base).value != id(held):
        raise ValueError("an iterator over a mapping is not as it is expected")
    for number, value in ((1, len(held)), (2, given), (4, len(held) - given)):
        ctypes.c_ssize_t.from_address(base + number * size).value = value


@functools.cache
def can_place_in_dict() -> bool:
    """Check: whether iterators over a mapping go on from where they were put."""
    held = dict.fromkeys("ab", 0)
    views: list[Iterator[Any]] = [iter(held), iter(held.values()), iter(held.items())]
    for view in views:
        next(view)
    held.clear()
    held.update(zip("uvwxyz", range(6), strict=True))
    for view in views:
        place_in_dict(view, 3)
    return [list(view) for view in views] == [["x", "y", "z"], [3, 4, 5], [("x", 3), ("y", 4), ("z", 5)]]


# -- what a cache holds -------------------------------------------------------------------------------


def cached_results(cache: Any) -> dict[Any, Any] | list[Any] | None:
    """What a function under `functools.lru_cache` holds: the mapping of an unbounded one, the results of a bounded one.

    None where it cannot be seen.
    """
    size, limit = cache.cache_info().currsize, cache.cache_info().maxsize
    own = vars(cache)
    referents = gc.get_referents(cache)
    at = next((i for i, held in enumerate(referents) if type(held) is dict and held is not own), None)
    if at is None:
        return [] if size == 0 else None
    if limit is None:
        found: dict[Any, Any] = referents[at]
        return found if len(found) == size else None
    links = [held for held in referents[:at] if getattr(held, "__name__", "") != "_lru_list_elem"]
    entries = links[len(links) - 2 * size :]
    return entries[1::2] if len(entries) == 2 * size and len(links) <= 2 * size + 1 else None


@functools.cache
def can_see_results() -> bool:
    """Check: whether `cached_results` gives what caches hold, and putting into an unbounded one is seen."""

    def twice(value: Any) -> Any:
        return [value, value]

    unbounded, bounded = functools.lru_cache(None)(twice), functools.lru_cache(2)(twice)
    for number in range(3):
        unbounded(number)
        bounded(number)
    seen = cached_results(unbounded)
    if not isinstance(seen, dict) or seen != {0: [0, 0], 1: [1, 1], 2: [2, 2]}:
        return False
    seen[3] = "put"
    return unbounded(3) == "put" and cached_results(bounded) == [[1, 1], [2, 2]]


CHECKS: tuple[Callable[[], bool], ...] = (
    can_write_variables,
    can_name_modules,
    can_see_iterators,
    can_count,
    can_place,
    can_see_departure,
    can_place_in_dict,
    can_see_results,
    can_see_stacks,
    can_place_ranges,
)
"""What shows that an interpreter is as this module takes it to be."""
