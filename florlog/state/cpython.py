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

    "interrupt" is a ``break`` or ``return`` in the handler of an exception that a signal raises (`_INTERRUPTS`).

    A ``break`` or ``return`` pops the iterator of its ``for`` by an instruction of its own.  An exception has left a
    traceback at the instruction that the frame stands at.  A generator that is closed while it waits at a ``yield``
    passes on what its own consumer does.
    """
    while frame is not None:
        operation = dis.opname[frame.f_code.co_code[frame.f_lasti]] if frame.f_lasti >= 0 else ""
        if not (frame.f_code.co_flags & inspect.CO_GENERATOR and operation == "YIELD_VALUE"):
            if operation == "POP_TOP":
                return "interrupt" if _handles_interrupt(frame.f_code, frame.f_lasti) else "break"
            if operation == "POP_EXCEPT" or _raised_at(frame):
                return "exception"
            return ""
        frame = frame.f_back
    return ""


_INTERRUPTS = frozenset({"KeyboardInterrupt", "SystemExit"})
"""Exceptions by which a ``break`` in their handler has not come from what the loop computes."""


@functools.lru_cache(maxsize=1024)
def _handles_interrupt(code: CodeType, at: int) -> bool:
    """Whether the instruction at ``at``, which drops a loop's iterator, ends a handler of one of `_INTERRUPTS`.

    Before it stand, in this order: the names, CHECK_EXC_MATCH, the body, POP_EXCEPT, and from there a straight line.
    Of a body that has a handler of its own this sees that one alone.
    """
    before = [instruction for instruction in dis.get_instructions(code) if instruction.offset < at]
    while before and before[-1].opname != "POP_EXCEPT":
        if before.pop().opcode in _JUMPS:
            return False
    while before and before.pop().opname != "CHECK_EXC_MATCH":
        pass
    while before and (named := before.pop()).opcode not in _JUMPS and named.opname != "PUSH_EXC_INFO":
        if named.argval in _INTERRUPTS:
            return True
    return False


_JUMPS = frozenset(dis.hasjrel + dis.hasjabs)


def closes_by_call(frame: FrameType) -> bool:
    """Whether the frame calls what closes a generator; if it only drops it, Python drops what the generator raises."""
    return frame.f_lasti >= 0 and dis.opname[frame.f_code.co_code[frame.f_lasti]].startswith("CALL")


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
            if how == "break by an interrupt":
                try:
                    raise KeyboardInterrupt
                except KeyboardInterrupt as interrupt:
                    seen.extend([str(interrupt)][1:])
                    break
            if how == "return by an interrupt":
                try:
                    raise KeyboardInterrupt
                except (KeyboardInterrupt, SystemExit):
                    return 0
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
        "break by an interrupt": "interrupt",
        "return by an interrupt": "interrupt",
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


CHECKS: tuple[Callable[[], bool], ...] = (
    can_write_variables,
    can_name_modules,
    can_see_iterators,
    can_count,
    can_place,
    can_see_departure,
)
"""What shows that an interpreter is as this module takes it to be."""
