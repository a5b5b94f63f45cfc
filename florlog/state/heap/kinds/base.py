"""What each kind of node knows: how its objects are taken, matched, made and filled."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any, ClassVar, Protocol

import torch

from florlog.state.heap.graph import Node, Ref
from florlog.state.heap.memory import Memory

MISSING: Any = object()
"""Stands for an object that there is not."""


class Walk(Protocol):
    """What a kind needs of the walk that captures."""

    memory: Memory
    gradients: Collection[int]
    """The ids of gradients that are left out."""
    is_added: Callable[[Any], bool] | None
    """Whether something was made by code that the recorded program does not have; None where there is no such code."""

    def ref(self, value: Any) -> Ref:
        """The reference to a value."""

    def refs(self, values: Iterable[Any]) -> list[Ref]:
        """The references to values."""

    def named(self, attributes: Mapping[str, Any]) -> dict[str, Ref]:
        """The references to values by name."""

    def attributes(self, value: Any, own: Mapping[str, Any] | None = None) -> dict[str, Ref]:
        """The references to what an object has in its ``__dict__``, or what of it is given, and in its slots."""

    def class_name(self, value: Any) -> str:
        """The name of an object's class; a class of the program is state of its own, and reached from here."""

    def order(self, item: Any) -> tuple[Any, ...]:
        """A key that orders members of a set as another process would."""

    def place(self) -> str:
        """The way to the object that is taken."""

    def opaque(self, value: Any, why: str) -> Node:
        """The node of an object whose state cannot be taken."""


class Build(Protocol):
    """What a kind needs of what builds the objects of a graph."""

    memory: dict[int, torch.Tensor]
    is_added: Callable[[Any], bool] | None
    """As of `Walk`."""

    def value(self, ref: Ref) -> Any:
        """What a reference stands for; it may not be filled yet."""

    def ready(self, ref: Ref) -> Any:
        """As `value`, but an object that was made now is filled, and so is what it holds."""

    def kind_named(self, name: str) -> Any:
        """A class by its name."""

    def code(self, name: str, line: int) -> Any:
        """The code of a function by its name, None where it is not known; the line decides between several."""

    def whole(self, number: int) -> torch.Tensor:
        """A tensor that is kept as a whole and not as a view of a region."""

    def put(
        self, held: Any, attributes: Mapping[str, Ref] | None, kept: frozenset[str] = frozenset()
    ) -> None:
        """Give an object its attributes, and no others but those ``kept``."""


class Kind:
    """One kind of node.  The methods' defaults are those of a kind without references."""

    name: ClassVar[str]
    immutable: ClassVar[bool] = False
    """Whether the live object is kept only where it is what would be made."""
    rank: ClassVar[int] = 0
    """When it is filled: 0 first; 1 after what its parts' hashes may depend on; 2 after what it looks into."""
    described_as: ClassVar[str] = ""
    """Of a kind that cannot be made: what a message calls it."""

    def take(self, walk: Walk, value: Any) -> Node:
        """The node of an object."""
        raise NotImplementedError

    def steps(self, node: Node) -> Iterator[str]:
        """How a person writes the way along each of ``node.refs``."""
        return (f"[{index}]" for index in range(len(node.refs)))

    def compared(self, node: Node) -> Any:
        """What of ``node.own`` is state; the rest says how it was found."""
        return node.own

    def fits(self, node: Node, live: Any) -> bool:
        """Whether a live object may take the node's place."""
        kind = type(live)
        return not isinstance(live, type) and f"{kind.__module__}:{kind.__qualname__}" == node.name

    def pairs(self, node: Node, live: Any) -> Iterable[tuple[Ref, Any]]:
        """References in ``node.refs``, each with what a live object has in its place."""
        return ()

    def keyed(self, node: Node) -> Iterable[tuple[Ref, Ref]]:
        """Of a mapping: keys that are objects, with their values."""
        return ()

    def begin(self, node: Node, known: Callable[[Ref], Any]) -> Any:
        """A live object for a node that none was found for, where one has to be there before others can be made.

        ``known`` gives what was found for a reference, or `MISSING`.
        """
        return MISSING

    def refusal(self, node: Node, live: Any) -> str:
        """Why a live object that fits cannot be put into the node's state, "" if it can."""
        return ""

    def make(self, build: Build, node: Node, live: Any) -> Any:
        """A new object, or ``live`` (`MISSING` if there is none) of an immutable kind where that is the same."""
        raise NotImplementedError

    def fill(self, build: Build, node: Node, held: Any) -> None:
        """Give an object its state."""


def same(one: Any, other: Any) -> bool:
    """Whether two parts are one object, equal atoms, or tuples of such parts."""
    if one is other:
        return True
    if type(one) is not type(other):
        return False
    if type(one) is tuple:
        return all_same(one, other)
    return isinstance(one, (int, float, str, bytes)) and repr(one) == repr(other)


def all_same(ones: Iterable[Any], others: Iterable[Any]) -> bool:
    """Whether two series have the same parts."""
    mine, theirs = list(ones), list(others)
    return len(mine) == len(theirs) and all(map(same, mine, theirs))
