"""Weak references, locks, queues, context variables: what refers, guards and passes on."""

from __future__ import annotations

import contextvars
import gc
import operator
import queue
import threading
import types
import weakref
from collections.abc import Iterable, Iterator
from typing import Any

from florlog.errors import ImageError
from florlog.state.heap.graph import Node, Ref
from florlog.state.heap.kinds.base import MISSING, Build, Kind, Walk
from florlog.state.heap.names import constant_name

_WEAK_MAPPINGS = (weakref.WeakKeyDictionary, weakref.WeakValueDictionary)
_LOCKS = (type(threading.Lock()), type(threading.RLock()))


class _Gone:
    """Something to point a dead weak reference at."""


class _Weak(Kind):
    """``refs``: what it refers to, and the function that is called when that goes."""

    name = "weak"
    immutable = True

    def take(self, walk: Walk, value: weakref.ref[Any]) -> Node:
        callback = None if type(value) is not weakref.ref else value.__callback__
        return Node("weak", constant_name(type(value)), None, walk.refs((value(), callback)))

    def steps(self, node: Node) -> Iterator[str]:
        return iter(("()", ".__callback__"))

    def pairs(self, node: Node, live: Any) -> Iterable[tuple[Ref, Any]]:
        return zip(node.refs, (live(), live.__callback__), strict=True)

    def make(self, build: Build, node: Node, live: Any) -> Any:
        target, callback = map(build.value, node.refs)
        if live is not MISSING and live() is target and live.__callback__ is callback:
            return live
        if target is None:
            return weakref.ref(_Gone())
        return build.kind_named(node.name)(target, *([] if callback is None else [callback]))


class _WeakProxy(Kind):
    """``refs``: what it stands for, and the function that is called when that goes."""

    name = "weak proxy"
    immutable = True

    def take(self, walk: Walk, value: Any) -> Node:
        return Node("weak proxy", constant_name(type(value)), None, walk.refs(_behind(value)))

    def steps(self, node: Node) -> Iterator[str]:
        return iter(("", ".__callback__"))

    def pairs(self, node: Node, live: Any) -> Iterable[tuple[Ref, Any]]:
        return zip(node.refs, _behind(live), strict=True)

    def make(self, build: Build, node: Node, live: Any) -> Any:
        target, callback = map(build.value, node.refs)
        if live is not MISSING and all(map(operator.is_, _behind(live), (target, callback))):
            return live
        return weakref.proxy(_Gone()) if target is None else weakref.proxy(target, callback)


def _behind(proxy: Any) -> tuple[Any, Any]:
    """What a weak proxy stands for, None if it is gone, and its callback.  All else that is asked, it passes on."""
    try:
        target = proxy.__reduce_ex__.__self__
    except ReferenceError:
        target = None
    return target, next(iter(gc.get_referents(proxy)), None)


class _WeakMapping(Kind):
    """``refs``: keys and values by turns."""

    name = "weak mapping"
    rank = 1

    def take(self, walk: Walk, value: Any) -> Node:
        flat = [part for pair in list(value.items()) for part in pair]
        return Node("weak mapping", constant_name(type(value)), None, walk.refs(flat))

    def pairs(self, node: Node, live: Any) -> Iterable[tuple[Ref, Any]]:
        return zip(node.refs, [part for pair in list(live.items()) for part in pair], strict=False)

    def make(self, build: Build, node: Node, live: Any) -> Any:
        return build.kind_named(node.name)()

    def fill(self, build: Build, node: Node, held: Any) -> None:
        held.clear()
        for key, item in zip(node.refs[::2], node.refs[1::2], strict=True):
            held[build.value(key)] = build.value(item)


class _WeakSet(Kind):
    name = "weak set"
    rank = 1

    def take(self, walk: Walk, value: Any) -> Node:
        return Node("weak set", constant_name(type(value)), None, walk.refs(sorted(value, key=walk.order)))

    def make(self, build: Build, node: Node, live: Any) -> Any:
        return build.kind_named(node.name)()

    def fill(self, build: Build, node: Node, held: Any) -> None:
        held.clear()
        held.update(map(build.value, node.refs))


class _Finalizer(Kind):
    """``own``: whether it is called at exit, None once it was called; ``refs``: the object, function, arguments."""

    name = "finalizer"
    immutable = True

    def take(self, walk: Walk, value: Any) -> Node:
        if (parts := value.peek()) is None:
            return Node("finalizer", constant_name(type(value)))
        return Node("finalizer", constant_name(type(value)), value.atexit, walk.refs(parts))

    def pairs(self, node: Node, live: Any) -> Iterable[tuple[Ref, Any]]:
        return zip(node.refs, live.peek() or (), strict=False)

    def make(self, build: Build, node: Node, live: Any) -> Any:
        if not node.refs:
            return weakref.finalize(_Gone(), int) if live is MISSING else live
        target, function, arguments, keywords = map(build.ready, node.refs)
        known = None if live is MISSING else live.peek()
        if known is not None and known[0] is target and known[1] is function:
            return live
        made = weakref.finalize(target, function, *arguments, **keywords)
        made.atexit = node.own
        return made

    def fill(self, build: Build, node: Node, held: Any) -> None:
        if not node.refs:
            held.detach()


