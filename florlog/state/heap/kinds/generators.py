"""Generators: at which ``yield`` they wait, their variables, and the iterators of the loops that they are in.

Python lets nobody set where a generator stands.  So a live one is let run until it waits at the same ``yield``, which
is one item for most; where the set-up made none, its function is called again with the arguments that its variables
name.  Then its variables are written, and the iterators of its loops moved, all in place: what it did on the way
does not matter.  An iterator over a DataLoader consists of such generators, and is captured with them.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from florlog.errors import ImageError
from florlog.state.cpython import can_write_variables, writable_variables
from florlog.state.cpython_generators import can_see_stacks, stack_of, suspended_at
from florlog.state.heap.graph import Node, Ref
from florlog.state.heap.kinds.base import MISSING, Build, Kind, Walk
from florlog.state.heap.names import code_name, constant
from florlog.state.user_code import is_own_generator

_MAX_ITEMS = 10_000  # that a generator may give on the way to where it waited


class _Generator(Kind):
    """``own``: the number of the ``yield``, how often its stack holds something, the names of its variables;
    ``refs``: what is on its stack, and the variables.
    """

    name = "generator"

    def take(self, walk: Walk, value: Any) -> Node:
        if not isinstance(value, types.GeneratorType):
            return walk.opaque(value, "where a coroutine stands cannot be taken")
        is_restored = value.gi_code is _nothing.__code__
        if (is_own_generator(value) and not is_restored) or value.gi_running:
            return Node("left", "builtins:generator")
        if value.gi_frame is None:
            return Node("ended", "builtins:generator")
        if not (can_see_stacks() and can_write_variables()):
            return walk.opaque(value, "where a generator stands cannot be taken with this Python")
        variables = dict(value.gi_frame.f_locals)
        stack = stack_of(value)
        own = (suspended_at(value), len(stack), tuple(variables))
        return Node("generator", _name(value), own, walk.refs([*stack, *variables.values()]))

    def steps(self, node: Node) -> Iterator[str]:
        yield from (f".loop({index})" for index in range(node.own[1]))
        yield from (f".{name}" for name in node.own[2])

    def fits(self, node: Node, live: Any) -> bool:
        return (
            isinstance(live, types.GeneratorType) and live.gi_frame is not None and _name(live) == node.name
        )

    def pairs(self, node: Node, live: Any) -> Iterable[tuple[Ref, Any]]:
        _run_to(node, live)
        held = live.gi_frame.f_locals
        variables = (held.get(name, MISSING) for name in node.own[2])
        return zip(node.refs, [*stack_of(live), *variables], strict=False)

    def begin(self, node: Node, known: Callable[[Ref], Any]) -> Any:
        function = _function(node)
        if function is None or function.__code__.co_freevars:
            return MISSING
        code, arguments = function.__code__, dict(zip(node.own[2], node.refs[node.own[1] :], strict=True))
        count = code.co_argcount + code.co_kwonlyargcount
        names = code.co_varnames[:count]
        if code.co_flags & (_VARARGS | _VARKEYWORDS) or not arguments.keys() >= set(names):
            return MISSING
        values = [known(arguments[name]) for name in names]
        if any(value is MISSING for value in values):
            return MISSING
        positional = code.co_argcount
        return function(
            *values[:positional], **dict(zip(names[positional:], values[positional:], strict=True))
        )

    def refusal(self, node: Node, live: Any) -> str:
        if suspended_at(live) != node.own[0] or len(stack_of(live)) != node.own[1]:
            return "does not come to where it waited"
        return ""

    def make(self, build: Build, node: Node, live: Any) -> Any:
        """One that had not started may belong to objects that are new: calling its function executes nothing of it."""
        made = self.begin(node, build.value)
        if made is MISSING or suspended_at(made) != node.own[0]:
            raise ImageError(f"the generator {node.name} cannot be begun again")
        return made

    def fill(self, build: Build, node: Node, held: Any) -> None:
        count = node.own[1]
        for ref, live in zip(node.refs[:count], stack_of(held), strict=True):
            if build.value(ref) is not live:
                raise ImageError("a loop in it cannot be put back to where it was")
        with writable_variables(held.gi_frame) as variables:
            for name, ref in zip(node.own[2], node.refs[count:], strict=True):
                variables[name] = build.value(ref)


_VARARGS, _VARKEYWORDS = 0x04, 0x08  # CO_VARARGS, CO_VARKEYWORDS: Include/cpython/code.h


def _run_to(node: Node, live: Any) -> None:
    """Let a generator run until it waits where it did; raises `ImageError` where it ends before."""
    wanted, count, _ = node.own
    for _ in range(_MAX_ITEMS):
        if suspended_at(live) == wanted and len(stack_of(live)) == count:
            return
        try:
            next(live)
        except Exception as error:  # whatever the generator raises, its end among it
            raise ImageError(
                f"the generator {node.name} does not come to where it waited: {type(error).__name__} {error}"
            ) from None


def _name(generator: Any) -> str:
    return f"{generator.gi_frame.f_globals.get('__name__')}:{code_name(generator.gi_code)}"


def _function(node: Node) -> Any:
    try:
        found = constant(node.name)
    except ImageError:
        return None
    found = getattr(found, "__func__", found)
    return found if isinstance(found, types.FunctionType) else None


def _nothing() -> Iterator[None]:
    """What a generator that had ended is restored as."""
    yield from ()


class _Ended(Kind):
    """A generator that has ended."""

    name = "ended"

    def make(self, build: Build, node: Node, live: Any) -> Any:
        made = _nothing()
        next(made, None)
        return made

    def fits(self, node: Node, live: Any) -> bool:
        return isinstance(live, types.GeneratorType) and not live.gi_running

    def fill(self, build: Build, node: Node, held: Any) -> None:
        held.close()


ENDED = _Ended()
GENERATORS: tuple[tuple[Any, Kind], ...] = (
    ((types.GeneratorType, types.CoroutineType, types.AsyncGeneratorType), _Generator()),
)
