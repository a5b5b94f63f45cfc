"""What an object is to a graph: an atom, a constant of a library, a tool, or state (``specs/state.md``)."""

from __future__ import annotations

import copyreg
import enum
import functools
import types
import typing
from collections import OrderedDict, deque
from typing import Any

import numpy as np
import torch

from florlog.program.environment import is_own
from florlog.state.codecs import codec_of
from florlog.state.user_code import is_user_class, is_user_file

ATOMS = frozenset({type(None), bool, int, float, complex, str, bytes})
TOOLS = frozenset({
    "IPython", "_pytest", "argparse", "ast", "asyncio", "concurrent", "ctypes", "gettext", "http", "importlib",
    "inspect", "ipykernel", "logging", "matplotlib", "mlflow", "multiprocessing", "rich", "select", "selectors",
    "socket", "sqlite3", "ssl", "subprocess", "tempfile", "tensorboard", "tokenize", "tqdm", "traceback", "traitlets", "unittest",
    "urllib", "wandb", "warnings", "zipfile",
})  # fmt: skip
"""Top-level modules of libraries whose objects are tools of a script: they show, write or talk, and compute nothing."""
_CODE = (
    types.BuiltinMethodType, types.WrapperDescriptorType, types.MethodWrapperType, types.MethodDescriptorType,
    types.ClassMethodDescriptorType, types.GetSetDescriptorType, types.MemberDescriptorType, types.CodeType,
    types.GenericAlias, types.UnionType, types.EllipsisType, types.NotImplementedType, typing.TypeVar,
    torch.layout, torch.memory_format, torch.qscheme,
)  # fmt: skip
_MUTABLE_CODECS = frozenset({bytearray})
_HAS_MANAGED_DICT = 1 << 4  # Py_TPFLAGS_MANAGED_DICT, Include/object.h


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
    if isinstance(value, types.ModuleType):
        return True
    return isinstance(value, _CODE) or type(value).__module__ == "typing"


def constant_name(value: Any) -> str:
    """``module:qualified name`` of a class, function or module; the text of another constant."""
    if isinstance(value, types.ModuleType):
        return value.__name__
    name = getattr(value, "__qualname__", None)
    return f"{getattr(value, '__module__', '')}:{name}" if isinstance(name, str) else repr(value)


def is_own_object(value: Any) -> bool:
    """Whether an object is one of florlog's own."""
    return is_own(type(value).__module__)


def is_immutable(value: Any) -> bool:
    """Whether a value has a codec and cannot change: a date, a dtype, a NumPy number."""
    kind = type(value)
    if isinstance(value, np.generic):
        return not value.dtype.hasobject
    return kind not in _MUTABLE_CODECS and codec_of(kind) is not None


def is_tool(kind: type) -> bool:
    """Whether objects of a class are tools: they decide nothing that a training computes."""
    return any(base.__module__.partition(".")[0] in TOOLS for base in kind.__mro__ if base is not object)


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
        size += 8
    if kind.__weakrefoffset__ > 0 and not base.__weakrefoffset__:
        size += 8
    size += 8 * len(slots_of(kind))
    return bool(kind.__basicsize__ <= size and kind.__itemsize__ == base.__itemsize__)


def described(value: Any) -> Any:
    """An object's own description: what `pickle` would call, with which arguments.  Raises whatever it raises."""
    if (reducer := copyreg.dispatch_table.get(type(value))) is not None:
        return reducer(value)
    return value.__reduce_ex__(4)


CONTAINERS = (list, dict, set, frozenset, tuple, deque, OrderedDict)
ENUM = enum.Enum
