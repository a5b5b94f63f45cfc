"""Functions that exist already get other code while a program runs, and their own back afterwards.

The functions that a notebook's cell calls were defined by earlier cells, or come from local modules that are imported
already.  A function is found by the place of its code: file, first line, qualified name.  It gets other code only
if its present code is what its text compiles to; one whose file was edited since stays as it is.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from types import CodeType, FunctionType
from typing import Any

from florlog.program.process import this_process
from florlog.state.codes import codes_in

CodePlace = tuple[str, int, str]  # file, first line, qualified name


@contextmanager
def functions_replaced(plain: Iterable[CodeType], replacement: Iterable[CodeType]) -> Iterator[None]:
    """Inside the block, the existing functions of a program have the replacement for their code.

    ``plain``: code as they may have it now.
    """
    expected: dict[CodePlace, list[CodeType]] = {}
    for inner in chain.from_iterable(map(codes_in, plain)):
        expected.setdefault(_place(inner), []).append(inner)
    replacements = _by_place(replacement)
    replaced: list[tuple[FunctionType, CodeType]] = []
    for function in gc.get_objects():
        if type(function) is not FunctionType:
            continue
        code = function.__code__
        file, line = this_process.notebook.placed(code.co_filename, code.co_firstlineno)
        place = file, line, code.co_qualname
        new = replacements.get(place)
        if new is not None and any(_same(code, old) for old in expected.get(place, ())):
            replaced.append((function, code))
            function.__code__ = new
    try:
        yield
    finally:
        for function, code in replaced:
            function.__code__ = code


def _by_place(codes: Iterable[CodeType]) -> dict[CodePlace, CodeType]:
    """The code of functions by their places; two at one place cannot be told apart, so neither is taken."""
    found: dict[CodePlace, CodeType] = {}
    twice: set[CodePlace] = set()
    for code in chain.from_iterable(map(codes_in, codes)):
        if _place(code) in found:
            twice.add(_place(code))
        found[_place(code)] = code
    return {place: code for place, code in found.items() if place not in twice}


def _place(code: CodeType) -> CodePlace:
    return code.co_filename, code.co_firstlineno, code.co_qualname


_COMPARED_PARTS: tuple[Callable[[CodeType], Any], ...] = (
    lambda code: code.co_code,
    lambda code: code.co_names,
    lambda code: code.co_varnames,
    lambda code: code.co_freevars,
    lambda code: code.co_cellvars,
)


def _same(one: CodeType, other: CodeType) -> bool:
    """Whether two codes do the same, whatever their file and line."""
    if any(part(one) != part(other) for part in _COMPARED_PARTS) or len(one.co_consts) != len(
        other.co_consts
    ):
        return False
    return all(map(_same_constant, one.co_consts, other.co_consts))


def _same_constant(one: Any, other: Any) -> bool:
    if isinstance(one, CodeType) and isinstance(other, CodeType):
        return _same(one, other)
    # By repr, 0.0 is not -0.0, nor True 1; the order of a frozenset means nothing.
    return bool(one == other) if isinstance(one, frozenset) else repr(one) == repr(other)
