"""What loading depends on, as far as it can be seen: a data set, the functions around it, and the globals they read.

Workers have copies of it that were made when they were started.  Two digests of one process tell whether any of it has
changed between: of the main process's copy since its workers have theirs, or of a worker's by what it loads.

Not looked at are tools, as a logger is.  Not seen are fields of objects that are written in C, and what code reaches by
a computed name.
"""

from __future__ import annotations

import functools
import inspect
import random
from collections import deque
from collections.abc import Iterable, Iterator
from types import BuiltinFunctionType, CodeType, FunctionType, GeneratorType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
import xxhash

from florlog.state.heap.rules import is_tool
from florlog.state.tensors import tensor_bytes
from florlog.state.user_code import attributes_of, is_user_class, is_user_file, names_in

_ATOMS = frozenset({type(None), bool, int, float, complex, str, bytes})
_PLAIN = (list, tuple, deque)
_UNORDERED = (set, frozenset)
_CONSTANT = (type, ModuleType, BuiltinFunctionType, CodeType)
_MAX_BRIEF_ENTRIES = 10_000  # of a container that is looked at item by item in a brief digest
_MAX_BRIEF_BYTES = 1 << 20  # of a tensor or array whose bytes are in a brief digest
_MAX_BRIEF_OBJECTS = 20_000  # that are looked at for one
_GIVING = ("__getitem__", "__getitems__", "__iter__", "__next__", "__call__")


def loading_state(parts: Iterable[Any], *, brief: bool) -> bytes:
    """A digest of what ``parts`` hold, comparable within this process and its children.

    ``brief``: of containers with more than 10,000 entries the length alone, of more than 1 MiB of numbers the shape,
    and no more than 20,000 objects.
    """
    return _Walk(parts, brief=brief).run()


class _Walk:
    def __init__(self, parts: Iterable[Any], *, brief: bool) -> None:
        self.ahead: deque[Any] = deque(parts)
        self._brief = brief
        self._seen: dict[
            int, tuple[int, Any]
        ] = {}  # by id: which it is, and itself, so that no id is used twice
        self._digest = xxhash.xxh3_128()

    def run(self) -> bytes:
        """Look at all that is ahead, and what it holds."""
        while self.ahead and not (self._brief and len(self._seen) > _MAX_BRIEF_OBJECTS):
            value = self.ahead.popleft()
            if type(value) in _ATOMS:
                self._say(type(value).__name__, repr(value))
            elif id(value) in self._seen:
                self._say("again", str(self._seen[id(value)][0]))
            else:
                self._seen[id(value)] = len(self._seen), value
                self._look(value)
        return self._digest.digest()

    def _say(self, *texts: str) -> None:
        self._digest.update(("\0".join(texts) + "\1").encode(errors="surrogatepass"))

    def _look(self, value: Any) -> None:
        kind: Any = type(value)
        self._say(kind.__qualname__)
        if is_tool(kind):
            return
        if isinstance(value, (torch.Tensor, np.ndarray)):
            self._look_at_numbers(value)
        elif isinstance(value, (random.Random, torch.Generator, np.random.Generator, np.random.RandomState)):
            self._say(_state_of(value))
        elif isinstance(value, (*_PLAIN, *_UNORDERED, dict)):
            self._look_at_items(value)
        elif isinstance(value, FunctionType):
            self._look_at_function(value)
        elif isinstance(value, MethodType):
            self.ahead += (value.__self__, value.__func__)
        elif isinstance(value, GeneratorType):
            if value.gi_frame is not None:
                self._say(str(value.gi_frame.f_lasti))
                self.ahead.extend(value.gi_frame.f_locals.values())
        elif isinstance(value, Iterator) and type(value).__module__ in ("builtins", "itertools"):
            self.ahead.extend((_quiet(kind.__reduce__, value) or ())[1:])
        elif isinstance(value, type) and is_user_class(value):
            self.ahead.extend(_class_data(value))
        elif not isinstance(value, _CONSTANT):
            if is_user_class(kind):
                self.ahead += (kind, *_methods(kind))
            self._look_at_items(attributes_of(value))
            if callable(tell := getattr(kind, "tell", None)):
                self._say(str(_quiet(tell, value)))

    def _look_at_numbers(self, value: Any) -> None:
        self._say(str(value.dtype), str(tuple(value.shape)))
        if isinstance(value, np.memmap) or (self._brief and value.nbytes > _MAX_BRIEF_BYTES):
            return
        if isinstance(value, np.ndarray) and value.dtype.hasobject:
            self.ahead.extend(value.reshape(-1).tolist())
        elif isinstance(value, np.ndarray):
            self._digest.update(np.ascontiguousarray(value).reshape(-1).view(np.uint8).data)
        elif value.layout is torch.strided and value.device.type == "cpu" and not value.is_quantized:
            self._digest.update(tensor_bytes(value.detach().contiguous()))

    def _look_at_items(self, value: Any) -> None:
        self._say(str(len(value)))
        if self._brief and len(value) > _MAX_BRIEF_ENTRIES:
            return
        if isinstance(value, dict):
            self.ahead.extend(value.keys())
            self.ahead.extend(value.values())
        elif isinstance(value, _UNORDERED):
            self._say(*sorted(map(repr, value)))
        else:
            self.ahead.extend(value)
        if type(value).__module__ != "builtins":
            self.ahead.extend(attributes_of(value).values())

    def _look_at_function(self, function: Any) -> None:
        self.ahead.extend(
            _quiet(lambda cell: cell.cell_contents, cell) for cell in function.__closure__ or ()
        )
        self.ahead += (function.__defaults__, function.__kwdefaults__)
        if is_user_file(function.__code__.co_filename):
            names, space = _names(function.__code__), function.__globals__
            read = [space[name] for name in names if name in space]
            modules = [vars(held) for held in read if isinstance(held, ModuleType) and _is_users(held)]
            self.ahead += (*read, *(held[name] for held in modules for name in names if name in held))


