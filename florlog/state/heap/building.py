"""Building: every node gets its object, the live one or a new one, and every object its state.

Nothing live is changed before all objects are made and all new ones are filled, so that what cannot be put back is
found before.  Objects are filled by their kind's rank: those that others' hashes may depend on first.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from types import CodeType
from typing import Any

import torch

from florlog.errors import ImageError
from florlog.state.heap.graph import Graph, Node, Ref, is_node, references
from florlog.state.heap.kinds import KINDS
from florlog.state.heap.kinds.base import MISSING
from florlog.state.heap.matching import Matching
from florlog.state.heap.names import code_around, codes_by_name, constant
from florlog.state.heap.rules import slots_of
from florlog.state.tree import unflatten


class Builder:
    """Makes and fills the objects of one graph."""

    def __init__(
        self,
        graph: Graph,
        matching: Matching,
        memory: dict[int, torch.Tensor],
        codes: Iterable[tuple[str, CodeType]],
        place: Callable[[int], str],
        is_added: Callable[[Any], bool] | None,
    ) -> None:
        self.memory = memory
        self.is_added = is_added
        self._nodes = graph.nodes
        self._wholes = [region[1] for region in graph.regions if region[0] == "whole"]
        self._matching = matching
        self._codes = codes_by_name(codes)
        self._place = place
        self._held: list[Any] = [MISSING] * len(graph.nodes)  # the object of each node
        self._begun: set[int] = set()
        self._new: set[int] = set()
        self._filled: set[int] = set()

    # -- making ------------------------------------------------------------------------------------

    def make(self) -> None:
        """Make all that is missing, and fill it.  Raises `ImageError`; nothing live is changed."""
        for number in reversed(range(len(self._nodes))):  # parts have higher numbers: recursion stays shallow
            self._object(number)
        for number, node in enumerate(self._nodes):
            for ref in references(node):
                if type(ref) is tuple:
                    self._resolved(number, ref)
        self._fill(self._new)

    def _resolved(self, number: int, ref: Ref) -> None:
        try:
            self.value(ref)
        except ImageError as error:
            raise ImageError(f"{self._place(number)}: {error}") from None

    def _object(self, number: int) -> Any:
        held = self._held[number]
        if held is MISSING:
            live, node = self._matching.objects[number], self._nodes[number]
            held = (
                live if live is not MISSING and not KINDS[node.kind].immutable else self._make(number, live)
            )
            self._held[number] = held
        return held

    def _make(self, number: int, live: Any) -> Any:
        node = self._nodes[number]
        kind = KINDS[node.kind]
        if kind.described_as and live is MISSING:
            raise ImageError(f"{self._place(number)}, {kind.described_as} ({node.name}), does not exist yet")
        if number in self._begun:
            raise ImageError(f"{self._place(number)} contains itself")
        self._begun.add(number)
        try:
            made = kind.make(self, node, live)
        except ImageError:
            raise
        except Exception as error:  # whatever a class's own code raises
            raise ImageError(f"{self._place(number)} ({node.name}) cannot be made: {error}") from None
        if made is not live:
            self._new.add(number)
        return made

    # -- what kinds ask for ------------------------------------------------------------------------

    def value(self, ref: Ref) -> Any:
        if type(ref) is not tuple:
            return ref
        if ref[0] == "@":
            return self._object(ref[1])
        if ref[0] == "id":
            return id(self._object(ref[1]))
        if ref[0] == "is":
            return unflatten(ref[1], self._no_tensor)
        found = self._matching.constants.get(ref[1], MISSING)
        if found is MISSING:
            found = self._matching.constants[ref[1]] = constant(ref[1])
        return found

    def ready(self, ref: Ref) -> Any:
        held = self.value(ref)
        if is_node(ref):
            self._fill(self._unfilled(ref[1]))
        return held

    def _unfilled(self, number: int) -> set[int]:
        """The new objects that a node reaches through new objects, and that are not filled."""
        found: set[int] = set()
        ahead = [number]
        while ahead:
            number = ahead.pop()
            self._object(number)
            if number in found or number in self._filled or number not in self._new:
                continue
            found.add(number)
            ahead += [ref[1] for ref in references(self._nodes[number]) if is_node(ref)]
        return found

    def kind_named(self, name: str) -> Any:
        found = self._matching.classes.get(name)
        return self.value(("=", name)) if found is None else found

    def code(self, name: str, line: int) -> CodeType | None:
        if name not in self._codes:
            module = name.partition(":")[0]
            self._codes |= codes_by_name((module, code) for code in code_around(name))
        known = self._codes.get(name, [])
        codes = [code for code in known if code.co_firstlineno == line] or known
        return codes[0] if len(codes) == 1 else None

    def whole(self, number: int) -> torch.Tensor:
        held = self._wholes[number]
        assert isinstance(held, torch.Tensor)
        return held.clone()

    def put(self, held: Any, attributes: Mapping[str, Ref] | None, kept: Collection[str] = ()) -> None:
        own = getattr(held, "__dict__", None)
        kind: Any = type(held)
        slots = slots_of(kind)
        attributes = attributes or {}
        for name, ref in attributes.items():
            value = self.value(ref)
            if name in slots:
                object.__setattr__(held, name, value)
            elif own is not None and (name not in own or own[name] is not value):
                own[name] = value
        if own:
            for name in own.keys() - attributes.keys() - set(kept):
                if self.is_added is None or not self.is_added(own[name]):
                    del own[name]
        for slot in slots:
            if slot not in attributes and hasattr(held, slot):
                object.__delattr__(held, slot)

    # -- filling -----------------------------------------------------------------------------------

    def _fill(self, numbers: Collection[int]) -> None:
        left = [number for number in numbers if number not in self._filled]
        left.sort(key=lambda number: (KINDS[self._nodes[number].kind].rank, -number))
        self._filled.update(left)
        for number in left:
            node = self._nodes[number]
            try:
                KINDS[node.kind].fill(self, node, self._held[number])
            except Exception as error:  # a class's own code, or what this version of a library refuses
                raise ImageError(
                    f"{self._place(number)} ({node.name}) cannot be put back: {error}"
                ) from error

    def fill(self) -> None:
        """Give the live objects their state; then what has them as keys, as their hashes may be others now."""
        live = set(range(len(self._nodes))) - self._new
        self._fill(live)
        again = {number for number in self._new if self._has_live_keys(self._nodes[number])}
        self._filled -= again
        self._fill(again)

    def _has_live_keys(self, node: Node) -> bool:
        return KINDS[node.kind].rank == 1 and any(
            is_node(ref) and ref[1] not in self._new and _hashes_by_value(type(self._held[ref[1]]))
            for ref in node.refs
        )

    @staticmethod
    def _no_tensor(key: str) -> torch.Tensor:
        raise AssertionError(key)


def _hashes_by_value(kind: Any) -> bool:
    return kind.__hash__ is not object.__hash__
