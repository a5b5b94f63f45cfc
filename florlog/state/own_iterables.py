"""Iterables of the user's own: what they draw their items from, and whether a loop's body changes it.

The middle of such an iterable is reached by going over it again, from the state that it had when the loop began.  Of
its attributes those that its code names are kept then (`entry_of`) and put back (`restore_entry_of`).  That gives the
same items unless the loop's body changes what they depend on, as a work list's does.  So `Watch` compares this before
and after some of the bodies.  An iterator, a generator included, cannot start again; it is only watched.

Not seen are attributes that code reaches by a computed name, changes in objects of library classes, in data sets, in
arrays of more than 1 MiB, and in containers of more than 10,000 entries, except for their length.
"""

from __future__ import annotations

import functools
import gc
import inspect
import sys
import time
from collections import deque
from collections.abc import Iterator
from types import CodeType, FunctionType, GeneratorType, MethodType
from typing import Any

import torch
import xxhash
from florlog_wal import Unencodable, decode_value, encode_value
from torch.utils.data import DataLoader, Dataset

from florlog.errors import ImageError
from florlog.state.heap.capture import Graph, capture
from florlog.state.heap.image import flattened, graph_of
from florlog.state.heap.restore import restore
from florlog.state.iterables import innermost
from florlog.state.stateful import has_state_dict
from florlog.state.tensors import tensor_bytes
from florlog.state.tree import unflatten
from florlog.state.user_code import (
    attributes_of,
    is_user_class,
    is_user_file,
    is_user_generator,
    is_user_object,
    names_in,
)

_MAX_ENTRIES = 10_000  # of a container that is compared, and not only its length
_MAX_BYTES = 1 << 20  # of all tensors and arrays
_MAX_WATCHED_SHARE = 0.01  # of the loop's time
_MAX_DEPTH = 5  # of iterators inside iterators
_CONTAINERS = (list, dict, set, deque)
_COMPUTING = (map, filter, type(iter(int, 1)))

Kept = list[Any]
"""A state that does not change with the objects: the encoded tree; keys and copies of its tensors."""


# -- the objects ----------------------------------------------------------------------------------------


def own_iterables(iterable: Any) -> list[Any]:
    """The objects in an iterable whose ``__iter__`` is the user's code: the iterable itself, or a loader's sampler."""
    found: list[Any] = []
    for leaf in innermost(iterable):
        parts = (leaf.sampler, leaf.batch_sampler) if isinstance(leaf, DataLoader) else (leaf,)
        if not has_state_dict(leaf):
            found += [part for part in parts if not isinstance(part, Iterator) and _is_iterated_by_user(part)]
    return [value for value in found if not has_state_dict(value)]


def _is_iterated_by_user(value: Any) -> bool:
    name = "__next__" if isinstance(value, Iterator) else "__iter__"
    maker = next((kind for kind in type(value).__mro__ if name in vars(kind)), object)
    return is_user_class(maker)


@functools.cache
def _names_read(kind: type, code: CodeType | None = None) -> frozenset[str]:
    """The names in the code that gives items: of a class's ``__iter__`` and ``__next__``, or of a generator's code,
    and of what of the user's these names may call.
    """
    pending: list[Any] = (
        [code] if code is not None else [vars(k).get(n) for k in kind.__mro__ for n in _GIVING]
    )
    seen: set[CodeType] = set()
    names: set[str] = set()
    while pending:
        part = pending.pop()
        part = getattr(part, "fget", part)
        if isinstance(part, type):
            if is_user_class(part):
                pending += vars(part).values()
            continue
        space: dict[str, Any] = {}
        if isinstance(part, FunctionType):
            space, part = part.__globals__, part.__code__
        if not isinstance(part, CodeType) or part in seen or not is_user_file(part.co_filename):
            continue
        seen.add(part)
        here = frozenset(names_in(part))
        names |= here
        for name in here:
            pending += [space.get(name), inspect.getattr_static(kind, name, None)]
    return frozenset(names)


