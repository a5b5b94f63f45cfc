"""Lists, deques, sets, tuples and mappings, subclasses with attributes included."""

from __future__ import annotations

import random
from collections import OrderedDict, defaultdict, deque
from collections.abc import Iterable, Iterator
from typing import Any

from florlog.state.heap.graph import Node, Ref
from florlog.state.heap.kinds.base import MISSING, Build, Kind, Walk, all_same
from florlog.state.heap.names import constant_name
from florlog.state.heap.rules import ATOMS

_MAX_SMALL_ITEMS = 32
_MAX_TRIES = 150
_TRIES_OF_ONE_ORDER = 8
"""Orders in which the items of a small set, and of a larger one, are added until one gives the order that they had."""


class _Container(Kind):
    """A container.  Instances of a subclass have attributes too; the base's methods read and write their items."""

    bases: tuple[Any, ...]

    def head(self, walk: Walk, value: Any) -> tuple[str, dict[str, Ref] | None]:
        """The class and the attributes; None for a plain container, which has none."""
        if type(value) in self.bases:
            return constant_name(type(value)), None
        return walk.class_name(value), walk.attributes(value)

    def pairs(self, node: Node, live: Any) -> Iterable[tuple[Ref, Any]]:
        return zip(node.refs, live, strict=False)

    def make(self, build: Build, node: Node, live: Any) -> Any:
        kind = build.kind_named(node.name)
        return layout_of(kind).__new__(kind)  # a subclass's own __new__ may do more

    def fill(self, build: Build, node: Node, held: Any) -> None:
        if node.attributes is not None:  # an immutable container got its items when it was made
            build.put(held, node.attributes)


class _List(_Container):
    name = "list"
    bases = (list,)

    def take(self, walk: Walk, value: Any) -> Node:
        kind, attributes = self.head(walk, value)
        items = list.copy(value) if ATOMS.issuperset(map(type, value)) else walk.refs(list.__iter__(value))
        return Node("list", kind, None, items, attributes)

    def pairs(self, node: Node, live: Any) -> Iterable[tuple[Ref, Any]]:
        return zip(node.refs, list.__iter__(live), strict=False)

    def fill(self, build: Build, node: Node, held: Any) -> None:
        list.__setitem__(held, slice(None), list(map(build.value, node.refs)))
        build.put(held, node.attributes)


class _Deque(_Container):
    name = "deque"
    bases = (deque,)

    def take(self, walk: Walk, value: Any) -> Node:
        kind, attributes = self.head(walk, value)
        return Node("deque", kind, value.maxlen, walk.refs(deque.__iter__(value)), attributes)

    def fits(self, node: Node, live: Any) -> bool:
        return super().fits(node, live) and live.maxlen == node.own

    def make(self, build: Build, node: Node, live: Any) -> Any:
        made = super().make(build, node, live)
        deque.__init__(made, (), node.own)
        return made

    def fill(self, build: Build, node: Node, held: Any) -> None:
        items = list(map(build.value, node.refs))
        deque.clear(held)
        deque.extend(held, items)
        build.put(held, node.attributes)


class _Tuple(_Container):
    name = "tuple"
    immutable = True
    bases = (tuple,)

    def take(self, walk: Walk, value: Any) -> Node:
        kind, attributes = self.head(walk, value)
        return Node("tuple", kind, None, walk.refs(tuple.__iter__(value)), attributes)

    def make(self, build: Build, node: Node, live: Any) -> Any:
        items = list(map(build.value, node.refs))
        if live is not MISSING and all_same(tuple.__iter__(live), items):
            return live
        made: Any = tuple.__new__(build.kind_named(node.name), items)
        return made


class _AnySet(_Container):
    rank = 1
    bases = (set, frozenset)

    def take(self, walk: Walk, value: Any) -> Node:
        base: Any = set if isinstance(value, set) else frozenset
        kind, attributes = self.head(walk, value)
        items = list(base.__iter__(value))
        atoms = [item for item in items if type(item) in ATOMS]
        atoms.sort(key=lambda item: (type(item).__name__, repr(item)))
        if len(atoms) == len(items):
            return Node(self.name, kind, None, atoms, attributes)
        others = sorted((item for item in items if type(item) not in ATOMS), key=walk.order)
        return Node(self.name, kind, None, [*atoms, *walk.refs(others)], attributes)

    def steps(self, node: Node) -> Iterator[str]:
        return (".member()" for _ in node.refs)

    def pairs(self, node: Node, live: Any) -> Iterable[tuple[Ref, Any]]:
        return ()  # nothing shows which member is which


