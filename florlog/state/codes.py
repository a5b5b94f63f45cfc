"""The code that running frames and modules have, what is inside it, and where in it the frames are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from types import CodeType, FrameType, ModuleType
from typing import Any

from florlog.program.process import this_process


def call_stack(frame: FrameType, outermost: CodeType | None) -> tuple[tuple[str, str, int], ...]:
    """Source positions from ``frame`` outwards, up to the frame that runs ``outermost``."""
    stack = []
    current: FrameType | None = frame
    while current is not None:
        code = current.f_code
        file, line = this_process.notebook.placed(code.co_filename, current.f_lineno)
        stack.append((file, code.co_qualname, line))
        if code is outermost:
            break
        if outermost is None and code.co_name == "<module>":
            break
        current = current.f_back
    return tuple(stack)


def codes_in(code: CodeType) -> Iterator[CodeType]:
    """A code object and those of the functions, classes and comprehensions inside it."""
    pending = [code]
    while pending:
        inner = pending.pop()
        pending += [constant for constant in inner.co_consts if isinstance(constant, CodeType)]
        yield inner


def codes_around(frame: FrameType) -> Iterator[CodeType]:
    """The code of a frame and of those that called it, up to its module."""
    current: FrameType | None = frame
    while current is not None:
        yield current.f_code
        if current.f_code.co_qualname == "<module>":
            return
        current = current.f_back


def codes_of_modules(modules: Iterable[ModuleType]) -> Iterator[tuple[str, CodeType]]:
    """Modules' names, each with the code of one of its functions or methods."""
    for module in modules:
        for value in vars(module).values():
            members = vars(value).values() if isinstance(value, type) else (value,)
            for member in members:
                code: Any = getattr(getattr(member, "__func__", member), "__code__", None)
                if isinstance(code, CodeType):
                    yield module.__name__, code
