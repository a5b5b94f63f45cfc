"""The state of whatever a variable holds, tracked or not: values, stateful objects, objects of the user's classes.

Training scripts keep state where nobody thinks of it: ``self.best`` of a trainer, an environment with its own
RNG, an averaged model that was not given to ``run.track``.  `ObjectCapture.capture` turns such a value into a tree, and
`ObjectRestore.restore` (`florlog.state.object_restore`) puts the tree back into the object that the replayed code made,
in place.  A tree is a tuple of one of these kinds and what it has:

    value    a plain value, container, tensor or array, as `flatten` takes it
    state    what the adapter of a stateful object (module, optimizer, scheduler, RNG) gives; extra attributes
    loader   a DataLoader: its generators; data set, sampler and batch sampler; whether it keeps workers
    object   an instance of a class of the user's own source: its attributes
    items    a list, tuple or deque that holds such objects; what a ``partial`` or a bound method holds
    pairs    a dict that holds such objects
    cells    a function's closure
    same     an object that was captured before: the place where
    tracked  an object given to ``run.track``: its name, extra attributes

Extra attributes are those that the user's classes of modules keep in addition to what the adapter captures.

Not captured: the position of an iterator (`Unencodable`: no image is taken there); attributes of classes and
functions; objects of library classes that are not stateful.  The latter are left as the replayed code made them,
`ObjectCapture.untaken` names them, and fingerprints show if it mattered.
"""

from __future__ import annotations

import functools
import io
import sys
from collections import deque
from collections.abc import Container, Iterator, Mapping
from types import FunctionType, GeneratorType, MethodType
from typing import Any

import numpy as np
import torch
from florlog_wal import Unencodable
from torch.utils.data import DataLoader, Dataset, Sampler

from florlog.errors import TrackError
from florlog.program.environment import is_own
from florlog.state.adapters import adapter
from florlog.state.loaders import keeps_workers, loader_generators
from florlog.state.pending import Pending
from florlog.state.stateful import is_stateful
from florlog.state.tree import StateTree, flatten
from florlog.state.user_code import attributes_of, is_own_generator, is_user_file, is_user_object

PLAIN = (type(None), bool, int, float, complex, str, bytes)
_MAX_ENTRIES = 100_000  # of one container that is looked into
_MAX_DATA_ARRAY_BYTES = 1 << 20  # a larger array of a data set is data and not state
_MAX_DEPTH = 8
_TOOL_MODULES = frozenset({
    "_io", "_thread", "argparse", "asyncio", "concurrent", "contextlib", "ctypes", "functools", "http", "logging",
    "matplotlib", "multiprocessing", "queue", "re", "rich", "select", "socket", "sqlite3", "ssl", "subprocess",
    "tempfile", "textwrap", "threading", "tqdm", "typing", "unittest", "urllib", "warnings", "weakref", "zipfile",
})  # fmt: skip
"""Top-level modules whose objects are tools, and decide nothing that training computes."""
_IGNORED_TYPES = (type(sys), type(len), io.IOBase)
_DATA_TYPES = (Dataset, Sampler)
_MODULE_ATTRIBUTES = ("_parameters", "_buffers", "_modules", "training", "_non_persistent_buffers_set")


