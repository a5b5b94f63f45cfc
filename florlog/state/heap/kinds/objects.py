"""Objects with attributes, classes, enumerations' members, and what can only describe itself."""

from __future__ import annotations

import enum
import functools
import types
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from florlog.state.heap.descriptions import described
from florlog.state.heap.graph import Node, Ref
from florlog.state.heap.kinds.base import MISSING, Build, Kind, Walk
from florlog.state.heap.names import constant, constant_name
from florlog.state.heap.rules import COMPILER_ATTRIBUTE, is_program_class, settings_of
from florlog.state.loaders import keeps_workers

EMPTY_MODULE_PARTS = frozenset({
    "_parameters", "_buffers", "_modules", "_non_persistent_buffers_set", "_backward_pre_hooks", "_backward_hooks",
    "_forward_hooks", "_forward_hooks_with_kwargs", "_forward_hooks_always_called", "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs", "_state_dict_hooks", "_state_dict_pre_hooks", "_load_state_dict_pre_hooks",
    "_load_state_dict_post_hooks",
})  # fmt: skip
"""Containers that every module has, and that are left out while they are empty: a large model has thousands."""
_CLASS_MACHINERY = frozenset({
    "_abc_impl", "_member_map_", "_member_names_", "_value2member_map_", "_unhashable_values_", "_hashable_values_",
    "_member_type_", "_value_repr_", "_use_args_", "_new_member_", "_generate_next_value_",
})  # fmt: skip
_DESCRIBING = (list, tuple, dict, set, bytearray, np.ndarray)
"""Containers that a description makes for itself: the live one is no object of the program."""
_DEFAULT_STATE = (None, None, None, None, None)


class _Object(Kind):
    """An object that has nothing but attributes."""

    name = "object"

    def take(self, walk: Walk, value: Any) -> Node:
        return Node("object", walk.class_name(value), None, (), walk.attributes(value))

    def make(self, build: Build, node: Node, live: Any) -> Any:
        return object.__new__(build.kind_named(node.name))

    def fill(self, build: Build, node: Node, held: Any) -> None:
        build.put(held, node.attributes)


class _Shared(_Object):
    """An object whose attributes lie in a mapping of its class, as those of all that share it (the Borg pattern).

    ``own``: the place of the class in the order of its bases, and the name of the mapping.
    """

    name = "shared object"

    def take(self, walk: Walk, value: Any) -> Node:
        kind: Any = type(value)
        own = next(
            (place for place in shared_mappings(kind) if _mapping(kind, place) is value.__dict__), None
        )
        if own is None:
            return OBJECT.take(walk, value)
        return Node("shared object", walk.class_name(value), own, (), walk.attributes(value))

    def make(self, build: Build, node: Node, live: Any) -> Any:
        kind = build.kind_named(node.name)
        made = object.__new__(kind)
        made.__dict__ = _mapping(kind, node.own)
        return made

    def refusal(self, node: Node, live: Any) -> str:
        kind: Any = type(live)
        return (
            "" if _mapping(kind, node.own) is live.__dict__ else "does not share the attributes of its class"
        )


@functools.cache
def shared_mappings(kind: Any) -> tuple[tuple[int, str], ...]:
    """The mappings of a class and its bases that may be the attributes of its objects."""
    return tuple(
        (place, name)
        for place, base in enumerate(kind.__mro__)
        for name, part in vars(base).items()
        if isinstance(part, dict) and not (name.startswith("__") and name.endswith("__"))
    )


def _mapping(kind: Any, place: tuple[int, str]) -> Any:
    index, name = place
    return vars(kind.__mro__[index]).get(name)


