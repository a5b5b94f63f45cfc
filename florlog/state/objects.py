"""The state of whatever a variable holds, tracked or not: values, stateful objects, objects of the user's classes.

Training scripts keep state where nobody thinks of it: ``self.best`` of a trainer, an environment with its own
RNG, an averaged model that was not given to ``run.track``.  `ObjectWalk.capture` turns such a value into a tree, and
`ObjectWalk.restore` puts the tree back into the object that the replayed code made, in place.  A tree is a pair:

    value    a plain value, container, tensor or array, as `flatten` takes it
    state    something with an adapter (module, optimizer, scheduler, RNG); attributes of user's classes beside it
    loader   a DataLoader: its generators, its data set, whether it keeps workers
    object   an instance of a class of the user's own source: its attributes
    items, pairs    a list or tuple, a dict, that holds such objects
    cells    a function's closure
    same     an object that was captured before, under that name
    tracked  an object given to ``run.track``

An iterator's position cannot be taken: `Unencodable`, and no image is taken there.  What is left, objects of library
classes without ``state_dict``, is left as the replayed code made it; `ObjectWalk.untaken` names it, and fingerprints
tell if it mattered.
"""

from __future__ import annotations

import argparse
import functools
import io
import sys
from collections import deque
from collections.abc import Container, Iterator, Mapping
from types import FunctionType, GeneratorType, MethodType, SimpleNamespace
from typing import Any

import numpy as np
import torch
from florlog_wal import Unencodable
from torch.utils.data import DataLoader, Dataset, Sampler

from florlog.errors import ImageError, TrackError
from florlog.program.environment import is_local, is_own, main_script
from florlog.program.process import this_process
from florlog.state.adapters import adapter, loader_generators
from florlog.state.cursors import keeps_workers, start_workers
from florlog.state.inplace import put_back
from florlog.state.tree import Pending, StateTree, flatten

_PLAIN = (type(None), bool, int, float, complex, str, bytes)
_LIMIT = 100_000  # entries of one container that is looked into
_LARGE = 1 << 20  # bytes of a data set's array, which is data and not state
_DEEPEST = 8
_QUIET = frozenset({
    "_io", "_thread", "argparse", "asyncio", "concurrent", "contextlib", "ctypes", "functools", "http", "logging",
    "matplotlib", "multiprocessing", "queue", "re", "rich", "select", "socket", "sqlite3", "ssl", "subprocess",
    "tempfile", "textwrap", "threading", "tqdm", "typing", "unittest", "urllib", "warnings", "weakref", "zipfile",
})  # fmt: skip
"""Top-level modules whose objects are tools, and decide nothing that training computes."""
_MODULE = ("_parameters", "_buffers", "_modules", "training", "_non_persistent_buffers_set")