_GIVING = ("__iter__", "__next__")


def _names_of(value: Any, code: CodeType | None = None) -> frozenset[str]:
    kind: Any = type(value)
    return _names_read(kind, code)


def _attributes_read(value: Any, names: frozenset[str]) -> dict[str, Any]:
    return {name: held for name, held in sorted(attributes_of(value).items()) if name in names}


# -- the state when the loop begins -----------------------------------------------------------------------


def entry_of(iterable: Any) -> Kept | None:
    """The state of `own_iterables` now; None where it cannot be kept."""
    own = own_iterables(iterable)
    try:
        return _kept(_captured(_entries(own))) if own else None
    except Unencodable:
        return None


def restore_entry_of(iterable: Any, kept: Kept) -> None:
    """Put back what `entry_of` gave.  Raises `ImageError` where that is impossible."""
    encoded, keys, tensors = kept
    held = dict(zip(keys, tensors, strict=True))
    own = own_iterables(iterable)
    live = _entries(own)
    found = restore(graph_of(unflatten(decode_value(encoded), held.__getitem__)), live)
    for value, before, after in zip(own, live.values(), found.values(), strict=True):
        for name in before.keys() - after.keys():
            object.__delattr__(value, name)  # an earlier pass has made it
        for name, new in after.items():
            if name not in before or new is not before[name]:
                object.__setattr__(value, name, new)


def _entries(own: list[Any]) -> dict[str, dict[str, Any]]:
    return {f"iterable {i}": _attributes_read(value, _names_of(value)) for i, value in enumerate(own)}


def _captured(roots: dict[str, dict[str, Any]]) -> Graph:
    """What names reach; of data and of large containers, only that they are there.  Raises `Unencodable`."""
    left = {id(held) for names in roots.values() for held in names.values() if _is_data(held)}
    graph = capture(roots, left=left)
    for place, what in graph.missing.items():
        raise Unencodable(what, place)
    return graph


def _is_data(value: Any) -> bool:
    return isinstance(value, (Dataset, DataLoader)) or _is_large(value)


def _is_large(value: Any) -> bool:
    return isinstance(value, _CONTAINERS) and len(value) > _MAX_ENTRIES


def _kept(graph: Graph) -> Kept:
    skeleton, tensors = flattened(graph, "")
    if sum(tensor.nbytes for _, tensor in tensors) > _MAX_BYTES:
        raise Unencodable(f"more than {_MAX_BYTES >> 20} MiB of tensors", "it")
    copies = [tensor.detach().clone() for _, tensor in tensors]
    return [encode_value(skeleton), [key for key, _ in tensors], copies]


# -- changes by the loop's body ---------------------------------------------------------------------------


class Watch:
    """Whether the body of a loop over ``iterable`` changes what the items depend on."""

    def __init__(self, iterable: Any) -> None:
        self._iterable = iterable
        self._own = own_iterables(iterable)
        self._iterators = [leaf for leaf in innermost(iterable) if _is_watched(leaf)]
        self._direct = [leaf for leaf in innermost(iterable) if any(leaf is value for value in self._own)]
        self.needed = bool(self._own or self._iterators)
        """Whether there is anything to watch."""
        self.why = ""
        """Why no image may be taken inside the loop, "" if one may, as far as `look` has seen."""
        self._before: bytes | None = None  # the digest before the present body, if that is watched

    def over(self, items: Iterator[Any]) -> Iterator[Any]:
        """The same items; the bodies of the first two are watched, and then as many as the time allows."""
        began, spent = time.perf_counter(), 0.0
        for number, item in enumerate(items):
            started = time.perf_counter()
            if self.why or (number > 1 and spent > _MAX_WATCHED_SHARE * (started - began)):
                yield item
                continue
            self._before = self.digest()
            spent += time.perf_counter() - started
            yield item
            started = time.perf_counter()
            self.look()
            self._before = None
            spent += time.perf_counter() - started

    def look(self) -> None:
        """The present body is over: has it changed anything?"""
        now = self.digest()
        if self._before is not None and now != self._before and not self.why:
            self.why = f"the loop's body changes what the items of {name_of(self._iterable)} depend on"

    def digest(self, *, lasting: bool = False) -> bytes:
        """Of what the items depend on; ``lasting``: without what may be a time, which another process would not have.

        b"", and a reason in `why`, where that cannot be captured.
        """
        found = {}
        try:
            for place, value in self._sources():
                if not (lasting and type(value) is float):
                    found[place] = len(value) if _is_large(value) else value
            encoded, _, tensors = _kept(_captured({"": found}))
        except Exception as error:  # it has no encoding, or an object of the user's fails to be looked at
            if self._direct or self._iterators:
                self.why = f"what the items of {name_of(self._iterable)} depend on cannot be kept ({error})"
            return b""
        held = [bytes(tensor_bytes(tensor.cpu().contiguous())) for tensor in tensors]
        return xxhash.xxh3_64_digest(b"".join([encoded, *held]))

    def _sources(self) -> Iterator[tuple[str, Any]]:
        for number, value in enumerate(self._own):
            for name, held in _attributes_read(value, _names_of(value)).items():
                yield f"{number}.{name}", held
        for number, leaf in enumerate(self._iterators):
            yield from _parts(leaf, f"part {number}", _MAX_DEPTH)