def _is_users(module: ModuleType) -> bool:
    file = getattr(module, "__file__", None)
    return isinstance(file, str) and is_user_file(file)


@functools.cache
def _names(code: CodeType) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names_in(code)))


@functools.cache
def _methods(kind: Any) -> tuple[FunctionType, ...]:
    """The functions of a user's class that give items, and those of it that these may call."""
    pending, found = list(_GIVING), dict[FunctionType, None]()
    while pending:
        member = inspect.getattr_static(kind, pending.pop(), None)
        member = getattr(member, "fget", getattr(member, "__func__", member))
        if isinstance(member, FunctionType) and member not in found:
            found[member] = None
            pending += _names(member.__code__)
    return tuple(found)


def _class_data(kind: type) -> list[Any]:
    """What a user's class has that is neither code nor the class statement's."""
    code = (FunctionType, staticmethod, classmethod, property, type)
    return [
        held
        for base in kind.__mro__
        if is_user_class(base)
        for name, held in vars(base).items()
        if not (name.startswith("__") and name.endswith("__")) and not isinstance(held, code)
    ]


def _state_of(generator: Any) -> str:
    if isinstance(generator, random.Random):
        return repr(_quiet(random.Random.getstate, generator))
    if isinstance(generator, torch.Generator):
        return xxhash.xxh3_128_hexdigest(tensor_bytes(generator.get_state()))
    if isinstance(generator, np.random.Generator):
        return repr(generator.bit_generator.state)
    return repr([part.tobytes() if isinstance(part, np.ndarray) else part for part in generator.get_state()])


def _quiet(function: Any, value: Any) -> Any:
    """What a function gives, None where it raises: an empty cell, a closed file, a generator without a state."""
    try:
        return function(value)
    except Exception:  # whatever the object's own code raises
        return None
