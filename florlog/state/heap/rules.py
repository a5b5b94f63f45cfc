"""What an object is to a graph: an atom, a constant of a library, immutable, a tool, or state (``specs/state.md``)."""

from __future__ import annotations

import argparse
import csv
import functools
import io
import random
import types
import typing
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from florlog.program.environment import is_own
from florlog.state.codecs import codec_of
from florlog.state.user_code import is_user_class, is_user_file

ATOMS = frozenset({type(None), bool, int, float, complex, str, bytes})
TOOLS = frozenset({
    "IPython", "_pytest", "aim", "argparse", "asyncio", "cProfile", "clearml", "comet_ml", "concurrent", "ctypes",
    "dvclive", "http", "importlib", "ipykernel", "line_profiler", "logging", "loguru", "matplotlib", "memory_profiler",
    "mlflow", "multiprocessing", "neptune", "pstats", "pyinstrument", "rich", "select", "selectors", "socket",
    "sqlite3", "ssl", "structlog", "subprocess", "swanlab", "tempfile", "tensorboard", "tensorboardX", "tqdm",
    "trackio", "traitlets", "unittest", "urllib", "wandb", "zipfile",
})  # fmt: skip
"""Top-level modules of libraries whose objects are tools of a script: they show, write, or talk to the outside, and
hold what belongs to this process (files, sockets, processes, clocks)."""
PROFILERS = ("torch.autograd.profiler", "torch.profiler")
"""Modules of torch's profilers, which are tools: what they have measured belongs to this process."""
COMPILERS = ("torch._dynamo", "torch._functorch", "torch._inductor", "jaxlib", "jax._src.stages")
"""Modules of compilers: what they make is code and devices, kept for this process."""
COMPILER_ATTRIBUTE = "_torchdynamo"
"""How the attributes begin that the compiler keeps in modules."""
_WRITERS: tuple[type, ...] = (type(csv.writer(io.StringIO())), random.SystemRandom)
_VALUES: tuple[type, ...] = (argparse.Namespace,)
"""Classes of such modules that only hold values: no tools."""
_SETTINGS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("tqdm", ("n", "total", "initial", "desc", "postfix")),
    ("Logger", ("level", "disabled", "propagate")),
    ("Handler", ("level",)),
)
"""Attributes of tools that hold a value that a program sets or reads: by the name of their class or a base of it."""
TABLES = frozenset({"pandas", "polars", "pyarrow"})
"""Top-level modules of libraries whose objects are taken by their own description: their attributes hold caches."""
_CODE_NAMES = frozenset({"cython_function_or_method", "fused_cython_function"})
"""Kinds of functions that each library compiled by Cython has of its own."""
_CODE = (
    types.BuiltinMethodType, types.WrapperDescriptorType, types.MethodWrapperType, types.MethodDescriptorType,
    types.ClassMethodDescriptorType, types.GetSetDescriptorType, types.MemberDescriptorType, types.CodeType,
    types.GenericAlias, types.UnionType, types.EllipsisType, types.NotImplementedType, typing.TypeVar,
    torch.layout, torch.memory_format, torch.qscheme, torch.finfo, torch.iinfo,
)  # fmt: skip
_MUTABLE_CODECS = frozenset({bytearray})
_HAS_MANAGED_DICT = 1 << 4  # Py_TPFLAGS_MANAGED_DICT, Include/object.h
_POINTER_BYTES = 8


def is_program_class(kind: type) -> bool:
    """Whether a class is defined by the program: in its script, its local modules or a notebook's cell."""
    return is_user_class(kind)


def is_program_function(function: types.FunctionType) -> bool:
    """Whether a function is defined by the program."""
    return is_user_file(function.__code__.co_filename)


def is_constant(value: Any) -> bool:
    """Whether a value is code, or belongs to a library as a whole: the set-up of a script makes it as it was."""
    if isinstance(value, type):
        return not is_program_class(value)
    if isinstance(value, types.FunctionType):
        return not (value.__closure__ or is_program_function(value))
    if isinstance(value, types.BuiltinFunctionType):
        owner = value.__self__
        return owner is None or isinstance(owner, (types.ModuleType, type))
    kind: Any = type(value)
    return _is_constant_kind(kind)


