"""The state at a boundary as trees, before it is copied or compared, and the code that runs loops there."""

from __future__ import annotations

from collections.abc import Container, Iterable
from pathlib import Path
from types import CodeType
from typing import Any

from florlog.errors import ImageError
from florlog.following.stack import OpenLoop
from florlog.state.tree import flatten


class Trees(dict[str, Any]):
    """The trees of a boundary; ``flat`` has those that were flattened on the way."""

    def __init__(self, trees: dict[str, Any], flat: dict[str, Any]) -> None:
        super().__init__(trees)
        self.flat = flat


class Storages(Container[int]):
    """The addresses of the memory of what is tracked, found when they are first asked for."""

    def __init__(self, trees: dict[str, Any], names: Iterable[str]) -> None:
        self._trees = trees
        self._names = list(names)
        self._addresses: set[int] | None = None
        self.flat: dict[str, Any] = {}

    def __contains__(self, address: object) -> bool:
        if self._addresses is None:
            self.flat.update({name: flatten(self._trees[name], name) for name in self._names})
            self._addresses = {
                tensor.untyped_storage().data_ptr()
                for _, tensors in self.flat.values()
                for _, tensor in tensors
            }
        return address in self._addresses


def check_can_go_on(loop: OpenLoop) -> None:
    """Raise `ImageError`, by the loop's name and line, where its data could not go on from here."""
    if loop.cursor is not None and loop.count and (why := loop.cursor.obstacle()):
        code, line = loop.site
        raise ImageError(f"loop {loop.name.split('#')[0]!r} ({Path(code.co_filename).name}:{line}): {why}")


def places_of(loop: OpenLoop) -> dict[CodeType, int | None]:
    """The code objects that run loops now, innermost first.

    The innermost is at its loop's line, the others are at the call that led inwards (None).
    """
    places: dict[CodeType, int | None] = {loop.site[0]: loop.site[1]}
    outer = loop.parent.loop
    while outer is not None:
        places.setdefault(outer.site[0], None)
        outer = outer.parent.loop
    return places
