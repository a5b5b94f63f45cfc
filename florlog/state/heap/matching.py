"""Matching: nodes are paired with live objects by walking both from the same names; a live object is paired once."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

from florlog.errors import ImageError
from florlog.state.heap.graph import TRACKED, Graph, Ref, is_node
from florlog.state.heap.kinds import KINDS
from florlog.state.heap.kinds.base import MISSING
from florlog.state.heap.names import constant, constant_name
from florlog.state.tree import unflatten


class Matching:
    """What was paired: ``objects`` by number, `MISSING` where there is none; ``classes`` and ``constants`` by name."""

    def __init__(self, graph: Graph, live: Mapping[str, Mapping[str, Any]]) -> None:
        self.objects: list[Any] = [MISSING] * len(graph.nodes)
        self.classes: dict[str, type] = {}
        self.constants: dict[str, Any] = {}
        self._nodes = graph.nodes
        self._taken: set[int] = set()
        self._begun: set[int] = set()
        self._ahead: deque[tuple[Ref, Any]] = deque()
        # What is tracked first, with all that it reaches: its tensors have their numbers already, and another way to
        # the same node (a variable that keeps an optimizer's state_dict) may still lead to what an image replaces.
        for scope in sorted(graph.roots, key=lambda scope: scope != TRACKED):
            held = live.get(scope, {})
            self._ahead.extend((ref, held[name]) for name, ref in graph.roots[scope].items() if name in held)
            if scope == TRACKED:
                self._run()
        self._run()
        while self._begin():
            self._run()

    def _begin(self) -> bool:
        """Begin what needs to be there for others to be found; whether anything was begun."""
        for number, node in enumerate(self._nodes):
            if self.objects[number] is not MISSING or number in self._begun:
                continue
            made = KINDS[node.kind].begin(node, self._known)
            if made is not MISSING:
                self._begun.add(number)
                self._ahead.append((("@", number), made))
                return True
        return False

    def _known(self, ref: Ref) -> Any:
        if type(ref) is not tuple:
            return ref
        if is_node(ref):
            return self.objects[ref[1]]
        return unflatten(ref[1], _no_tensor) if ref[0] == "is" else constant(ref[1])

    def _run(self) -> None:
        waiting: list[
            tuple[Ref, Ref, Any]
        ] = []  # of a mapping: a key that is an object, its value, the live mapping
        while self._ahead:
            while self._ahead:
                waiting += self._pair(*self._ahead.popleft())
            waiting = [entry for entry in waiting if not self._look_up(*entry)]

    def _pair(self, ref: Ref, value: Any) -> list[tuple[Ref, Ref, Any]]:
        if (
            type(ref) is tuple
            and ref[0] == "="
            and ref[1] not in self.constants
            and constant_name(value) == ref[1]
        ):
            self.constants[ref[1]] = value
        if (
            not is_node(ref)
            or value is MISSING
            or self.objects[ref[1]] is not MISSING
            or id(value) in self._taken
        ):
            return []
        node = self._nodes[ref[1]]
        kind = KINDS[node.kind]
        if not kind.fits(node, value):
            return []
        self.objects[ref[1]] = value
        self._taken.add(id(value))
        if isinstance(value, type):
            self.classes[node.name] = value
        self._ahead.extend(kind.pairs(node, value))
        own = getattr(value, "__dict__", None) or {}
        for name, held in (node.attributes or {}).items():
            if type(held) is tuple:
                part = own.get(name, MISSING)
                self._ahead.append((held, _slot(value, name) if part is MISSING else part))
        return [(key, item, value) for key, item in kind.keyed(node)]

    def _look_up(self, key: Ref, item: Ref, mapping: dict[Any, Any]) -> bool:
        """Pair the value of a key that is an object, once that object is matched."""
        if key[0] == "@":
            known = self.objects[key[1]]
        elif key[0] == "id":
            known = self.objects[key[1]]
            known = known if known is MISSING else id(known)
        elif key[0] == "is":
            known = unflatten(key[1], _no_tensor)
        else:
            known = self.constants.get(key[1], MISSING)
        if known is MISSING:
            return False
        try:
            self._ahead.append((item, dict.get(mapping, known, MISSING)))
        except TypeError:  # unhashable: what was paired is another kind of key
            pass
        return True


def _slot(value: Any, name: str) -> Any:
    try:
        return object.__getattribute__(value, name)
    except AttributeError:
        return MISSING


def _no_tensor(key: str) -> Any:
    raise ImageError(f"a value of the image has a tensor ({key})")
