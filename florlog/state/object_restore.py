"""Captured values put back into the objects that the replayed code made, in place, so that aliases stay.

`florlog.state.object_capture` says what the trees are.  An object is filled, never made: where the replayed code
has no such object yet, `ImageError` is raised.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from types import MethodType
from typing import Any

import torch

from florlog.errors import ImageError
from florlog.state.adapters import adapter
from florlog.state.inplace import put_back
from florlog.state.loaders import loader_generators, start_workers
from florlog.state.object_capture import PLAIN
from florlog.state.tree import StateTree
from florlog.state.user_code import attributes_of

MISSING: Any = type("Missing", (), {"__repr__": lambda self: "nothing"})()
"""What a name holds that is not bound."""


class ObjectRestore:
    """Restores the values of one boundary.  ``objects``: what is tracked, by name."""

    def __init__(self, objects: Mapping[str, Any]) -> None:
        self._objects = objects
        self._tracked = {id(target) for target in objects.values()}
        self._restored: dict[str, Any] = {}  # by place

    def restore(self, live: Any, tree: StateTree, place: str) -> Any:
        """What the name is to hold: ``live`` with its state put back where it has an identity.

        ``live`` is `MISSING` where there is no such name yet.  Raises `ImageError` where the replayed code has no such
        object.
        """
        if tree is None:
            return live
        kind, held = tree[0], tree[1]
        if kind == "value":
            self._restored[place] = made = put_back(live, held)
            return made
        if kind == "same":
            return self._restored.get(held, live)
        if kind == "tracked" and held in self._objects:
            self._put_extra(self._objects[held], tree[2], place)
            return self._objects[held]
        if live is MISSING:
            raise ImageError(f"{place} does not exist yet where its state would be put back")
        if kind == "tracked":
            return live
        self._restored[place] = live
        if kind in ("state", "object", "loader") and isinstance(live, PLAIN):
            raise ImageError(f"{place} is {live!r} where an object's state would be put back")
        match kind:
            case "items":
                return self._put_items(live, held, place)
            case "pairs":
                self._put_pairs(live, dict(held), place)
            case "cells":
                self._put_cells(live, held, place)
            case "loader":
                self._put_loader(live, tree, place)
            case "state":
                adapter(place, live).restore(held)
                self._put_extra(live, tree[2], place)
            case "object":
                self._put_attributes(live, held, place)
        return live

    def _put_items(self, live: Any, held: list[StateTree], place: str) -> Any:
        if isinstance(live, functools.partial):
            self.restore(live.func, held[0], f"{place}.func")
            return live
        if isinstance(live, MethodType):
            self.restore(live.__self__, held[0], f"{place}.__self__")
            return live
        before = list(live)
        before += [MISSING] * (len(held) - len(before))
        items = [
            self.restore(old, new, f"{place}[{i}]")
            for i, (old, new) in enumerate(zip(before, held, strict=False))
        ]
        if any(item is MISSING for item in items):
            raise ImageError(f"{place} holds objects that do not exist yet where they would be put back")
        if isinstance(live, tuple):
            same = len(live) == len(items) and all(a is b for a, b in zip(live, items, strict=True))
            return live if same else tuple(items)
        live.clear()
        live.extend(items)
        return live

    def _put_pairs(self, live: Any, held: dict[Any, StateTree], place: str) -> None:
        made = {}
        for key, item in held.items():
            made[key] = self.restore(live.get(key, MISSING), item, f"{place}[{key!r}]")
            if made[key] is MISSING:
                raise ImageError(f"{place}[{key!r}] does not exist yet where it would be put back")
        live.clear()
        live.update(made)

    def _put_cells(self, live: Any, held: dict[str, StateTree], place: str) -> None:
        for name, cell in zip(live.__code__.co_freevars, live.__closure__ or (), strict=True):
            if held.get(name) is not None:
                cell.cell_contents = self.restore(cell.cell_contents, held[name], f"{place}.{name}")

    def _put_loader(self, live: Any, tree: StateTree, place: str) -> None:
        _, held, parts, keeps = tree
        generators = [g for g in loader_generators(live) if id(g) not in self._tracked]
        for generator, state in zip(generators, held, strict=True):
            self.restore(generator, state, f"{place}.generator")
        for i, part in enumerate((live.dataset, live.sampler, live.batch_sampler)):
            self.restore(part, parts[i], f"{place}.{i}")
        if keeps:
            start_workers(live)

    def _put_attributes(self, live: Any, held: dict[str, StateTree], place: str) -> None:
        attributes = attributes_of(live)
        if extra := sorted(attributes.keys() - held.keys()):
            raise ImageError(f"{place}.{extra[0]} is not in the recording's images")
        for name, tree in held.items():
            new = self.restore(attributes.get(name, MISSING), tree, f"{place}.{name}")
            if new is MISSING:
                raise ImageError(f"{place}.{name} does not exist yet where it would be put back")
            if new is not attributes.get(name, MISSING):
                object.__setattr__(live, name, new)

    def _put_extra(self, live: Any, held: StateTree, place: str) -> None:
        if held is None or not isinstance(live, torch.nn.Module):
            return
        for name, attributes in held.items():
            child = live.get_submodule(name)
            for attribute, tree in attributes.items():
                before = vars(child).get(attribute, MISSING)
                new = self.restore(before, tree, f"{place}.{name}.{attribute}")
                if new is not MISSING and new is not before:
                    vars(child)[attribute] = new
