"""Generators: where one stands cannot be taken, so only those that have not begun, or have ended, are state."""

from __future__ import annotations

import inspect
import types
from collections.abc import Iterable, Iterator
from typing import Any

from florlog.state.heap.graph import Node, Ref
from florlog.state.heap.kinds.base import Build, Kind, Walk
from florlog.state.heap.names import code_name
from florlog.state.heap.rules import ATOMS
from florlog.state.user_code import is_own_generator


class _Generator(Kind):
    """A generator that has not begun: the set-up makes it anew, and its arguments are state.

    One that has begun is opaque: where it stands cannot be put back.  ``own``: the names of its variables.
    """

    name = "generator"
    described_as = "a generator"

    def take(self, walk: Walk, value: Any) -> Node:
        if not isinstance(value, types.GeneratorType):
            return walk.opaque(value, "where a coroutine stands cannot be taken")
        if is_own_generator(value):
            return Node("left", "builtins:generator")
        if value.gi_frame is None:
            return Node("ended", "builtins:generator")
        if inspect.getgeneratorstate(value) != inspect.GEN_CREATED:
            return walk.opaque(value, "where a generator stands cannot be taken")
        held = _variables(value)
        return Node("generator", _generator_name(value), tuple(held), walk.refs(held.values()))

    def steps(self, node: Node) -> Iterator[str]:
        return (f".{name}" for name in node.own)

    def fits(self, node: Node, live: Any) -> bool:
        return isinstance(live, types.GeneratorType) and _generator_name(live) == node.name

    def pairs(self, node: Node, live: Any) -> Iterable[tuple[Ref, Any]]:
        return zip(node.refs, _variables(live).values(), strict=False) if live.gi_frame is not None else ()

    def refusal(self, node: Node, live: Any) -> str:
        if inspect.getgeneratorstate(live) != inspect.GEN_CREATED:
            return "has begun, and cannot be started again"
        held = _variables(live)
        for name, ref in zip(node.own, node.refs, strict=True):
            if type(ref) in ATOMS and (type(held.get(name)) is not type(ref) or held[name] != ref):
                return "was made with other arguments"
        return ""


def _variables(generator: Any) -> dict[str, Any]:
    """The variables of a generator that has not begun, those that it closes over as their contents."""
    return dict(generator.gi_frame.f_locals)


def _generator_name(generator: Any) -> str:
    return code_name(generator.gi_code)


_NOTHING: tuple[None, ...] = ()


class _Ended(Kind):
    """A generator that has ended."""

    name = "ended"

    def make(self, build: Build, node: Node, live: Any) -> Any:
        made = (item for item in _NOTHING)
        next(made, None)
        return made

    def fits(self, node: Node, live: Any) -> bool:
        return (
            isinstance(live, types.GeneratorType) and inspect.getgeneratorstate(live) != inspect.GEN_RUNNING
        )

    def fill(self, build: Build, node: Node, held: Any) -> None:
        held.close()


ENDED = _Ended()
GENERATORS: tuple[tuple[Any, Kind], ...] = (
    ((types.GeneratorType, types.CoroutineType, types.AsyncGeneratorType), _Generator()),
)