class ObjectCapture:
    """Captures the values of one boundary.

    ``tracked`` maps the ids of tracked objects to their names; tensors that share memory with ``storages`` belong
    to them.  ``fresh``: no loop has run yet, so every iterator stands where the straight code left it.
    """

    def __init__(self, tracked: Mapping[int, str], storages: Container[int], *, fresh: bool = False) -> None:
        self._fresh = fresh
        self._tracked = tracked
        self._storages = storages
        self._places: dict[int, str] = {}  # of what was captured, by id; by -id, where extra attributes were
        self._alive: list[Any] = []  # so that no id is used twice
        self.untaken: dict[str, str] = {}
        """Place -> type of what was met and could not be captured."""

    def capture(self, value: Any, place: str, *, data: bool = False, depth: int = 0) -> StateTree:
        """The tree of a value, None if it is left alone.

        ``place`` names it: ``trainer.best``.  ``data``: it belongs to a data set, whose large arrays are not state.
        Raises `Unencodable` for an iterator, and for a stateful object that has no adapter.
        """
        kind: Any = type(value)
        if kind in PLAIN:
            return ("value", value)
        if (name := self._tracked.get(id(value))) is not None:
            attributes = self._extra_attributes(value, place, depth)
            return ("tracked", name, attributes)
        if isinstance(value, (torch.Tensor, np.ndarray)):
            return self._array(value, place, data)
        if (earlier := self._places.get(id(value))) is not None:
            return ("same", earlier)
        if isinstance(value, (type, *_IGNORED_TYPES)) or is_own(kind.__module__):
            return None
        if depth > _MAX_DEPTH:
            return self._leave(value, place, data)
        if isinstance(value, Iterator) and not is_user_object(value):
            return self._iterator(value, place)
        if self._is_value(value, place):
            return ("value", value)
        self._places[id(value)] = place
        self._alive.append(value)
        return self._object(value, place, data, depth + 1)

    def _array(self, value: Any, place: str, data: bool) -> StateTree:
        if data and value.nbytes > _MAX_DATA_ARRAY_BYTES:
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
        if (
            not data
            and kind.__module__.partition(".")[0] not in _TOOL_MODULES
            and not isinstance(value, _DATA_TYPES)
        ):
            self.untaken[place] = kind.__qualname__

    def _iterator(self, value: Any, place: str) -> StateTree:
        if self._fresh or isinstance(value, io.IOBase):
            return None
        if isinstance(value, GeneratorType) and is_own_generator(value):
            return None
        raise Unencodable(f"iterator ({type(value).__name__}), whose position cannot be taken", place)

    def _is_value(self, value: Any, place: str) -> bool:
        for leaf in _leaves(value, [_MAX_ENTRIES]):
            if isinstance(leaf, torch.Tensor):
                if isinstance(leaf, torch.nn.Parameter) or id(leaf) in self._tracked:
                    return False
                if leaf.layout is torch.strided and leaf.untyped_storage().data_ptr() in self._storages:
                    return False
            elif type(leaf) not in PLAIN and is_stateful(leaf):
                return False
        return _flattens(value, place)

    def _object(self, value: Any, place: str, data: bool, depth: int) -> StateTree:
        inner = functools.partial(self.capture, data=data, depth=depth)
        if isinstance(value, (list, tuple, deque)):
            if len(value) > _MAX_ENTRIES:
                return self._leave(value, place, data)
            return ("items", [inner(item, f"{place}[{i}]") for i, item in enumerate(value)])
        if isinstance(value, dict):
            if len(value) > _MAX_ENTRIES or not all(type(key) in PLAIN for key in value):
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
                if isinstance(value, torch.nn.Module) or not is_user_object(value):
                    raise Unencodable(str(error), place) from None
            else:
                return ("state", taken, self._extra_attributes(value, place, depth))
        if is_user_object(value):
            data = data or isinstance(value, Dataset)
            return ("object", self._attributes(value, place, attributes_of(value), depth, data=data))
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
            self._places.setdefault(id(value), place)
        return {
            name: self.capture(item, f"{place}.{name}", data=data, depth=depth + 1)
            for name, item in attributes.items()
        }

    def _extra_attributes(self, value: Any, place: str, depth: int) -> StateTree:
        """The attributes of a module's user classes, which its adapter does not capture; None if there are none."""
        if (key := -id(value)) in self._places:
            return None
        self._places[key] = place
        if isinstance(value, torch.nn.Module):
            found = {}
            for name, child in value.named_modules():
                if is_user_object(child):
                    held = {
                        k: v
                        for k, v in vars(child).items()
                        if k not in _MODULE_ATTRIBUTES and "_hooks" not in k
                    }
                    held.pop("_is_full_backward_hook", None)
                    if held:
                        found[name] = self._attributes(value, f"{place}.{name}", held, depth)
            return found or None
        return None


def _flattens(value: Any, place: str) -> bool:
    """Whether `flatten` takes a value as it is.  Raises `Pending`."""
    try:
        flatten(value, place)
    except Pending:
        raise
    except (Unencodable, RuntimeError, TypeError, RecursionError):
        return False
    return True


def _leaves(value: Any, budget: list[int]) -> Iterator[Any]:
    """The leaves and keys of nested containers; ``budget`` holds how many entries are still looked into."""
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
