"""What is common to the hooks of all frameworks: how they are described, made and called."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from inspect import BoundArguments
from typing import Any

from florlog.bridges.hooked_loops import HookedLoops

Attach = Callable[[HookedLoops, Any, BoundArguments], AbstractContextManager[None]]


@dataclass(frozen=True, slots=True)
class Hooks:
    """Where a framework's training is called, and what attaches hooks to it."""

    module: str
    """When it has been imported, the class is there."""
    kind: str
    methods: tuple[str, ...]
    """Of the class: what trains or evaluates."""
    attach: Attach
    """Given the loops of a call, its object and its arguments, which it may change: within, there are hooks."""


def module(name: str) -> Any:
    """A module of a framework that is in use."""
    return importlib.import_module(name)


def callback(loops: HookedLoops, base: type, hooks: object, names: Iterable[str]) -> Any:
    """A framework's callback with the hooks that the methods ``names`` of an object are.

    A copy of it, and what is unpickled, is a callback of the ``base`` that does nothing.
    """
    events: dict[str, Any] = {name: _method(loops.guarded(getattr(hooks, name))) for name in names}
    return type("FlorlogHooks", (base,), {**events, "__reduce__": lambda self: (base, ())})()


def _method(hook: Callable[..., None]) -> Callable[..., None]:
    def called(self: Any, *args: Any, **kwargs: Any) -> None:
        hook(*args, **kwargs)

    return called


@contextmanager
def first_of(holder: Any, made: Any) -> Iterator[None]:
    """Within, a callback is the first of ``holder.callbacks``, which may be another list at the end."""
    holder.callbacks.insert(0, made)
    try:
        yield
    finally:
        holder.callbacks[:] = [held for held in holder.callbacks if held is not made]


class News:
    """Which values of a mapping that a framework keeps up to date are new since they were last looked at.

    A value that was logged again is another object, or a tensor with memory of its own, also where it is equal.  What
    was seen is held, so no address is used twice.
    """

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._seen = dict(values)

    def of(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The new ones."""
        new = {name: value for name, value in values.items() if not _is_same(self._seen.get(name), value)}
        self._seen.update(new)
        return new


def _is_same(seen: Any, value: Any) -> bool:
    if seen is value or seen is None:
        return seen is value
    address = getattr(value, "data_ptr", None)
    return address is not None and type(seen) is type(value) and bool(seen.data_ptr() == address())
