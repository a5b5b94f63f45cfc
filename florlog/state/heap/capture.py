"""Capturing a graph: a breadth-first walk from names to all that they reach."""

from __future__ import annotations

import gc
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

import torch
from torch.utils.data import Dataset

from florlog.program.terminal import reason
from florlog.state.heap import kinds
from florlog.state.heap.graph import Graph, Node, Ref, references, root_of
from florlog.state.heap.kinds import steps_of
from florlog.state.heap.kinds.base import Kind
from florlog.state.heap.kinds.objects import LEFT, TOOL
from florlog.state.heap.memory import Constants, Memory
from florlog.state.heap.names import constant_name
from florlog.state.heap.rules import ATOMS, is_constant, is_immutable, is_program_class, slots_of
from florlog.state.heap.spent import spent
from florlog.state.pending import Pending
from florlog.state.tree import flatten

_ALWAYS_NODES = frozenset({list, dict, set, OrderedDict, torch.Tensor, torch.nn.Parameter})
"""What need not be asked whether it is constant or immutable."""
_MAX_MISSING = 20
"""How many of the things that cannot be taken are named: there may be thousands, and one is enough to have no image."""
_MIN_ID = 1 << 16
"""No object lies at a lower address."""
__all__ = ["Graph", "capture"]


def capture(
    roots: Mapping[str, Mapping[str, Any]],
    tracked: Iterable[torch.Tensor] = (),
    *,
    left: Collection[int] = (),
    gradients: Collection[int] = (),
    constants: Constants | None = None,
    is_added: Callable[[Any], bool] | None = None,
) -> Graph:
    """The graph of all that is reachable from names.

    ``tracked``: tensors whose bytes are kept elsewhere; ``left``: ids of objects that are left as they are;
    ``gradients``: ids of those that are left out (`florlog.state.left_out`);
    ``constants``: what is known of large memory from earlier captures of the same process; ``is_added``: whether what a
    mapping or an attribute holds was made by code that the recorded program does not have, and is left out.

    Raises `florlog.state.pending.Pending` where a tensor still waits for its backward pass.
    """
    collecting = gc.isenabled()
    gc.disable()  # a collection would run finalizers of the program, and finds nothing: all that is met is kept
    try:
        return _Walk(Memory(tracked, constants), left, gradients, is_added).run(roots)
    finally:
        if collecting:
            gc.enable()


def _after_others(member: Ref) -> int:
    """Sorts ids by the numbers of their nodes, after all other members of a set."""
    return member[1] if type(member) is tuple and member[0] == "id" else -1


