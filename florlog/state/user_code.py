"""What belongs to the user's program: its files, the classes and generators defined there, their objects.

The user's are the script, the local modules and a notebook's cells.  Libraries are not, and florlog is not, wherever
its files lie: it is known by its modules' names.
"""

from __future__ import annotations

import argparse
import functools
import os
import sys
from collections.abc import Iterator
from types import CodeType, GeneratorType, SimpleNamespace
from typing import Any

from florlog.program.cells import absolute
from florlog.program.environment import is_local, is_own, main_script
from florlog.program.import_roots import is_installed
from florlog.program.process import this_process
from florlog.state.codes import codes_in
from florlog.state.cpython import generator_module

_NAMESPACES = (SimpleNamespace, argparse.Namespace)


def is_user_file(file: str) -> bool:
    """Whether a file is the script, a local module or a notebook's cell."""
    if this_process.notebook.has_code_of(file):
        return True
    script = main_script()
    if is_installed(file) and file != script:  # nearly every module's
        return False
    return _is_local_file(absolute(file), script, os.getcwd())  # noqa: PTH109 - asked for each function and class


@functools.cache
def _is_local_file(file: str, script: str, directory: str) -> bool:
    """As `is_local`, which looks at the working directory: it is part of what the answer is kept for."""
    return file == script or is_local(file, script)


@functools.cache
def is_user_class(kind: type) -> bool:
    """Whether a class is defined in the script or in a local module."""
    if kind.__module__ == "__main__":
        return True
    file = getattr(sys.modules.get(kind.__module__), "__file__", None)
    return isinstance(file, str) and not is_own(kind.__module__) and is_user_file(file)


def is_user_object(value: Any) -> bool:
    """Whether a value is an instance of a user's class, or a namespace of options."""
    kind: Any = type(value)
    return kind in _NAMESPACES or is_user_class(kind)


def is_own_generator(generator: GeneratorType[Any, Any, Any]) -> bool:
    """Whether a generator's code is florlog's own, such as the one that ``run.loop`` gives."""
    return is_own(generator_module(generator))


def is_user_generator(generator: GeneratorType[Any, Any, Any]) -> bool:
    """Whether a generator's code is in a user's file and not florlog's own."""
    return is_user_file(generator.gi_code.co_filename) and not is_own_generator(generator)


def names_in(code: CodeType) -> Iterator[str]:
    """The names of globals and attributes in a code object and in the functions and comprehensions inside it."""
    for inner in codes_in(code):
        yield from inner.co_names


def attributes_of(value: Any) -> dict[str, Any]:
    """An object's own attributes, those in slots included."""
    found = dict(getattr(value, "__dict__", {}))
    for kind in type(value).__mro__:
        slots = kind.__dict__.get("__slots__", ())
        for slot in (slots,) if isinstance(slots, str) else slots:
            if slot not in ("__dict__", "__weakref__") and hasattr(value, slot):
                found[slot] = getattr(value, slot)
    return found
