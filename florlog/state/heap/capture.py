"""Capturing a graph: a breadth-first walk from names to all that they reach."""

from __future__ import annotations

import enum
import functools
import io
import queue
import random
import threading
import types
import weakref
from collections import defaultdict, deque
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset
from xxhash import xxh3_64_hexdigest

from florlog.state.adapters import adapter
from florlog.state.heap.memory import Constants, Memory
from florlog.state.heap.rules import (
    ATOMS,
    constant_name,
    described,
    has_plain_layout,
    is_constant,
    is_immutable,
    is_own_object,
    is_program_class,
    is_program_function,
    is_tool,
    slots_of,
)
from florlog.state.loaders import keeps_workers
from florlog.state.tree import flatten

Ref: TypeAlias = Any
"""An atom, or a tuple: see the package's docstring."""

RANDOM = (random.Random, torch.Generator, np.random.Generator, np.random.BitGenerator, np.random.RandomState)
EMPTY_MODULE_PARTS = frozenset({
    "_parameters", "_buffers", "_modules", "_non_persistent_buffers_set", "_backward_pre_hooks", "_backward_hooks",
    "_forward_hooks", "_forward_hooks_with_kwargs", "_forward_hooks_always_called", "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs", "_state_dict_hooks", "_state_dict_pre_hooks", "_load_state_dict_pre_hooks",
    "_load_state_dict_post_hooks",
})  # fmt: skip
"""Containers that every module has, and that are left out while they are empty: a large model has thousands."""
_CLASS_MACHINERY = frozenset(
    {
        "_abc_impl",
        "_member_map_",
        "_member_names_",
        "_value2member_map_",
        "_unhashable_values_",
        "_hashable_values_",
        "_member_type_",
        "_value_repr_",
        "_use_args_",
        "_new_member_",
        "_generate_next_value_",
    }
)
RESOURCES = (type(threading.Lock()), type(threading.RLock()))
WORKERS = "its persistent workers run"
"""An attribute that no loader has: its workers have to be started again."""
TENSOR_HOOKS = ("_backward_hooks", "_post_accumulate_grad_hooks")
"""Attributes of a tensor that are in no ``__dict__``."""
WEAK_MAPPINGS = (weakref.WeakKeyDictionary, weakref.WeakValueDictionary)


@dataclass(slots=True)
class Graph:
    """A captured graph.  ``roots``: scope -> name -> reference; ``missing``: place -> what could not be captured;
    ``gone``: scope -> names that there were and are no more.
    """

    roots: dict[str, dict[str, Ref]]
    nodes: list[list[Any]]
    regions: list[Any]
    missing: dict[str, str] = field(default_factory=dict)
    gone: dict[str, list[str]] = field(default_factory=dict)


def capture(
    roots: Mapping[str, Mapping[str, Any]],
    tracked: Iterable[torch.Tensor] = (),
    *,
    left: Collection[int] = (),
    constants: Constants | None = None,
) -> Graph:
    """The graph of all that is reachable from names.

    ``tracked``: tensors whose bytes are kept elsewhere; ``left``: ids of objects that are left as they are;
    ``constants``: what is known of large memory from earlier captures of the same process.

    Raises `florlog.state.tree.Pending` where a tensor still waits for its backward pass.
    """
    return _Capture(tracked, left, constants).run(roots)