class _Module(_Object):
    """A module of torch: an object whose empty containers are left out."""

    name = "module"

    def take(self, walk: Walk, value: Any) -> Node:
        held = {
            name: part
            for name, part in vars(value).items()
            if (name not in EMPTY_MODULE_PARTS or part) and not name.startswith(COMPILER_ATTRIBUTE)
        }
        return Node("module", walk.class_name(value), None, (), walk.attributes(value, held))

    def fill(self, build: Build, node: Node, held: Any) -> None:
        for name in EMPTY_MODULE_PARTS.difference(node.attributes or ()):
            if (part := vars(held).get(name)) is not None:
                for key in [key for key in part if not _is_added_item(build, part, key)]:
                    part.pop(key) if isinstance(part, dict) else part.discard(key)
            else:
                vars(held)[name] = vars(torch.nn.Module())[name]
        compiled = {name for name in vars(held) if name.startswith(COMPILER_ATTRIBUTE)}
        build.put(held, node.attributes, EMPTY_MODULE_PARTS | compiled)


def _is_added_item(build: Build, part: Any, key: Any) -> bool:
    return isinstance(part, dict) and build.is_added is not None and build.is_added(part[key])


class _Loader(_Object):
    """A DataLoader.  Its iterator is a part of it where its workers stay from pass to pass."""

    name = "loader"

    def take(self, walk: Walk, value: Any) -> Node:
        held = vars(value)
        if not keeps_workers(value):
            held = {name: part for name, part in held.items() if name != "_iterator"}
        return Node("loader", walk.class_name(value), None, (), walk.attributes(value, held))

    def fill(self, build: Build, node: Node, held: Any) -> None:
        build.put(held, node.attributes, frozenset() if keeps_workers(held) else frozenset({"_iterator"}))


class _Class(Kind):
    """A class of the program: the attributes that its ``class`` statement or the program gave it."""

    name = "class"
    described_as = "a class"

    def take(self, walk: Walk, value: Any) -> Node:
        for base in (*value.__mro__[1:], type(value)):
            if is_program_class(base):
                walk.ref(base)
        return Node("class", constant_name(value), None, (), walk.named(class_attributes(value)))

    def fits(self, node: Node, live: Any) -> bool:
        return isinstance(live, type) and constant_name(live) == node.name

    def fill(self, build: Build, node: Node, held: Any) -> None:
        attributes = node.attributes or {}
        for name, ref in attributes.items():
            value = build.value(ref)
            if vars(held).get(name, MISSING) is not value:
                type.__setattr__(held, name, value)
        for name in class_attributes(held).keys() - attributes.keys():
            type.__delattr__(held, name)


def class_attributes(kind: type) -> dict[str, Any]:
    """What a class of the program has of its own and could change: not what the ``class`` statement adds by itself."""
    return {
        name: item
        for name, item in vars(kind).items()
        if not (name.startswith("__") and name.endswith("__"))
        and name not in _CLASS_MACHINERY
        and not isinstance(item, types.GetSetDescriptorType | types.MemberDescriptorType)
    }


class _Member(Kind):
    """A member of an enumeration, with the attributes that the program gave it."""

    name = "enum"

    def take(self, walk: Walk, value: Any) -> Node:
        held = {name: item for name, item in vars(value).items() if not name.startswith("_")}
        name = getattr(value, "_name_", None) or str(value._value_)
        return Node("enum", walk.class_name(value), name, (), walk.named(held))

    def fits(self, node: Node, live: Any) -> bool:
        return super().fits(node, live) and (live._name_ or str(live._value_)) == node.own

    def make(self, build: Build, node: Node, live: Any) -> Any:
        return build.kind_named(node.name)[node.own]

    def fill(self, build: Build, node: Node, held: Any) -> None:
        build.put(held, node.attributes, frozenset(name for name in vars(held) if name.startswith("_")))


class _Tool(Kind):
    """A tool of a library: of its attributes only the settings are state."""

    name = "tool"
    described_as = "a tool"

    def take(self, walk: Walk, value: Any) -> Node:
        kind: Any = type(value)
        held = getattr(value, "__dict__", None) or {}
        settings = {name: held[name] for name in sorted(settings_of(kind) & held.keys())}
        return Node("tool", walk.class_name(value), None, (), walk.named(settings))

    def fill(self, build: Build, node: Node, held: Any) -> None:
        for name, ref in (node.attributes or {}).items():
            vars(held)[name] = build.value(ref)