@functools.cache
def _is_constant_kind(kind: Any) -> bool:
    if kind.__name__ in _CODE_NAMES or kind.__module__ == "typing":
        return True
    return issubclass(kind, (types.ModuleType, *_CODE))


def is_immutable(value: Any) -> bool:
    """Whether a value has a codec and cannot change: a date, a dtype, a NumPy number."""
    kind = type(value)
    if isinstance(value, np.generic):
        return not (value.dtype.hasobject or isinstance(value, np.void))
    return kind not in _MUTABLE_CODECS and codec_of(kind) is not None


def is_own_class(kind: type) -> bool:
    """Whether a class is one of florlog's own."""
    return is_own(kind.__module__)


def is_tool(kind: type) -> bool:
    """Whether objects of a class are tools: they decide nothing that a training computes.

    A program's class may be derived from a tool's; it is a tool too, with settings of its own (`settings_of`).
    """
    return not issubclass(kind, _VALUES) and any(
        base.__module__.partition(".")[0] in TOOLS or base.__module__.startswith((*COMPILERS, *PROFILERS))
        for base in kind.__mro__
        if base is not object
    )


def is_writer(kind: type) -> bool:
    """Whether objects of a class only write, or have no state: tools, although they are in no module of tools."""
    return issubclass(kind, _WRITERS)


def is_table(kind: type) -> bool:
    """Whether objects of a class are taken by their own description, although they have attributes."""
    return kind.__module__.partition(".")[0] in TABLES


@functools.cache
def settings_of(kind: Any) -> frozenset[str]:
    """The attributes of a tool that are state: known ones, and those that a program's class adds in its own code."""
    found: set[str] = set()
    for base in kind.__mro__:
        found.update(*(names for name, names in _SETTINGS if base.__name__ == name))
        if is_program_class(base):
            found.update(*(code.co_names for code in _codes_of(base)))
    for base in kind.__mro__:
        if not is_program_class(base):
            for code in _codes_of(base):
                found -= set(code.co_names) - {name for _, names in _SETTINGS for name in names}
    return frozenset(found)


def _codes_of(kind: type) -> Iterator[types.CodeType]:
    for member in vars(kind).values():
        code = getattr(getattr(member, "__func__", member), "__code__", None)
        if isinstance(code, types.CodeType):
            yield code


@functools.cache
def slots_of(kind: Any) -> tuple[str, ...]:
    """The names of all slots of a class and its bases, as the instances have them."""
    found: list[str] = []
    for base in kind.__mro__:
        slots = base.__dict__.get("__slots__", ())
        for slot in (slots,) if isinstance(slots, str) else slots:
            if slot in ("__dict__", "__weakref__"):
                continue
            private = slot.startswith("__") and not slot.endswith("__")
            found.append(f"_{base.__name__.lstrip('_')}{slot}" if private else slot)
    return tuple(dict.fromkeys(found))


@functools.cache
def has_plain_layout(kind: Any, base: Any) -> bool:
    """Whether instances hold nothing but what ``base`` holds, attributes and slots.

    As `object.__reduce_ex__` decides it (CPython, Objects/typeobject.c, object_getstate_default): a class written in C
    that has fields of its own is larger than that.
    """
    if kind is base:
        return True
    size = base.__basicsize__
    if kind.__dictoffset__ and not base.__dictoffset__ and not kind.__flags__ & _HAS_MANAGED_DICT:
        size += _POINTER_BYTES
    if kind.__weakrefoffset__ > 0 and not base.__weakrefoffset__:
        size += _POINTER_BYTES
    size += _POINTER_BYTES * len(slots_of(kind))
    return bool(kind.__basicsize__ <= size and kind.__itemsize__ == base.__itemsize__)