class _Capture:
    def __init__(
        self, tracked: Iterable[torch.Tensor], left: Collection[int], constants: Constants | None
    ) -> None:
        self._nodes: list[list[Any]] = []
        self._numbers: dict[int, int] = {}
        self._objects: list[Any] = []  # kept, so that no id is used twice
        self._found: list[
            tuple[int, str]
        ] = []  # the node from which each was first reached, and by which step
        self._memory = Memory(tracked, constants)
        self._left = left
        self.missing: dict[str, str] = {}
        self._at = -1

    def run(self, roots: Mapping[str, Mapping[str, Any]]) -> Graph:
        held: dict[str, dict[str, Ref]] = {}
        for scope, names in roots.items():
            held[scope] = {name: self.ref(value, name) for name, value in names.items()}
        done = 0
        while done < len(self._objects):
            self._at = done
            self._nodes[done].extend(self._parts(self._objects[done]))
            done += 1
        return Graph(held, self._nodes, self._memory.regions(), self.missing)

    def place(self, number: int, step: str = "") -> str:
        """How a person would write the way to a node."""
        steps = [step]
        while number >= 0:
            number, step = self._found[number]
            steps.append(step)
        return "".join(reversed(steps))

    def ref(self, value: Any, step: str) -> Ref:
        """The reference to a value, reached from the present node by ``step``."""
        kind = type(value)
        if kind in ATOMS:
            return value
        number = self._numbers.get(id(value))
        if number is None:
            if is_constant(value):
                return ("=", constant_name(value))
            if is_immutable(value):
                return ("is", flatten(value, "")[0])
            number = self._numbers[id(value)] = len(self._objects)
            self._objects.append(value)
            self._nodes.append([])
            self._found.append((self._at, step))
        return ("@", number)

    def _refs(self, values: Iterable[Any]) -> list[Ref]:
        return [
            value if type(value) in ATOMS else self.ref(value, f"[{index}]")
            for index, value in enumerate(values)
        ]

    def _named(self, attributes: Mapping[str, Any]) -> dict[str, Ref]:
        return {
            name: value if type(value) in ATOMS else self.ref(value, f".{name}")
            for name, value in attributes.items()
        }

    def _pairs(self, items: Iterable[tuple[Any, Any]]) -> list[tuple[Ref, Ref]]:
        return [
            (
                self.ref(key, f".key({index})"),
                self.ref(value, f"[{key!r}]" if type(key) in ATOMS else f"[{index}]"),
            )
            for index, (key, value) in enumerate(items)
        ]

    def _attributes(self, value: Any) -> dict[str, Ref]:
        held = dict(getattr(value, "__dict__", None) or {})
        for slot in slots_of(type(value)):
            try:
                held[slot] = object.__getattribute__(value, slot)
            except AttributeError:
                continue
        if isinstance(value, DataLoader):
            held.pop("_iterator", None)
            if keeps_workers(value):
                held[WORKERS] = True
        if isinstance(value, torch.nn.Module):
            held = {name: part for name, part in held.items() if part or name not in EMPTY_MODULE_PARTS}
        return self._named(held)

    def _class(self, value: Any) -> str:
        """The name of an object's class; a class of the program is state of its own, and reached from here."""
        kind = type(value)
        if is_program_class(kind):
            self.ref(kind, ".__class__")
        return constant_name(kind)

    def _parts(self, value: Any) -> list[Any]:
        kind = type(value)
        if id(value) in self._left or is_own_object(value):
            return ["left", constant_name(kind)]
        if (take := _take_of(kind)) is not None:
            return take(self, value, kind)
        if isinstance(value, type):
            return self._type(value)
        if is_tool(kind):
            return ["tool", constant_name(kind)]
        if has_plain_layout(kind, object):
            return ["object", self._class(value), self._attributes(value)]
        return self._described(value)

    # -- containers --------------------------------------------------------------------------------

    def _list(self, value: Any, kind: type) -> list[Any]:
        if not has_plain_layout(kind, list):
            return self._described(value)
        items = list.copy(value) if ATOMS.issuperset(map(type, value)) else self._refs(list.__iter__(value))
        return ["list", *self._head(value, list), items]

    def _deque(self, value: Any, kind: type) -> list[Any]:
        if not has_plain_layout(kind, deque):
            return self._described(value)
        return ["deque", *self._head(value, deque), self._refs(value), value.maxlen]

    def _set(self, value: Any, kind: type) -> list[Any]:
        base = set if isinstance(value, set) else frozenset
        if not has_plain_layout(kind, base):
            return self._described(value)
        atoms = [item for item in base.__iter__(value) if type(item) in ATOMS]
        others = [item for item in base.__iter__(value) if type(item) not in ATOMS]
        others.sort(key=self._order)
        atoms.sort(key=lambda item: (type(item).__name__, repr(item)))
        return [base.__name__, *self._head(value, base), atoms + self._refs(others)]

    def _order(self, item: Any) -> tuple[int, str, str]:
        """A key that orders objects of a set as another process would: where they were met, else by what they hold."""
        held = {name: part for name, part in getattr(item, "__dict__", {}).items() if type(part) in ATOMS}
        return (
            self._numbers.get(id(item), len(self._nodes)),
            constant_name(type(item)),
            repr(sorted(held.items())),
        )

    def _tuple(self, value: Any, kind: type) -> list[Any]:
        if not has_plain_layout(kind, tuple) and not hasattr(kind, "_fields"):
            return self._described(value)
        return ["tuple", *self._head(value, tuple), self._refs(tuple.__iter__(value))]

    def _dict(self, value: Any, kind: type) -> list[Any]:
        base: Any = defaultdict if isinstance(value, defaultdict) else next(filter(_is_mapping, kind.__mro__))
        if not has_plain_layout(kind, base):
            return self._described(value)
        factory = self.ref(value.default_factory, ".default_factory") if base is defaultdict else None
        return ["dict", *self._head(value, base), self._pairs(base.items(value)), factory]

    def _head(self, value: Any, base: type) -> list[Any]:
        """Class and attributes of a container; the plain one has none."""
        if type(value) is base:
            return [constant_name(base), {}]
        return [self._class(value), self._attributes(value)]

    # -- code --------------------------------------------------------------------------------------

    def _function(self, value: types.FunctionType, kind: type) -> list[Any]:
        code = value.__code__
        cells = {} if not value.__closure__ else {
            name: self.ref(cell, f".{name}") for name, cell in zip(code.co_freevars, value.__closure__, strict=True)
        }  # fmt: skip
        name = function_name(value)
        line = code.co_firstlineno
        if not is_program_function(value):  # of a library: what it closes over may be the program's
            return ["function", name, cells, None, None, None, line]
        return [
            "function",
            name,
            cells,
            self.ref(value.__defaults__, ".__defaults__"),
            self.ref(value.__kwdefaults__, ".__kwdefaults__"),
            self._named(value.__dict__),
            line,
        ]

    def _cell(self, value: types.CellType, kind: type) -> list[Any]:
        try:
            return ["cell", "", [self.ref(value.cell_contents, "")]]
        except ValueError:
            return ["cell", "", []]

    def _method(self, value: types.MethodType, kind: type) -> list[Any]:
        return ["method", "", self.ref(value.__func__, ""), self.ref(value.__self__, ".__self__")]

    def _builtin(self, value: Any, kind: type) -> list[Any]:
        return ["builtin", value.__name__, self.ref(value.__self__, ".__self__")]

    def _partial(self, value: functools.partial[Any], kind: type) -> list[Any]:
        parts = (value.func, value.args, value.keywords)
        return ["partial", self._class(value), self._refs(parts), self._named(value.__dict__)]

    def _cache(self, value: Any, kind: type) -> list[Any]:
        """What `functools.lru_cache` made: it does not give out what it holds, and is emptied by a restore."""
        held = {name: item for name, item in value.__dict__.items() if name != "__wrapped__"}
        return ["cache", constant_name(kind), self.ref(value.__wrapped__, ""), self._named(held)]

    def _wrapper(self, value: Any, kind: type) -> list[Any]:
        return ["wrapper", kind.__name__, self.ref(value.__func__, ""), {}]

    def _property(self, value: property, kind: type) -> list[Any]:
        return ["property", self._class(value), self._refs((value.fget, value.fset, value.fdel))]

    def _type(self, value: type) -> list[Any]:
        for base in value.__mro__[1:]:
            if is_program_class(base):
                self.ref(base, ".__base__")
        if is_program_class(type(value)):
            self.ref(type(value), ".__class__")
        return ["class", constant_name(value), self._named(class_attributes(value))]

    def _enum(self, value: enum.Enum, kind: type) -> list[Any]:
        held = {name: item for name, item in vars(value).items() if not name.startswith("_")}
        return ["enum", f"{self._class(value)}.{value.name}", self._named(held)]

    # -- data --------------------------------------------------------------------------------------

    def _tensor(self, value: torch.Tensor, kind: type) -> list[Any]:
        view = self._memory.tensor(value, self.place(self._at))
        if view is None:
            return self._opaque(value, "tensor")
        grad = self.ref(value.grad, ".grad") if value.is_leaf else None
        held = {name: item for name, item in getattr(value, "__dict__", {}).items() if name != "grad"}
        held |= {name: hooks for name in TENSOR_HOOKS if (hooks := getattr(value, name, None))}
        return ["tensor", self._class(value), view, grad, self._named(held)]

    def _array(self, value: np.ndarray[Any, Any], kind: type) -> list[Any]:
        if value.dtype.hasobject:
            if value.dtype != object or kind is not np.ndarray:
                return self._opaque(value, f"array of {value.dtype}")
            return ["objects", list(value.shape), self._refs(value.reshape(-1).tolist())]
        view = self._memory.array(value)
        if view is None:
            return self._opaque(value, f"array of {value.dtype}")
        return ["array", self._class(value), view, self._named(getattr(value, "__dict__", {}))]

    def _random(self, value: Any, kind: type) -> list[Any]:
        tree = adapter("", value).capture()
        return ["random", self._class(value), flatten(_without_tensors(tree), "")[0], self._attributes(value)]

    def _buffer(self, value: Any, kind: type) -> list[Any]:
        if value.closed:
            return ["buffer", constant_name(kind), None, 0]
        return ["buffer", constant_name(kind), value.getvalue(), value.tell()]

    def _bytes(self, value: bytearray, kind: type) -> list[Any]:
        return ["bytearray", "", bytes(value)]

    def _file(self, value: io.IOBase, kind: type) -> list[Any]:
        try:
            reading = value.readable() and not value.writable() and value.seekable()
            return ["file", constant_name(kind), value.tell() if reading else None]
        except (OSError, ValueError):
            return ["file", constant_name(kind), None]

    def _weak(self, value: weakref.ref[Any], kind: type) -> list[Any]:
        return ["weak", constant_name(kind), self.ref(value(), "()")]

    def _weak_mapping(self, value: Any, kind: type) -> list[Any]:
        return ["weak mapping", constant_name(kind), self._pairs(list(value.items()))]

    def _weak_set(self, value: Any, kind: type) -> list[Any]:
        return ["weak set", constant_name(kind), self._refs(sorted(value, key=self._order))]

    def _local(self, value: threading.local, kind: type) -> list[Any]:
        return ["local", self._class(value), self._named(value.__dict__)]

    def _resource(self, value: Any, kind: type) -> list[Any]:
        return ["resource", constant_name(kind)]

    def _queue(self, value: Any, kind: type) -> list[Any]:
        items = []
        while not value.empty():
            items.append(value.get_nowait())
        for item in items:
            value.put(item)
        return ["simple queue", "", self._refs(items)]

    def _proxy(self, value: Any, kind: type) -> list[Any]:
        return ["proxy", constant_name(kind)]  # it shows what another object has

    # -- what is left ------------------------------------------------------------------------------

    def _described(self, value: Any) -> list[Any]:
        """An object by its own description (``__reduce_ex__``): a callable, its arguments and a state."""
        if isinstance(value, types.GeneratorType | types.CoroutineType | types.AsyncGeneratorType):
            return self._generator(value)
        try:
            how = described(value)
        except Exception as error:  # whatever an object's own method raises
            return self._opaque(value, str(error))
        if isinstance(how, str):
            return ["named", constant_name(type(value)), how]
        if not is_constant(how[0]):
            return self._opaque(value, "a function of the program describes it")
        function, arguments, state, items, pairs = (*how, None, None, None, None)[:5]
        return [
            "described",
            self._class(value),
            constant_name(function),
            self._refs(arguments or ()),
            self.ref(state, ".__state__"),
            self._refs(items or ()),
            self._pairs(pairs or ()),
        ]

    def _generator(self, value: Any) -> list[Any]:
        if isinstance(value, types.GeneratorType) and value.gi_frame is None:
            return ["ended", type(value).__name__]
        return self._opaque(value, "the position of a generator cannot be taken")

    def _is_data(self) -> bool:
        """Whether the present node is reached through a data set: what it reads is no state of the training."""
        number = self._at
        while number >= 0:
            if isinstance(self._objects[number], Dataset):
                return True
            number = self._found[number][0]
        return False

    def _opaque(self, value: Any, why: str) -> list[Any]:
        name = constant_name(type(value))
        if self._is_data():
            return ["tool", name]
        self.missing[self.place(self._at)] = f"{name}: {why}"
        return ["opaque", name]