def _fill_in_order(held: set[Any], items: list[Any]) -> None:
    """Fill a set so that what is no atom of it is iterated in the order of ``items``, if a way to do that is found.

    Items whose hashes collide are iterated in an order that depends on which of them came first, and on when the set
    grew.  So where another item is in the place of one, that one is added before it the next time; now and then all
    begins with another order.
    """
    chance, order = random.Random(0), list(items)
    others = [item for item in items if type(item) not in ATOMS]
    for number in range(1, _MAX_TRIES if len(items) <= _MAX_SMALL_ITEMS else _TRIES_OF_ONE_ORDER):
        set.clear(held)
        set.update(held, order)
        now = (item for item in set.__iter__(held) if type(item) not in ATOMS)
        found = ((item, other) for item, other in zip(others, now, strict=False) if item is not other)
        if (pair := next(found, None)) is None:
            return
        if number % _TRIES_OF_ONE_ORDER == 0:
            order = chance.sample(items, len(items))
            continue
        order = [one for one in order if one is not pair[0]]
        order.insert(next(place for place, one in enumerate(order) if one is pair[1]), pair[0])


class _Set(_AnySet):
    name = "set"

    def fill(self, build: Build, node: Node, held: Any) -> None:
        items = list(map(build.value, node.refs))
        _fill_in_order(held, items)
        build.put(held, node.attributes)


class _FrozenSet(_AnySet):
    name = "frozenset"
    immutable = True

    def make(self, build: Build, node: Node, live: Any) -> Any:
        items = list(map(build.ready, node.refs))
        kind = build.kind_named(node.name)
        if live is not MISSING and type(live) is kind and len(live) == len(items):
            known = {id(item) for item in live}
            if all(id(item) in known or (type(item) in ATOMS and item in live) for item in items):
                return live
        return frozenset.__new__(kind, items)


class _Dict(_Container):
    """``refs`` are keys and values in turn; a defaultdict's factory comes before them."""

    name = "dict"
    rank = 1
    bases = (dict, OrderedDict, defaultdict)

    def take(self, walk: Walk, value: Any) -> Node:
        if not value and type(value) is dict:
            return Node("dict", "builtins:dict", False, ())
        kind, attributes = self.head(walk, value)
        items: list[Any] = []
        with_factory = isinstance(value, defaultdict)
        if with_factory:
            items.append(value.default_factory)
        for pair in _base(type(value)).items(value):
            if walk.is_added is None or not walk.is_added(pair[1]):
                items += pair
        return Node("dict", kind, with_factory, walk.refs(items), attributes)

    def steps(self, node: Node) -> Iterator[str]:
        if node.own:
            yield ".default_factory"
        for index, key in enumerate(node.refs[node.own :: 2]):
            yield f".key({index})"
            yield f"[{index if type(key) is tuple else repr(key)}]"

    def pairs(self, node: Node, live: Any) -> Iterable[tuple[Ref, Any]]:
        if node.own:
            yield node.refs[0], live.default_factory
        base = _base(type(live))
        others = [key for key in base.keys(live) if type(key) not in ATOMS]
        keys, values = node.refs[node.own :: 2], node.refs[node.own + 1 :: 2]
        yield from zip((key for key in keys if type(key) is tuple and key[0] != "id"), others, strict=False)
        for key, item in zip(keys, values, strict=True):
            if type(key) is not tuple and (found := dict.get(live, key, MISSING)) is not MISSING:
                yield item, found

    def keyed(self, node: Node) -> Iterable[tuple[Ref, Ref]]:
        keys, values = node.refs[node.own :: 2], node.refs[node.own + 1 :: 2]
        return [(key, item) for key, item in zip(keys, values, strict=True) if type(key) is tuple]

    def fill(self, build: Build, node: Node, held: Any) -> None:
        parts = list(map(build.value, node.refs))
        base = _base(type(held))
        added = (
            [] if build.is_added is None else [pair for pair in base.items(held) if build.is_added(pair[1])]
        )
        base.clear(held)
        for key, item in zip(parts[node.own :: 2], parts[node.own + 1 :: 2], strict=True):
            base.__setitem__(held, key, item)
        for key, item in added:  # such as a hook, under a number that another hook had when recorded
            numbers = [number for number in base.keys(held) if type(number) is int]
            base.__setitem__(held, max(numbers) + 1 if key in numbers else key, item)
        if node.own:
            held.default_factory = parts[0]
        build.put(held, node.attributes)


def _base(kind: type) -> Any:
    """The class whose C methods read and write a mapping; a subclass's own methods may do more."""
    return OrderedDict if issubclass(kind, OrderedDict) else dict


LIST, DEQUE, TUPLE, SET, FROZENSET, DICT = _List(), _Deque(), _Tuple(), _Set(), _FrozenSet(), _Dict()
CONTAINERS: tuple[tuple[type, Kind], ...] = (
    (list, LIST),
    (dict, DICT),
    (tuple, TUPLE),
    (set, SET),
    (frozenset, FROZENSET),
    (deque, DEQUE),
)


def layout_of(kind: type) -> Any:
    """The built-in class that decides how an instance of a container's class is laid out in memory."""
    if issubclass(kind, defaultdict):
        return defaultdict
    return next(base for base in kind.__mro__ if base.__module__ in ("builtins", "collections"))