class ObjectWalk:
    """Captures or restores the values of one boundary.

    ``tracked`` maps the ids of tracked objects to their names; tensors that share memory with ``storages`` belong
    to them.  ``fresh``: no loop has run yet, so every iterator stands where the straight code left it.
    """

    def __init__(self, tracked: Mapping[int, str], storages: Container[int], *, fresh: bool = False) -> None:
        self._fresh = fresh
        self._tracked = tracked
        self._storages = storages
        self._known: dict[int, str] = {}
        self._kept: list[Any] = []  # so that no id is used twice
        self._places: dict[str, Any] = {}
        self.untaken: dict[str, str] = {}
        """Place -> type of what was met and could not be captured."""

    # -- capture -----------------------------------------------------------------------------------

    def capture(self, value: Any, place: str, *, data: bool = False, depth: int = 0) -> StateTree:
        """The tree of a value, None if it is left alone; ``place`` names it, ``data``: in a data set."""
        kind: Any = type(value)
        if kind in _PLAIN:
            return ("value", value)
        if (name := self._tracked.get(id(value))) is not None:
            attributes = self._attributes_beside(value, place, depth)
            return ("tracked", name, attributes)
        if isinstance(value, (torch.Tensor, np.ndarray)):
            return self._array(value, place, data)
        if (place_before := self._known.get(id(value))) is not None:
            return ("same", place_before)
        if isinstance(value, (type, *_IGNORED)) or is_own(kind.__module__):
            return None
        if depth > _DEEPEST:
            return self._leave(value, place, data)
        if isinstance(value, Iterator) and not _is_user_object(value):
            return self._iterator(value, place)
        if self._is_value(value, place):
            return ("value", value)
        self._known[id(value)] = place
        self._kept.append(value)
        return self._object(value, place, data, depth + 1)

    def _array(self, value: Any, place: str, data: bool) -> StateTree:
        if data and value.nbytes > _LARGE:
            return None
        if isinstance(value, torch.Tensor) and value.layout is torch.strided:
            if value.device.type != "meta" and value.untyped_storage().data_ptr() in self._storages:
                return None
            if isinstance(value, torch.nn.Parameter):
                return None
        return ("value", value) if _flattens(value, place) else self._leave(value, place, data)

    def _leave(self, value: Any, place: str, data: bool) -> None:
        """Leave a value alone, and remember that unless it is data or a tool."""
        kind = type(value)
        if not data and kind.__module__.partition(".")[0] not in _QUIET and not isinstance(value, _DATA):
            self.untaken[place] = kind.__qualname__

    def _iterator(self, value: Any, place: str) -> StateTree:
        if self._fresh or isinstance(value, io.IOBase):
            return None
        if isinstance(value, GeneratorType) and "/florlog/" in value.gi_code.co_filename:
            return None
        raise Unencodable(f"iterator ({type(value).__name__}), whose position cannot be taken", place)

    def _is_value(self, value: Any, place: str) -> bool:
        for leaf in _leaves(value, [_LIMIT]):
            if isinstance(leaf, torch.Tensor):
                if isinstance(leaf, torch.nn.Parameter) or id(leaf) in self._tracked:
                    return False
                if leaf.layout is torch.strided and leaf.untyped_storage().data_ptr() in self._storages:
                    return False
            elif type(leaf) not in _PLAIN and is_stateful(leaf):
                return False
        return _flattens(value, place)

    def _object(self, value: Any, place: str, data: bool, depth: int) -> StateTree:
        inner = functools.partial(self.capture, data=data, depth=depth)
        if isinstance(value, (list, tuple, deque)):
            if len(value) > _LIMIT:
                return self._leave(value, place, data)
            return ("items", [inner(item, f"{place}[{i}]") for i, item in enumerate(value)])
        if isinstance(value, dict):
            if len(value) > _LIMIT or not all(type(key) in _PLAIN for key in value):
                return self._leave(value, place, data)
            return ("pairs", [(key, inner(item, f"{place}[{key!r}]")) for key, item in value.items()])
        if isinstance(value, functools.partial):
            return ("items", [inner(value.func, f"{place}.func")])
        if isinstance(value, MethodType):
            return ("items", [inner(value.__self__, f"{place}.__self__")])
        if isinstance(value, FunctionType):
            return self._function(value, place, depth)
        if isinstance(value, DataLoader):
            generators = [g for g in loader_generators(value) if id(g) not in self._tracked]
            held = [inner(g, f"{place}.generator") for g in generators]
            parts = (value.dataset, value.sampler, value.batch_sampler)
            return (
                "loader",
                held,
                [self.capture(p, f"{place}.{i}", data=True, depth=depth) for i, p in enumerate(parts)],
                keeps_workers(value),
            )
        if is_stateful(value):
            try:
                taken = adapter(place, value).capture()
            except TrackError as error:
                if isinstance(value, torch.nn.Module) or not _is_user_object(value):
                    raise Unencodable(str(error), place) from None
            else:
                return ("state", taken, self._attributes_beside(value, place, depth))
        if _is_user_object(value):
            data = data or isinstance(value, Dataset)
            return ("object", self._attributes(value, place, _attributes_of(value), depth, data=data))
        return self._leave(value, place, data)

    def _function(self, value: FunctionType, place: str, depth: int) -> StateTree:
        if not value.__closure__ or not is_user_file(value.__code__.co_filename):
            return None
        cells = {}
        for name, cell in zip(value.__code__.co_freevars, value.__closure__, strict=True):
            try:
                cells[name] = self.capture(cell.cell_contents, f"{place}.{name}", depth=depth)
            except ValueError:  # an empty cell
                continue
        return ("cells", cells)

    def _attributes(
        self, value: Any, place: str, attributes: Mapping[str, Any], depth: int, *, data: bool = False
    ) -> StateTree:
        if not place.startswith("tracked "):
            self._known.setdefault(id(value), place)
        return {
            name: self.capture(item, f"{place}.{name}", data=data, depth=depth + 1)
            for name, item in attributes.items()
        }

    def _attributes_beside(self, value: Any, place: str, depth: int) -> StateTree:
        """Attributes that the adapter of a stateful object does not know: those of the user's classes."""
        if (key := -id(value)) in self._known:
            return None
        self._known[key] = place
        if isinstance(value, torch.nn.Module):
            found = {}
            for name, child in value.named_modules():
                if _is_user_object(child):
                    held = {k: v for k, v in vars(child).items() if k not in _MODULE and "_hooks" not in k}
                    held.pop("_is_full_backward_hook", None)
                    if held:
                        found[name] = self._attributes(value, f"{place}.{name}", held, depth)
            return found or None
        return None

    # -- restore -----------------------------------------------------------------------------------

    def restore(self, live: Any, tree: StateTree, place: str, objects: Mapping[str, Any]) -> Any:
        """What the name is to hold: ``live`` with its state put back where it has an identity.

        Raises `ImageError` where the replayed code has no such object.
        """
        if tree is None:
            return live
        what, held = tree[0], tree[1]
        if what == "value":
            self._places[place] = made = put_back(live, held)
            return made
        if what == "same":
            return self._places.get(held, live)
        if what == "tracked":
            if held not in objects:
                if live is _MISSING:
                    raise ImageError(f"{place} does not exist yet where its state would be put back")
                return live
            self._put_beside(objects[held], tree[2], place, objects)
            return objects[held]
        if live is _MISSING:
            raise ImageError(f"{place} does not exist yet where its state would be put back")
        self._places[place] = live
        if what in ("state", "object", "loader") and isinstance(live, _PLAIN):
            raise ImageError(f"{place} is {live!r} where an object's state would be put back")
        match what:
            case "items":
                return self._put_items(live, held, place, objects)
            case "pairs":
                self._put_pairs(live, dict(held), place, objects)
            case "cells":
                for name, cell in zip(live.__code__.co_freevars, live.__closure__ or (), strict=True):
                    if held.get(name) is not None:
                        cell.cell_contents = self.restore(
                            cell.cell_contents, held[name], f"{place}.{name}", objects
                        )
            case "loader":
                generators = [g for g in loader_generators(live) if id(g) not in self._tracked]
                for generator, state in zip(generators, held, strict=True):
                    self.restore(generator, state, f"{place}.generator", objects)
                for i, part in enumerate((live.dataset, live.sampler, live.batch_sampler)):
                    self.restore(part, tree[2][i], f"{place}.{i}", objects)
                if tree[3]:
                    start_workers(live)
            case "state":
                adapter(place, live).restore(held)
                self._put_beside(live, tree[2], place, objects)
            case "object":
                self._put_attributes(live, held, place, objects)
        return live

    def _put_items(self, live: Any, held: list[StateTree], place: str, objects: Mapping[str, Any]) -> Any:
        if isinstance(live, functools.partial):
            self.restore(live.func, held[0], f"{place}.func", objects)
            return live
        if isinstance(live, MethodType):
            self.restore(live.__self__, held[0], f"{place}.__self__", objects)
            return live
        before = list(live)
        before += [_MISSING] * (len(held) - len(before))
        items = [
            self.restore(old, new, f"{place}[{i}]", objects)
            for i, (old, new) in enumerate(zip(before, held, strict=False))
        ]
        if any(item is _MISSING for item in items):
            raise ImageError(f"{place} holds objects that do not exist yet where they would be put back")
        if isinstance(live, tuple):
            same = len(live) == len(items) and all(a is b for a, b in zip(live, items, strict=True))
            return live if same else tuple(items)
        live.clear()
        live.extend(items)
        return live

    def _put_pairs(
        self, live: Any, held: dict[Any, StateTree], place: str, objects: Mapping[str, Any]
    ) -> None:
        made = {}
        for key, item in held.items():
            made[key] = self.restore(live.get(key, _MISSING), item, f"{place}[{key!r}]", objects)
            if made[key] is _MISSING:
                raise ImageError(f"{place}[{key!r}] does not exist yet where it would be put back")
        live.clear()
        live.update(made)

    def _put_attributes(
        self, live: Any, held: dict[str, StateTree], place: str, objects: Mapping[str, Any]
    ) -> None:
        attributes = _attributes_of(live)
        if extra := sorted(attributes.keys() - held.keys()):
            raise ImageError(f"{place}.{extra[0]} is not in the recording's images")
        for name, tree in held.items():
            new = self.restore(attributes.get(name, _MISSING), tree, f"{place}.{name}", objects)
            if new is _MISSING:
                raise ImageError(f"{place}.{name} does not exist yet where it would be put back")
            if new is not attributes.get(name, _MISSING):
                object.__setattr__(live, name, new)

    def _put_beside(self, live: Any, held: StateTree, place: str, objects: Mapping[str, Any]) -> None:
        if held is None or not isinstance(live, torch.nn.Module):
            return
        for name, attributes in held.items():
            child = live.get_submodule(name)
            for attribute, tree in attributes.items():
                before = vars(child).get(attribute, _MISSING)
                new = self.restore(before, tree, f"{place}.{name}.{attribute}", objects)
                if new is not _MISSING and new is not before:
                    vars(child)[attribute] = new