class _Local(Kind):
    """Variables of a thread: those of the thread that captures."""

    name = "local"

    def take(self, walk: Walk, value: threading.local) -> Node:
        return Node("local", walk.class_name(value), None, (), walk.named(value.__dict__))

    def make(self, build: Build, node: Node, live: Any) -> Any:
        return build.kind_named(node.name)()

    def fill(self, build: Build, node: Node, held: Any) -> None:
        held.__dict__.clear()
        held.__dict__.update({name: build.value(ref) for name, ref in (node.attributes or {}).items()})


class _Lock(Kind):
    """A lock: at a boundary the training holds none."""

    name = "lock"

    def take(self, walk: Walk, value: Any) -> Node:
        return Node("lock", constant_name(type(value)))

    def make(self, build: Build, node: Node, live: Any) -> Any:
        return threading.RLock() if "RLock" in node.name else threading.Lock()


class _SimpleQueue(Kind):
    name = "simple queue"

    def take(self, walk: Walk, value: Any) -> Node:
        items = []
        while not value.empty():
            items.append(value.get_nowait())
        for item in items:
            value.put(item)
        return Node("simple queue", constant_name(type(value)), None, walk.refs(items))

    def make(self, build: Build, node: Node, live: Any) -> Any:
        return queue.SimpleQueue()

    def fill(self, build: Build, node: Node, held: Any) -> None:
        while not held.empty():
            held.get_nowait()
        for ref in node.refs:
            held.put(build.value(ref))


class _ContextVariable(Kind):
    """``refs``: the value in the context that captures, none if it is not set there."""

    name = "context variable"
    described_as = "a context variable"

    def take(self, walk: Walk, value: contextvars.ContextVar[Any]) -> Node:
        held = value.get(MISSING)
        return Node("context variable", value.name, None, [] if held is MISSING else [walk.ref(held)])

    def fits(self, node: Node, live: Any) -> bool:
        return isinstance(live, contextvars.ContextVar) and live.name == node.name

    def pairs(self, node: Node, live: Any) -> Iterable[tuple[Ref, Any]]:
        return [(ref, live.get(None)) for ref in node.refs]

    def refusal(self, node: Node, live: Any) -> str:
        unset = not node.refs and contextvars.copy_context().get(live, MISSING) is not MISSING
        return "is set, and cannot be unset" if unset else ""

    def fill(self, build: Build, node: Node, held: Any) -> None:
        if node.refs:
            held.set(build.value(node.refs[0]))


class _Proxy(Kind):
    """A view that shows a mapping; ``refs``: the mapping, none where it is a class's namespace, which is code."""

    name = "proxy"
    immutable = True

    def take(self, walk: Walk, value: types.MappingProxyType[Any, Any]) -> Node:
        return Node("proxy", constant_name(type(value)), None, walk.refs(_shown(value)))

    def pairs(self, node: Node, live: Any) -> Iterable[tuple[Ref, Any]]:
        return zip(node.refs, _shown(live), strict=False)

    def make(self, build: Build, node: Node, live: Any) -> Any:
        if not node.refs:
            if live is MISSING:
                raise ImageError("a view of a class's namespace does not exist yet")
            return live
        mapping = build.value(node.refs[0])
        kept = live is not MISSING and any(held is mapping for held in _shown(live))
        return live if kept else types.MappingProxyType(mapping)


def _shown(proxy: types.MappingProxyType[Any, Any]) -> list[Any]:
    """The mapping behind a view, if it is no class's namespace."""
    return [] if "__module__" in proxy else gc.get_referents(proxy)


SHARED: tuple[tuple[Any, Kind], ...] = (
    (weakref.ref, _Weak()),
    (weakref.ProxyTypes, _WeakProxy()),
    (_WEAK_MAPPINGS, _WeakMapping()),
    (weakref.WeakSet, _WeakSet()),
    (weakref.finalize, _Finalizer()),
    (threading.local, _Local()),
    (_LOCKS, _Lock()),
    (queue.SimpleQueue, _SimpleQueue()),
    (contextvars.ContextVar, _ContextVariable()),
    (types.MappingProxyType, _Proxy()),
)