def function_name(value: types.FunctionType) -> str:
    """``module:qualified name`` of a function's code; see `code_name`."""
    return f"{value.__module__}:{code_name(value.__code__)}"


def code_name(code: types.CodeType) -> str:
    """The qualified name of code; that of a lambda has a digest of what it does, as there are several of one name.

    The line is no part of it: lines move when statements are added.
    """
    if code.co_name != "<lambda>":
        return code.co_qualname
    constants = [c.co_code if isinstance(c, types.CodeType) else c for c in code.co_consts]
    return f"{code.co_qualname}@{xxh3_64_hexdigest(repr((code.co_code, code.co_names, constants)).encode())}"


def class_attributes(kind: type) -> dict[str, Any]:
    """What a class of the program has of its own and could change: not what the ``class`` statement adds by itself."""
    return {
        name: item
        for name, item in vars(kind).items()
        if not (name.startswith("__") and name.endswith("__"))
        and name not in _CLASS_MACHINERY
        and not isinstance(item, types.GetSetDescriptorType | types.MemberDescriptorType)
    }


def _is_mapping(kind: type) -> bool:
    return kind.__module__ in ("builtins", "collections") and issubclass(kind, dict)


def _without_tensors(tree: Any) -> Any:
    """The state of a random generator without tensors: a few kilobytes that need no page of their own."""
    if isinstance(tree, torch.Tensor):
        return ("tensor", tree.numpy().tobytes())
    if isinstance(tree, np.ndarray):
        return ("array", tree.dtype.str, tree.tobytes())
    if isinstance(tree, dict):
        return {key: _without_tensors(item) for key, item in tree.items()}
    if isinstance(tree, tuple | list):
        return type(tree)(map(_without_tensors, tree))
    return tree