class _Walk:
    def __init__(
        self,
        memory: Memory,
        left: Collection[int],
        gradients: Collection[int],
        is_added: Callable[[Any], bool] | None,
    ) -> None:
        self.memory = memory
        self.gradients = gradients
        self.is_added = is_added
        self._left = left
        self._roots: dict[str, dict[str, Ref]] = {}
        self._nodes: list[Node] = []
        self._objects: list[Any] = []  # by number; kept, so that no id is used twice
        self._parents: list[int] = []  # the node from which each was first reached
        self._refs: dict[int, Ref] = {}  # by id
        self._classes: dict[type, str] = {}
        self._missing: dict[str, str] = {}
        self._at = -1

    def run(self, roots: Mapping[str, Mapping[str, Any]]) -> Graph:
        for scope, names in roots.items():
            self._roots[scope] = self.named(names)
        nodes, objects, left = self._nodes, self._objects, self._left
        kind_of: Callable[[Any], Kind] = kinds.kind_of
        while (at := len(nodes)) < len(objects):
            self._at = at
            value = objects[at]
            kind = LEFT if id(value) in left else kind_of(type(value))
            try:
                nodes.append(kind.take(self, value))
            except Pending:
                raise
            except Exception as error:  # whatever an object's own code raises
                nodes.append(self.opaque(value, f"{type(error).__name__}: {reason(error)}"))
        self._translate_ids()
        return Graph(self._roots, nodes, self.memory.regions(), self._missing)

    def _translate_ids(self) -> None:
        """Let keys of dicts, and members of sets, that are the ids of captured objects refer to these."""
        numbers: dict[int, int] = {}
        for node in self._nodes:
            if node.kind == "dict":
                places = range(node.own, len(node.refs), 2)
            elif node.kind in ("set", "frozenset"):
                places = range(len(node.refs))
            else:
                continue
            for place in places:
                key = node.refs[place]
                if type(key) is int and key > _MIN_ID:
                    numbers = numbers or {id(value): number for number, value in enumerate(self._objects)}
                    if (number := numbers.get(key)) is not None:
                        node.refs = [*node.refs[:place], ("id", number), *node.refs[place + 1 :]]
            if node.kind != "dict" and any(type(ref) is tuple and ref[0] == "id" for ref in node.refs):
                node.refs = sorted(node.refs, key=_after_others)  # ids were in an order of this process

    # -- references --------------------------------------------------------------------------------

    def ref(self, value: Any) -> Ref:
        if type(value) in ATOMS:
            return value
        known = self._refs.get(id(value))
        return self._met(value) if known is None else known

    def _met(self, value: Any) -> Ref:
        """The reference to what was not met before."""
        if type(value) in _ALWAYS_NODES:
            made: Ref = ("@", len(self._objects))
            self._objects.append(value)
            self._parents.append(self._at)
        elif type(value) is tuple and ATOMS.issuperset(map(type, value)):
            return ("is", ("v", value))  # which of two equal ones it is, nothing depends on
        elif is_constant(value):
            made = ("=", constant_name(value))
        elif is_immutable(value):
            return ("is", flatten(value, "")[0])
        else:
            made = ("@", len(self._objects))
            self._objects.append(value)
            self._parents.append(self._at)
        self._refs[id(value)] = made
        return made

    def refs(self, values: Iterable[Any]) -> list[Ref]:
        known, met = self._refs, self._met
        return [value if type(value) in ATOMS else known.get(id(value)) or met(value) for value in values]

    def named(self, attributes: Mapping[str, Any]) -> dict[str, Ref]:
        known, met = self._refs, self._met
        return {
            name: value if type(value) in ATOMS else known.get(id(value)) or met(value)
            for name, value in attributes.items()
        }

    def class_name(self, value: Any) -> str:
        kind = type(value)
        name = self._classes.get(kind)
        if name is None:
            name = self._classes[kind] = constant_name(kind)
            if is_program_class(kind):
                self.ref(kind)
        return name

    def attributes(self, value: Any, own: Mapping[str, Any] | None = None) -> dict[str, Ref]:
        held = (getattr(value, "__dict__", None) or {}) if own is None else own
        if self.is_added is not None:
            held = {name: part for name, part in held.items() if not self.is_added(part)}
        if others := spent(value):
            held = {**held, **others}
        kind: Any = type(value)
        if slots := slots_of(kind):
            held = dict(held)
            for slot in slots:
                try:
                    held[slot] = object.__getattribute__(value, slot)
                except AttributeError:
                    continue
        return self.named(held)

    def order(self, item: Any) -> tuple[Any, ...]:
        known = self._refs.get(id(item), ("@", len(self._objects)))
        held = {name: part for name, part in getattr(item, "__dict__", {}).items() if type(part) in ATOMS}
        number = known[1] if known[0] == "@" else -1
        return (number, constant_name(item if number < 0 else type(item)), repr(sorted(held.items())))

    # -- what cannot be taken ----------------------------------------------------------------------

    def place(self) -> str:
        steps = []
        number = self._at
        while number >= 0:
            parent, ref = self._parents[number], ("@", number)
            if parent < 0:
                steps.append(root_of(self._roots, ref))
            else:
                node = self._nodes[parent]
                names = steps_of(node)
                found = (name for held, name in zip(references(node), names, strict=False) if held == ref)
                steps.append(next(found, ".__class__"))
            number = parent
        return "".join(reversed(steps))

    def opaque(self, value: Any, why: str) -> Node:
        name = constant_name(type(value))
        if self._is_data():
            return Node(TOOL.name, name)
        if len(self._missing) < _MAX_MISSING:
            self._missing[self.place()] = f"{name}: {why}"
        return Node("opaque", name)

    def _is_data(self) -> bool:
        """Whether the present object is reached through a data set: what it reads is no state of the training."""
        number = self._at
        while number >= 0:
            if isinstance(self._objects[number], Dataset):
                return True
            number = self._parents[number]
        return False
