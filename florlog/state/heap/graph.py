"""A captured graph as plain data.

A *node* stands for one object.  What an object holds of others are *references*:

    an atom        None, a bool, int, float, complex, str or bytes: the value itself
    ("@", n)       node number n
    ("id", n)      the id of node number n, where it is the key of a dict or the member of a set
    ("=", name)    a constant of a library, found by ``module:qualified name``
    ("is", s)      an immutable value with a codec (a date, a dtype, a device), as `florlog.state.tree.flatten` has it

Nodes are numbered in the order in which a breadth-first walk from the roots first meets them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

Ref: TypeAlias = Any
"""An atom, or a tuple: see above."""
TRACKED = "tracked"
"""The scope of tracked objects."""


@dataclass(slots=True)
class Node:
    """One object: what it is, what it holds that refers to nothing, and what it refers to.

    ``kind`` is a name in `florlog.state.heap.kinds.KINDS`, and says what ``own`` and the places in ``refs`` mean.
    ``name`` is that of its class, or of a function's code.
    """

    kind: str
    name: str
    own: Any = None
    refs: Sequence[Ref] = ()
    attributes: dict[str, Ref] | None = None


@dataclass(slots=True)
class Graph:
    """A captured graph.  ``roots``: scope -> name -> reference; ``missing``: place -> what could not be captured;
    ``gone``: scope -> names that there were and are no more.

    ``regions``: the memory that tensors and arrays view; see `florlog.state.heap.memory`.
    """

    roots: dict[str, dict[str, Ref]]
    nodes: list[Node]
    regions: list[Any]
    missing: dict[str, str] = field(default_factory=dict)
    gone: dict[str, list[str]] = field(default_factory=dict)


def is_node(ref: Ref) -> bool:
    """Whether a reference is to a node."""
    return type(ref) is tuple and ref[0] == "@"


def references(node: Node) -> Iterator[Ref]:
    """All references of a node."""
    yield from node.refs
    if node.attributes:
        yield from node.attributes.values()


Steps: TypeAlias = Callable[[Node], Iterable[str]]
"""Names the references of a node: those in ``refs``, then the attributes."""

_MAX_PLACE_CHARACTERS = 120


def places(graph: Graph, steps: Steps) -> Callable[[int], str]:
    """Gives the way to a node, as a person would write it, by which it is first reached from the roots."""
    reached: dict[int, tuple[int, str]] = {}
    ahead: deque[tuple[int, Ref, str]] = deque()
    for names in graph.roots.values():
        ahead.extend((-1, ref, name) for name, ref in names.items())
    while ahead:
        parent, ref, step = ahead.popleft()
        if not is_node(ref) or ref[1] in reached:
            continue
        reached[ref[1]] = parent, step
        node = graph.nodes[ref[1]]
        ahead.extend((ref[1], held, name) for held, name in zip(references(node), steps(node), strict=False))

    def place(number: int) -> str:
        parts = []
        while number >= 0:
            number, step = reached.get(number, (-1, graph.nodes[number].name))
            parts.append(step)
        text = "".join(reversed(parts))
        return text if len(text) <= _MAX_PLACE_CHARACTERS else f"{text[:80]}...{text[-30:]}"

    return place


def root_of(roots: Mapping[str, Mapping[str, Ref]], ref: Ref) -> str:
    """The first name that is bound to a node, "" if none is."""
    return next((name for names in roots.values() for name, held in names.items() if held == ref), "")