_Take = Callable[[_Capture, Any, type], list[Any]]
_KINDS: tuple[tuple[Any, _Take], ...] = (
    (enum.Enum, _Capture._enum),
    (torch.Tensor, _Capture._tensor),
    (np.ndarray, _Capture._array),
    (RANDOM, _Capture._random),
    (list, _Capture._list),
    (dict, _Capture._dict),
    (tuple, _Capture._tuple),
    ((set, frozenset), _Capture._set),
    (deque, _Capture._deque),
    (types.FunctionType, _Capture._function),
    (types.MethodType, _Capture._method),
    (types.BuiltinFunctionType, _Capture._builtin),
    (types.CellType, _Capture._cell),
    (functools.partial, _Capture._partial),
    (functools._lru_cache_wrapper, _Capture._cache),
    ((staticmethod, classmethod), _Capture._wrapper),
    (property, _Capture._property),
    (bytearray, _Capture._bytes),
    ((io.BytesIO, io.StringIO), _Capture._buffer),
    (io.IOBase, _Capture._file),
    (weakref.ref, _Capture._weak),
    (WEAK_MAPPINGS, _Capture._weak_mapping),
    (weakref.WeakSet, _Capture._weak_set),
    (threading.local, _Capture._local),
    (RESOURCES, _Capture._resource),
    (queue.SimpleQueue, _Capture._queue),
    (types.MappingProxyType, _Capture._proxy),
)


@functools.cache
def _take_of(kind: Any) -> _Take | None:
    """What captures the instances of a class; None for those of the general kinds."""
    return next((take for fits, take in _KINDS if issubclass(kind, fits)), None)
