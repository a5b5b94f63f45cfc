"""Restoring a graph: the live objects get the captured state back, in place, and those that are missing are made.

Three passes.  *Match*: nodes are paired with live objects by walking both from the same names; a live object is paired
once.  *Make*: a node without a live object gets a new one; what cannot be made is an error, and until here nothing live
was changed.  *Fill*: every object gets its parts.  Immutable objects are made from their parts, and the live one is
kept where all parts are the same objects.
"""

from __future__ import annotations

import enum
import importlib
import queue
import sys
import types
import weakref
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
import xxhash

from florlog.errors import ImageError
from florlog.state.adapters import adapter
from florlog.state.heap.capture import (
    EMPTY_MODULE_PARTS,
    TENSOR_HOOKS,
    WORKERS,
    Graph,
    Ref,
    class_attributes,
    code_name,
    function_name,
)
from florlog.state.heap.memory import flat_memory
from florlog.state.heap.rules import ATOMS, constant_name, described, slots_of
from florlog.state.loaders import start_workers
from florlog.state.tree import unflatten

_MISSING: Any = object()
_NEVER_MADE = {
    "tool": "a tool",
    "opaque": "an object",
    "file": "an open file",
    "class": "a class",
    "enum": "a member",
    "proxy": "a view",
    "named": "an object",
    "cache": "a cache",
    "left": "an object of florlog's",
}


def restore(
    graph: Graph, live: Mapping[str, Mapping[str, Any]], codes: Iterable[tuple[str, types.CodeType]] = ()
) -> dict[str, dict[str, Any]]:
    """Put a graph's state into the live objects; what each name of each scope is to be bound to.

    ``live``: scope -> name -> value, as the program has them now.  ``codes``: modules' names with their code, for
    functions that have to be made anew.  Raises `ImageError`, with the place of the object, where the state cannot be
    put back; then nothing was changed.
    """
    return _Restore(graph, live, codes).run()