def _is_watched(leaf: Any) -> bool:
    if isinstance(leaf, GeneratorType):
        return is_user_generator(leaf)
    if not isinstance(leaf, Iterator) or has_state_dict(leaf):
        return False
    return isinstance(leaf, _COMPUTING) or type(leaf).__module__ == "itertools" or _is_iterated_by_user(leaf)


def _parts(iterator: Any, place: str, depth: int) -> Iterator[tuple[str, Any]]:
    """What an iterator's items depend on: a generator's variables, a user's attributes, what the others draw from."""
    code: CodeType | None = None
    held: Any = {}
    part: Any
    if isinstance(iterator, GeneratorType):
        if iterator.gi_frame is None or not is_user_generator(iterator):
            return
        code, held = iterator.gi_code, iterator.gi_frame.f_locals
        yield f"{place}.at", iterator.gi_frame.f_lasti
    elif _is_iterated_by_user(iterator):
        held = _attributes_read(iterator, _names_of(iterator))
    else:
        parts: list[Any] = gc.get_referents(iterator)
        for several in [part for part in parts if type(part) is tuple]:
            parts += several[:_MAX_DEPTH]
        held = {str(i): part for i, part in enumerate(parts) if type(part) is not tuple}
        if isinstance(iterator, map):  # the function makes the items, and not their number
            held = {name: part for name, part in held.items() if isinstance(part, Iterator)}
    for name, part in held.items():
        inner, reading = f"{place}.{name}", code
        if isinstance(part, MethodType):
            part, reading = part.__self__, getattr(part.__func__, "__code__", None)
        if isinstance(part, Iterator):
            if depth and part is not iterator:
                yield from _parts(part, inner, depth - 1)
        elif is_user_object(part) and not has_state_dict(part):
            for attribute, value in _attributes_read(part, _names_of(part, reading)).items():
                if not isinstance(value, Iterator):
                    yield f"{inner}.{attribute}", value
        elif not isinstance(part, (type, torch.nn.Module, type(sys), CodeType)):
            yield inner, part


def name_of(iterable: Any) -> str:
    """An iterable as a message names it."""
    leaf = next(innermost(iterable), iterable)
    if isinstance(leaf, GeneratorType):
        return f"generator {leaf.gi_code.co_name}"
    kind = type(leaf).__name__
    return f"{'an' if kind[0] in 'AEIOUaeiou' else 'a'} {kind}"


def gone_elsewhere(iterable: Any) -> ImageError:
    """The error where going over an iterable again has not led to what it was when an image was taken."""
    return ImageError(
        f"going over {name_of(iterable)} again does not lead to where an image was taken: the loop's body changed what "
        "its items depend on"
    )