_MISSING: Any = type("Missing", (), {"__repr__": lambda self: "nothing"})()
MISSING = _MISSING
_IGNORED = (type(sys), type(len), io.IOBase)
_DATA = (Dataset, Sampler)
_NAMESPACES = (SimpleNamespace, argparse.Namespace)


def is_stateful(value: Any) -> bool:
    """Whether an adapter knows how to take the object's state."""
    import random

    kinds = (
        torch.Generator,
        random.Random,
        np.random.Generator,
        np.random.BitGenerator,
        np.random.RandomState,
    )
    if isinstance(value, kinds):
        return True
    return callable(getattr(type(value), "state_dict", None)) and callable(
        getattr(type(value), "load_state_dict", None)
    )


def _is_user_object(value: Any) -> bool:
    kind: Any = type(value)
    return kind in _NAMESPACES or is_user_class(kind)


@functools.cache
def is_user_class(kind: type) -> bool:
    """Whether a class is defined in the script or in a local module."""
    if kind.__module__ == "__main__":
        return True
    file = getattr(sys.modules.get(kind.__module__), "__file__", None)
    return isinstance(file, str) and not is_own(kind.__module__) and is_user_file(file)


def is_user_file(file: str) -> bool:
    """Whether a file is the script, a local module or a notebook's cell."""
    return this_process.notebook.has_code_of(file) or _is_local_file(file)


@functools.cache
def _is_local_file(file: str) -> bool:
    script = main_script()
    return file == script or is_local(file, script)


def _attributes_of(value: Any) -> dict[str, Any]:
    found = dict(getattr(value, "__dict__", {}))
    for kind in type(value).__mro__:
        slots = kind.__dict__.get("__slots__", ())
        for slot in (slots,) if isinstance(slots, str) else slots:
            if slot not in ("__dict__", "__weakref__") and hasattr(value, slot):
                found[slot] = getattr(value, slot)
    return found


def _flattens(value: Any, place: str) -> bool:
    try:
        flatten(value, place)
    except Pending:
        raise
    except (Unencodable, RuntimeError, TypeError, RecursionError):
        return False
    return True


def _leaves(value: Any, budget: list[int]) -> Iterator[Any]:
    budget[0] -= 1
    if budget[0] < 0:
        return
    if isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from _leaves(item, budget)
    elif isinstance(value, (list, tuple, set, frozenset, deque)):
        for item in value:
            yield from _leaves(item, budget)
    else:
        yield value