class _Restore:
    def __init__(
        self, graph: Graph, live: Mapping[str, Mapping[str, Any]], codes: Iterable[tuple[str, types.CodeType]]
    ) -> None:
        self._graph = graph
        self._nodes = graph.nodes
        self._live = live
        self._held: list[Any] = [_MISSING] * len(graph.nodes)  # the object of each node
        self._known: list[Any] = [_MISSING] * len(graph.nodes)  # the live object that was matched
        self._taken: set[int] = set()
        self._from: list[tuple[int, str]] = [(-1, "")] * len(graph.nodes)
        self._classes: dict[str, type] = {}
        self._constants: dict[str, Any] = {}  # those that were met, by name
        self._codes = _by_name(codes)
        self._memory: dict[int, torch.Tensor] = {}
        self._made: set[int] = set()

    def run(self) -> dict[str, dict[str, Any]]:
        self._match()
        self._places()
        self._anchor()
        for number in reversed(range(len(self._nodes))):  # parts have higher numbers: recursion stays shallow
            self._object(number)
        found = {
            scope: {name: self.value(ref) for name, ref in names.items()}
            for scope, names in self._graph.roots.items()
        }
        self._fill_memory()
        for number, node in enumerate(self._nodes):
            if (fill := getattr(self, f"_fill_{node[0].replace(' ', '_')}", None)) is not None:
                fill(node, self._held[number])
        for number, node in enumerate(self._nodes):
            if node[0] == "object" and WORKERS in node[2]:
                start_workers(self._held[number])
        return found

    # -- matching ----------------------------------------------------------------------------------

    def _match(self) -> None:
        ahead: deque[tuple[Ref, Any]] = deque()
        for scope, names in self._graph.roots.items():
            held = self._live.get(scope, {})
            ahead.extend((ref, held[name]) for name, ref in names.items() if name in held)
        waiting: list[tuple[Ref, Ref, Any]] = []  # of a dict: key, value, live dict
        while ahead or waiting:
            if not ahead:
                later = [entry for entry in waiting if not self._look_up(*entry, ahead)]
                if not ahead:
                    break
                waiting = later
                continue
            ref, value = ahead.popleft()
            if (
                type(ref) is tuple
                and ref[0] == "="
                and ref[1] not in self._constants
                and constant_name(value) == ref[1]
            ):
                self._constants[ref[1]] = value
            if type(ref) is not tuple or ref[0] != "@" or self._known[ref[1]] is not _MISSING:
                continue
            node = self._nodes[ref[1]]
            if id(value) in self._taken or not _fits(node, value):
                continue
            self._known[ref[1]] = value
            self._taken.add(id(value))
            if node[0] == "class":
                self._classes[node[1]] = value
            for child, part in _children(node, value):
                ahead.append((child, part))
            if node[0] == "dict":
                waiting.extend((key, item, value) for key, item in node[3] if type(key) is tuple)

    def _look_up(self, key: Ref, item: Ref, mapping: dict[Any, Any], ahead: deque[tuple[Ref, Any]]) -> bool:
        """Pair the value of a key that is an object, once that object is matched."""
        if key[0] != "@":
            known = self.value(key)
        elif (known := self._known[key[1]]) is _MISSING:
            return False
        try:
            ahead.append((item, mapping[known]))
        except (KeyError, TypeError):
            pass
        return True

    def _places(self) -> None:
        """From where each node is first reached, for messages."""
        seen = [False] * len(self._nodes)
        ahead: deque[tuple[int, Ref, str]] = deque()
        for names in self._graph.roots.values():
            ahead.extend((-1, ref, name) for name, ref in names.items())
        while ahead:
            parent, ref, step = ahead.popleft()
            if type(ref) is not tuple or ref[0] != "@" or seen[ref[1]]:
                continue
            seen[ref[1]] = True
            self._from[ref[1]] = parent, step
            ahead.extend((ref[1], child, name) for child, name in steps(self._nodes[ref[1]]))

    def _place(self, number: int) -> str:
        parts = []
        while number >= 0:
            number, step = self._from[number]
            parts.append(step)
        text = "".join(reversed(parts))
        return text if len(text) <= 120 else f"{text[:80]}...{text[-30:]}"

    # -- memory ------------------------------------------------------------------------------------

    def _anchor(self) -> None:
        """Find the live memory of each region, or make it."""
        used: set[int] = set()
        for number, node in enumerate(self._nodes):
            live = self._known[number]
            if node[0] not in ("tensor", "array") or live is _MISSING or (region := node[2][0]) < 0:
                continue
            kind, size, *_ = self._graph.regions[region]
            memory = flat_memory(live)
            if region in self._memory or memory is None or kind == "whole":
                continue
            start, held, first = memory
            size = size if kind != "bytes" else self._graph.regions[region][1].nbytes
            if held.nbytes == size and first == node[2][1] and start not in used:
                self._memory[region] = held
                used.add(start)
        for number, node in enumerate(self._nodes):
            if node[0] not in ("tensor", "array") or (region := node[2][0]) < 0 or region in self._memory:
                continue
            kind, held, *_ = self._graph.regions[region]
            if kind == "constant":
                raise ImageError(f"{self._place(number)} is data of the set-up that is not there any more")
            device = node[2][6] if node[0] == "tensor" else "cpu"
            size = held.nbytes if kind == "bytes" else held
            self._memory[region] = torch.zeros(size, dtype=torch.uint8, device=device)
        for region, found in self._memory.items():
            what = self._graph.regions[region]
            if what[0] == "constant" and xxhash.xxh3_128_digest(found.numpy().data) != what[2]:
                number = next(
                    n
                    for n, node in enumerate(self._nodes)
                    if node[0] in ("tensor", "array") and node[2][0] == region
                )
                raise ImageError(f"{self._place(number)} holds other data than when it was recorded")

    def _fill_memory(self) -> None:
        for region, memory in self._memory.items():
            what = self._graph.regions[region]
            if what[0] == "bytes":
                with torch.no_grad():
                    memory.copy_(what[1].reshape(-1).view(torch.uint8))

    # -- making ------------------------------------------------------------------------------------

    def value(self, ref: Ref) -> Any:
        """What a reference stands for."""
        if type(ref) is not tuple:
            return ref
        if ref[0] == "@":
            return self._object(ref[1])
        if ref[0] == "is":
            return unflatten(ref[1], _no_tensor)
        if ref[0] == "=":
            return self._constant(ref[1])
        raise AssertionError(ref)

    def _constant(self, name: str) -> Any:
        if (known := self._constants.get(name, _MISSING)) is not _MISSING:
            return known
        module, _, qualname = name.partition(":")
        try:
            found: Any = sys.modules.get(module) or importlib.import_module(module)
            for part in qualname.split(".") if qualname else ():
                found = getattr(found, part)
        except (ImportError, AttributeError, ValueError):
            raise ImageError(f"{name} is not to be found") from None
        return found

    def _object(self, number: int) -> Any:
        held = self._held[number]
        if held is _MISSING:
            node, live = self._nodes[number], self._known[number]
            if live is not _MISSING and node[0] not in _IMMUTABLE:
                held = self._held[number] = live
            else:
                if number in self._made:
                    raise ImageError(f"{self._place(number)} contains itself")
                self._made.add(number)
                held = self._held[number] = self._make(number, node, live)
        return held

    def _make(self, number: int, node: list[Any], live: Any) -> Any:
        if node[0] in _NEVER_MADE:
            raise ImageError(f"{self._place(number)}, {_NEVER_MADE[node[0]]} ({node[1]}), does not exist yet")
        make = getattr(self, f"_make_{node[0].replace(' ', '_')}")
        try:
            return make(node, live)
        except ImageError:
            raise
        except Exception as error:  # whatever a class's own code raises
            raise ImageError(f"{self._place(number)} ({node[1]}) cannot be made: {error}") from None

    def _kind(self, name: str) -> Any:
        """A class by its name: one that was matched, else one that its module has."""
        found = self._classes.get(name)
        return self._constant(name) if found is None else found

    def _make_list(self, node: list[Any], live: Any) -> Any:
        kind = self._kind(node[1])
        return kind.__new__(kind)

    _make_set = _make_dict = _make_list

    def _make_deque(self, node: list[Any], live: Any) -> Any:
        kind = self._kind(node[1])
        made = kind.__new__(kind)
        deque.__init__(made, (), node[4])
        return made

    def _make_tuple(self, node: list[Any], live: Any) -> Any:
        items = [self.value(item) for item in node[3]]
        if live is not _MISSING and len(live) == len(items) and all(map(_same, live, items)):
            return live
        made: Any = tuple.__new__(self._kind(node[1]), items)
        return made

    def _make_frozenset(self, node: list[Any], live: Any) -> Any:
        made = self._kind(node[1])(self.value(item) for item in node[3])
        return live if live is not _MISSING and live == made else made

    def _make_object(self, node: list[Any], live: Any) -> Any:
        return object.__new__(self._kind(node[1]))

    def _make_function(self, node: list[Any], live: Any) -> Any:
        if live is not _MISSING:
            return live
        known = self._codes.get(node[1], [])
        codes = [code for code in known if code.co_firstlineno == node[6]] or known
        if len(codes) != 1:
            raise ImageError(f"which function {node[1]} was is not to be found")
        code = codes[0]
        module = sys.modules[node[1].partition(":")[0]]
        cells = tuple(self.value(node[2][name]) for name in code.co_freevars)
        return types.FunctionType(code, vars(module), code.co_name, None, cells)

    def _make_cell(self, node: list[Any], live: Any) -> Any:
        return types.CellType()

    def _make_method(self, node: list[Any], live: Any) -> Any:
        function, owner = self.value(node[2]), self.value(node[3])
        if live is not _MISSING and live.__func__ is function and live.__self__ is owner:
            return live
        return types.MethodType(function, owner)

    def _make_builtin(self, node: list[Any], live: Any) -> Any:
        owner = self.value(node[2])
        return live if live is not _MISSING and live.__self__ is owner else getattr(owner, node[1])

    def _make_partial(self, node: list[Any], live: Any) -> Any:
        function, arguments, keywords = (self.value(ref) for ref in node[2])
        if (
            live is not _MISSING
            and live.func is function
            and all(map(_same, live.args, arguments))
            and len(live.args) == len(arguments)
            and live.keywords is keywords
        ):
            return live
        return self._kind(node[1])(function, *arguments, **keywords)

    def _make_wrapper(self, node: list[Any], live: Any) -> Any:
        function = self.value(node[2])
        if live is not _MISSING and live.__func__ is function:
            return live
        return {"staticmethod": staticmethod, "classmethod": classmethod}[node[1]](function)

    def _make_property(self, node: list[Any], live: Any) -> Any:
        parts = [self.value(ref) for ref in node[2]]
        if live is not _MISSING and all(map(_same, (live.fget, live.fset, live.fdel), parts)):
            return live
        return self._kind(node[1])(*parts)

    def _make_tensor(self, node: list[Any], live: Any) -> Any:
        region, first, dtype, shape, strides, requires_grad, device = node[2]
        kind = self._kind(node[1])
        if region == -2:
            plain = self._whole(first).to(device)
        else:
            plain = torch.empty(0, dtype=getattr(torch, dtype), device=device)
            if region >= 0:
                storage = self._memory[region].untyped_storage()
                offset = self._memory[region].storage_offset() + first
                plain.set_(storage, offset // plain.element_size(), shape, strides)
            else:
                plain = torch.empty_strided(shape, strides, dtype=plain.dtype, device=device)
        if issubclass(kind, torch.nn.Parameter):
            made: Any = torch.nn.Parameter(plain, requires_grad)
            return made if kind is torch.nn.Parameter else made.as_subclass(kind)
        if kind is not torch.Tensor:
            plain = plain.as_subclass(kind)
        return plain.requires_grad_() if requires_grad else plain

    def _whole(self, number: int) -> torch.Tensor:
        found = [region[1] for region in self._graph.regions if region[0] == "whole"][number]
        assert isinstance(found, torch.Tensor)
        return found

    def _make_array(self, node: list[Any], live: Any) -> Any:
        region, first, dtype, shape, strides, writable, _ = node[2]
        kind = self._kind(node[1])
        if region < 0:
            made = np.empty(shape, dtype)
        else:
            memory = self._memory[region].numpy()
            if (
                live is not _MISSING
                and live.dtype.str == dtype
                and list(live.shape) == shape
                and list(live.strides) == strides
                and live.__array_interface__["data"][0] == memory.__array_interface__["data"][0] + first
            ):
                return live
            made = np.ndarray(shape, dtype, memory, first, strides)
        made.flags.writeable = made.flags.writeable and writable
        return made if kind is np.ndarray else made.view(kind)

    def _make_objects(self, node: list[Any], live: Any) -> Any:
        return np.empty(node[1], dtype=object)

    def _make_random(self, node: list[Any], live: Any) -> Any:
        kind = self._kind(node[1])
        if issubclass(kind, np.random.Generator):
            state = _with_tensors(unflatten(node[2], _no_tensor))
            return kind(getattr(np.random, state["bit_generator"])())
        return kind()

    def _make_bytearray(self, node: list[Any], live: Any) -> Any:
        return bytearray()

    def _make_buffer(self, node: list[Any], live: Any) -> Any:
        return self._kind(node[1])()

    def _make_weak(self, node: list[Any], live: Any) -> Any:
        target = self.value(node[2])
        if live is not _MISSING and live() is target:
            return live
        if target is None:
            return weakref.ref(_Gone())
        return self._kind(node[1])(target)

    def _make_weak_mapping(self, node: list[Any], live: Any) -> Any:
        return self._kind(node[1])()

    _make_weak_set = _make_local = _make_weak_mapping

    def _make_resource(self, node: list[Any], live: Any) -> Any:
        import threading

        return threading.RLock() if "RLock" in node[1] else threading.Lock()

    def _make_simple_queue(self, node: list[Any], live: Any) -> Any:
        return queue.SimpleQueue()

    def _make_described(self, node: list[Any], live: Any) -> Any:
        function = self._constant(node[2])
        return function(*(self.value(ref) for ref in node[3]))

    def _make_ended(self, node: list[Any], live: Any) -> Any:
        nothing: tuple[None, ...] = ()
        made = (item for item in nothing)
        next(made, None)
        return made

    # -- filling -----------------------------------------------------------------------------------

    def _fill_list(self, node: list[Any], held: Any) -> None:
        items = [self.value(item) for item in node[3]]
        list.clear(held)
        list.extend(held, items)
        self._put(held, node[2])

    def _fill_deque(self, node: list[Any], held: Any) -> None:
        items = [self.value(item) for item in node[3]]
        deque.clear(held)
        deque.extend(held, items)
        self._put(held, node[2])

    def _fill_set(self, node: list[Any], held: Any) -> None:
        items = [self.value(item) for item in node[3]]
        set.clear(held)
        set.update(held, items)
        self._put(held, node[2])

    def _fill_dict(self, node: list[Any], held: Any) -> None:
        pairs = [(self.value(key), self.value(item)) for key, item in node[3]]
        base: Any = next(
            kind for kind in type(held).__mro__ if kind.__module__ in ("builtins", "collections")
        )
        base.clear(held)
        for key, item in pairs:
            base.__setitem__(held, key, item)
        if isinstance(held, defaultdict):
            held.default_factory = self.value(node[4])
        self._put(held, node[2])

    def _fill_tuple(self, node: list[Any], held: Any) -> None:
        if node[2]:
            self._put(held, node[2])

    def _fill_object(self, node: list[Any], held: Any) -> None:
        if isinstance(held, torch.nn.Module):
            for name in EMPTY_MODULE_PARTS:
                if name not in node[2]:
                    part = vars(held).get(name)
                    if part is None:
                        fresh = vars(torch.nn.Module())[name]
                        vars(held)[name] = fresh
                    else:
                        part.clear()
        self._put(
            held, node[2], kept=EMPTY_MODULE_PARTS if isinstance(held, torch.nn.Module) else frozenset()
        )

    def _put(self, held: Any, attributes: Mapping[str, Ref], kept: frozenset[str] = frozenset()) -> None:
        """Give an object its attributes, and no others."""
        own = getattr(held, "__dict__", None)
        slots = slots_of(type(held))
        for name, ref in attributes.items():
            value = self.value(ref)
            if name in slots:
                object.__setattr__(held, name, value)
            elif own is not None and (name not in own or own[name] is not value):
                own[name] = value
        if own is not None:
            for name in own.keys() - attributes.keys() - kept:
                del own[name]
        for slot in slots:
            if slot not in attributes and hasattr(held, slot):
                object.__delattr__(held, slot)

    def _fill_class(self, node: list[Any], held: Any) -> None:
        for name, ref in node[2].items():
            value = self.value(ref)
            if vars(held).get(name, _MISSING) is not value:
                setattr(held, name, value)
        for name in class_attributes(held).keys() - node[2].keys():
            delattr(held, name)

    def _fill_enum(self, node: list[Any], held: Any) -> None:
        self._put(held, {**node[2]}, kept=frozenset(vars(held)))

    def _fill_function(self, node: list[Any], held: Any) -> None:
        if node[5] is None:
            return
        held.__defaults__ = self.value(node[3])
        held.__kwdefaults__ = self.value(node[4])
        self._put(held, node[5])

    def _fill_cell(self, node: list[Any], held: Any) -> None:
        if node[2]:
            held.cell_contents = self.value(node[2][0])
        else:
            try:
                del held.cell_contents
            except ValueError:
                pass

    def _fill_cache(self, node: list[Any], held: Any) -> None:
        held.cache_clear()
        self._put(held, node[3])

    def _fill_partial(self, node: list[Any], held: Any) -> None:
        self._put(held, node[3])

    def _fill_tensor(self, node: list[Any], held: Any) -> None:
        requires_grad = node[2][5]
        if held.requires_grad and not held.is_leaf:
            return
        with torch.no_grad():
            if not self._stands(held, node):
                held.data = torch.Tensor.detach(
                    self._make_tensor([*node[:1], "torch:Tensor", *node[2:]], _MISSING)
                )
        if held.requires_grad != requires_grad:
            held.requires_grad_(requires_grad)
        if held.is_leaf:
            held.grad = self.value(node[3])
        attributes = {name: ref for name, ref in node[4].items() if name not in TENSOR_HOOKS}
        if attributes or getattr(held, "__dict__", None):
            self._put(held, attributes)
        for name in TENSOR_HOOKS:
            hooks = self.value(node[4].get(name))
            if hooks is None:
                for key in list(getattr(held, name, None) or ()):
                    del getattr(held, name)[key]
            elif getattr(held, name) is not hooks:
                register = (
                    held.register_hook if name == TENSOR_HOOKS[0] else held.register_post_accumulate_grad_hook
                )
                for key, function in hooks.items():
                    handle = register(function)
                    if handle.id != key:
                        raise ImageError(f"a hook of a tensor had the number {key} and has {handle.id}")

    def _stands(self, held: torch.Tensor, node: list[Any]) -> bool:
        """Whether a tensor is the view that the node describes."""
        region, first, dtype, shape, strides, *_ = node[2]
        if region == -2 or str(held.dtype) != f"torch.{dtype}" or list(held.shape) != shape:
            return False
        if region < 0:
            return True
        memory = self._memory[region]
        return bool(list(held.stride()) == strides and held.data_ptr() == memory.data_ptr() + first)

    def _fill_array(self, node: list[Any], held: Any) -> None:
        if node[3]:
            self._put(held, node[3])

    def _fill_objects(self, node: list[Any], held: Any) -> None:
        flat = held.reshape(-1)
        for index, ref in enumerate(node[2]):
            flat[index] = self.value(ref)

    def _fill_random(self, node: list[Any], held: Any) -> None:
        adapter("", held).restore(_with_tensors(unflatten(node[2], _no_tensor)))
        self._put(held, node[3])

    def _fill_bytearray(self, node: list[Any], held: Any) -> None:
        held[:] = node[2]

    def _fill_buffer(self, node: list[Any], held: Any) -> None:
        if node[2] is None:
            held.close()
            return
        held.seek(0)
        held.truncate()
        held.write(node[2])
        held.seek(node[3])

    def _fill_file(self, node: list[Any], held: Any) -> None:
        if node[2] is not None and not held.closed:
            held.seek(node[2])

    def _fill_weak_mapping(self, node: list[Any], held: Any) -> None:
        held.clear()
        for key, item in node[2]:
            held[self.value(key)] = self.value(item)

    def _fill_weak_set(self, node: list[Any], held: Any) -> None:
        held.clear()
        held.update(self.value(ref) for ref in node[2])

    def _fill_local(self, node: list[Any], held: Any) -> None:
        held.__dict__.clear()
        held.__dict__.update({name: self.value(ref) for name, ref in node[2].items()})

    def _fill_simple_queue(self, node: list[Any], held: Any) -> None:
        while not held.empty():
            held.get_nowait()
        for ref in node[2]:
            held.put(self.value(ref))

    def _fill_described(self, node: list[Any], held: Any) -> None:
        state = self.value(node[4])
        if state is not None:
            if hasattr(held, "__setstate__"):
                held.__setstate__(state)
            else:
                own, slots = state if isinstance(state, tuple) and len(state) == 2 else (state, None)
                vars(held).update(own or {})
                for name, item in (slots or {}).items():
                    object.__setattr__(held, name, item)
        for ref in node[5]:
            held.append(self.value(ref))
        for key, item in node[6]:
            held[self.value(key)] = self.value(item)


_IMMUTABLE = {
    "array", "builtin", "described", "frozenset", "function", "method", "partial", "property", "tuple", "weak",
    "wrapper",
}  # fmt: skip
"""Kinds whose live object is kept only where it is what would be made."""


class _Gone:
    """Something to point a dead weak reference at."""


def _fits(node: list[Any], value: Any) -> bool:
    """Whether a live value may take a node's place."""
    kind = node[0]
    if kind == "function":
        return isinstance(value, types.FunctionType) and function_name(value) == node[1]
    if kind == "class":
        return isinstance(value, type) and constant_name(value) == node[1]
    if kind == "enum":
        return isinstance(value, enum.Enum) and f"{constant_name(type(value))}.{value.name}" == node[1]
    if kind in _TYPES:
        return isinstance(value, _TYPES[kind])
    return not isinstance(value, type) and constant_name(type(value)) == node[1]


_TYPES: dict[str, Any] = {
    "cell": types.CellType,
    "method": types.MethodType,
    "builtin": types.BuiltinFunctionType,
    "wrapper": (staticmethod, classmethod),
    "objects": np.ndarray,
    "bytearray": bytearray,
    "simple queue": queue.SimpleQueue,
    "ended": types.GeneratorType,
}


def _children(node: list[Any], live: Any) -> Iterator[tuple[Ref, Any]]:
    """References of a node, each with what a live object has in its place."""
    match node[0]:
        case "list" | "deque" | "tuple":
            yield from zip(node[3], live, strict=False)
        case "objects":
            yield from zip(node[2], live.reshape(-1).tolist(), strict=False)
        case "dict":
            known = {key: item for key, item in dict.items(live) if type(key) in ATOMS}
            others = [key for key in dict.keys(live) if type(key) not in ATOMS]
            keys = [key for key, _ in node[3] if type(key) is tuple]
            yield from zip(keys, others, strict=False)
            for key, item in node[3]:
                if type(key) is not tuple and key in known:
                    yield item, known[key]
            if isinstance(live, defaultdict):
                yield node[4], live.default_factory
        case "weak mapping":
            known = dict(live.items())
            yield from zip((key for key, _ in node[2]), known, strict=False)
            yield from zip((item for _, item in node[2]), known.values(), strict=False)
        case "function":
            for name, cell in zip(live.__code__.co_freevars, live.__closure__ or (), strict=True):
                yield node[2].get(name), cell
            yield node[3], live.__defaults__
            yield node[4], live.__kwdefaults__
        case "cell":
            try:
                yield from zip(node[2], (live.cell_contents,), strict=False)
            except ValueError:
                pass
        case "method":
            yield from ((node[2], live.__func__), (node[3], live.__self__))
        case "builtin":
            yield node[2], live.__self__
        case "partial":
            yield from zip(node[2], (live.func, live.args, live.keywords), strict=True)
        case "cache":
            yield node[2], live.__wrapped__
        case "wrapper":
            yield node[2], live.__func__
        case "property":
            yield from zip(node[2], (live.fget, live.fset, live.fdel), strict=True)
        case "weak":
            yield node[2], live()
        case "tensor":
            if live.is_leaf:
                yield node[3], live.grad
        case "class":
            held = class_attributes(live)
            yield from ((ref, held[name]) for name, ref in node[2].items() if name in held)
        case "described":
            try:
                how = described(live)
            except Exception:  # whatever the object's own code raises
                return
            yield from zip(node[3], how[1], strict=False)
            if len(how) > 2:
                yield node[4], how[2]
    if (attributes := _attributes(node)) is not None:
        for name, ref in attributes.items():
            try:
                yield ref, object.__getattribute__(live, name)
            except AttributeError:
                continue


def _attributes(node: list[Any]) -> Mapping[str, Ref] | None:
    """The attributes of a node by name, None for a kind that has none."""
    place = {"list": 2, "deque": 2, "set": 2, "frozenset": 2, "tuple": 2, "dict": 2, "object": 2, "local": 2, "enum": 2,
             "function": 5, "partial": 3, "cache": 3, "tensor": 4, "array": 3, "random": 3}.get(node[0])  # fmt: skip
    return None if place is None else (node[place] or {})


def steps(node: list[Any]) -> Iterator[tuple[Ref, str]]:
    """The references of a node, each with the step that leads to it, as a person writes it."""
    if (attributes := _attributes(node)) is not None:
        yield from ((ref, f".{name}") for name, ref in attributes.items())
    match node[0]:
        case "list" | "deque" | "tuple":
            yield from ((ref, f"[{index}]") for index, ref in enumerate(node[3]))
        case "set" | "frozenset":
            yield from ((ref, ".member()") for ref in node[3])
        case "dict":
            for index, (key, item) in enumerate(node[3]):
                yield key, f".key({index})"
                yield item, f"[{index if type(key) is tuple else repr(key)}]"
            yield node[4], ".default_factory"
        case "weak mapping":
            for index, (key, item) in enumerate(node[2]):
                yield key, f".key({index})"
                yield item, f"[{index}]"
        case "objects" | "weak set" | "simple queue" | "partial" | "property":
            yield from ((ref, f"[{index}]") for index, ref in enumerate(node[2]))
        case "function":
            yield from ((ref, f".{name}") for name, ref in node[2].items())
            yield node[3], ".__defaults__"
            yield node[4], ".__kwdefaults__"
        case "cell":
            yield from ((ref, "") for ref in node[2])
        case "method":
            yield from ((node[2], ""), (node[3], ".__self__"))
        case "builtin" | "wrapper" | "weak" | "cache":
            yield node[2], ""
        case "tensor":
            yield node[3], ".grad"
        case "class":
            yield from ((ref, f".{name}") for name, ref in node[2].items())
        case "described":
            yield from ((ref, f".args[{index}]") for index, ref in enumerate(node[3]))
            yield node[4], ".state"
            yield from ((ref, f"[{index}]") for index, ref in enumerate(node[5]))
            for key, item in node[6]:
                yield key, ".key"
                yield item, f"[{key!r}]"


def _same(one: Any, other: Any) -> bool:
    return one is other or (
        type(one) is type(other) and isinstance(one, (int, float, str, bytes)) and one == other
    )


def _no_tensor(key: str) -> torch.Tensor:
    raise AssertionError(key)


def _with_tensors(tree: Any) -> Any:
    if isinstance(tree, tuple) and tree[:1] == ("tensor",):
        return torch.frombuffer(bytearray(tree[1]), dtype=torch.uint8)
    if isinstance(tree, tuple) and tree[:1] == ("array",):
        return np.frombuffer(tree[2], tree[1]).copy()
    if isinstance(tree, dict):
        return {key: _with_tensors(item) for key, item in tree.items()}
    if isinstance(tree, tuple | list):
        return type(tree)(map(_with_tensors, tree))
    return tree


def _by_name(codes: Iterable[tuple[str, types.CodeType]]) -> dict[str, list[types.CodeType]]:
    found: dict[str, list[types.CodeType]] = {}
    for module, code in codes:
        ahead = [code]
        while ahead:
            inner = ahead.pop()
            known = found.setdefault(f"{module}:{code_name(inner)}", [])
            if inner not in known:
                known.append(inner)
            ahead += [constant for constant in inner.co_consts if isinstance(constant, types.CodeType)]
    return found