class _Left(Kind):
    """One of florlog's own objects, or one that the caller asked to leave as it is."""

    name = "left"
    described_as = "an object of florlog's"

    def take(self, walk: Walk, value: Any) -> Node:
        return Node("left", constant_name(type(value)))


class _Opaque(Kind):
    """An object whose state cannot be taken; `Graph.missing` says why."""

    name = "opaque"
    described_as = "an object"


class _Named(Kind):
    """An object that describes itself by a name of its module."""

    name = "named"

    def make(self, build: Build, node: Node, live: Any) -> Any:
        return constant(node.own)


class _Described(Kind):
    """An object by its own description (``__reduce_ex__``): a callable, its arguments and a state.

    ``own``: the numbers of arguments and of items; ``refs``: the callable, arguments, state, items, keys and values.
    """

    name = "described"
    immutable = True
    rank = 2

    def take(self, walk: Walk, value: Any) -> Node:
        try:
            how = described(value)
        except Exception as error:  # whatever an object's own method raises
            return walk.opaque(value, str(error))
        if isinstance(how, str):
            module = getattr(value, "__module__", None) or type(value).__module__
            return Node("named", constant_name(type(value)), f"{module}:{how}")
        function, arguments, state, items, pairs = (*how, *_DEFAULT_STATE)[:5]
        arguments, items = list(arguments or ()), list(items or ())
        flat = [part for pair in pairs or () for part in pair]
        refs = walk.refs([function, *arguments, state, *items, *flat])
        return Node("described", walk.class_name(value), (len(arguments), len(items)), refs)

    def steps(self, node: Node) -> Iterator[str]:
        arguments, items = node.own
        yield ".__reduce_ex__"
        yield from (f".args[{index}]" for index in range(arguments))
        yield ".state"
        yield from (f"[{index}]" for index in range(items))
        for key in node.refs[arguments + 2 + items :: 2]:
            yield ".key"
            yield f"[{key!r}]"

    def pairs(self, node: Node, live: Any) -> Iterable[tuple[Ref, Any]]:
        try:
            how = described(live)
        except Exception:  # whatever the object's own code raises
            return ()
        if isinstance(how, str) or len(how[1] or ()) != node.own[0]:
            return ()
        parts = zip(node.refs, [how[0], *(how[1] or ()), *how[2:3]], strict=False)
        return [(ref, part) for ref, part in parts if not isinstance(part, _DESCRIBING)]

    def make(self, build: Build, node: Node, live: Any) -> Any:
        function, *arguments = map(build.ready, node.refs[: 1 + node.own[0]])
        return function(*arguments)

    def fill(self, build: Build, node: Node, held: Any) -> None:
        arguments, items = node.own
        rest = node.refs[1 + arguments :]
        if (state := build.value(rest[0])) is not None:
            _set_state(held, state)
        for item in rest[1 : 1 + items]:
            held.append(build.value(item))
        pairs = rest[1 + items :]
        for key, item in zip(pairs[::2], pairs[1::2], strict=True):
            held[build.value(key)] = build.value(item)


def _set_state(held: Any, state: Any) -> None:
    """As `pickle` gives a new object its state."""
    if hasattr(held, "__setstate__"):
        held.__setstate__(state)
        return
    own, slots = state if isinstance(state, tuple) and len(state) == 2 else (state, None)
    vars(held).update(own or {})
    for name, item in (slots or {}).items():
        object.__setattr__(held, name, item)


SHARED_OBJECT = _Shared()
OBJECT, CLASS, MEMBER, TOOL, LEFT = _Object(), _Class(), _Member(), _Tool(), _Left()
OPAQUE, NAMED, DESCRIBED = _Opaque(), _Named(), _Described()
OBJECTS: tuple[tuple[Any, Kind], ...] = (
    (enum.Enum, MEMBER),
    (torch.nn.Module, _Module()),
    (DataLoader, _Loader()),
)
