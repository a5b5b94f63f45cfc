"""Restoring a graph: the live objects get the captured state back, in place, and those that are missing are made.

First nodes are matched with live objects.  Then what is missing is made and filled; what cannot be is an error, and
until here nothing live was changed.  Then every live object gets its parts.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch.utils.hooks import RemovableHandle

from florlog.errors import ImageError
from florlog.state.heap.anchors import Anchors
from florlog.state.heap.building import Builder
from florlog.state.heap.graph import Graph, is_node, places
from florlog.state.heap.kinds import KINDS, steps_of
from florlog.state.heap.kinds.base import MISSING
from florlog.state.heap.matching import Matching


def restore(
    graph: Graph,
    live: Mapping[str, Mapping[str, Any]],
    codes: Iterable[tuple[str, types.CodeType]] = (),
    is_added: Callable[[Any], bool] | None = None,
) -> dict[str, dict[str, Any]]:
    """Put a graph's state into the live objects; what each name of each scope is to be bound to.

    ``live``: scope -> name -> value, as the program has them now.  ``codes``: modules' names with their code, for
    functions that have to be made anew.  ``is_added``: whether something was made by code that the recorded program
    does not have, as a hook may be; it stays in mappings and attributes.  Raises `ImageError`, with the place of the
    object, where the state cannot be put back; then nothing was changed.
    """
    place = _Places(graph)
    matching = Matching(graph, live)
    _check(graph, matching, place)
    anchors = Anchors(graph, matching.objects, place)
    builder = Builder(graph, matching, anchors.memory, codes, place, is_added)
    builder.make()
    found = {
        scope: {name: builder.value(ref) for name, ref in names.items()}
        for scope, names in graph.roots.items()
    }
    anchors.fill()
    builder.fill()
    _continue_hooks(graph)
    return found


class _Places:
    """The way to a node, found only for messages."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._place: Callable[[int], str] | None = None

    def __call__(self, number: int) -> str:
        self._place = self._place or places(self._graph, steps_of)
        return self._place(number)


def _check(graph: Graph, matching: Matching, place: Callable[[int], str]) -> None:
    for number, node in enumerate(graph.nodes):
        held = matching.objects[number]
        if held is not MISSING and (why := KINDS[node.kind].refusal(node, held)):
            raise ImageError(f"{place(number)} ({node.name}) {why}")


def _continue_hooks(graph: Graph) -> None:
    """Let torch number the next hook after all that there are: two of one number replace each other."""
    for node in graph.nodes:
        for name, ref in (node.attributes or {}).items():
            if "hooks" in name and is_node(ref) and graph.nodes[ref[1]].kind == "dict":
                numbers = [key for key in graph.nodes[ref[1]].refs[::2] if type(key) is int]
                RemovableHandle.next_id = max(RemovableHandle.next_id, *(number + 1 for number in numbers), 0)
