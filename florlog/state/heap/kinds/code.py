"""Functions and what is made of them: cells, methods, partials, wrappers, properties, caches."""

from __future__ import annotations

import functools
import sys
import types
from collections.abc import Iterable, Iterator
from typing import Any

from florlog.errors import ImageError
from florlog.state.cpython_holders import cached_results
from florlog.state.heap.graph import Node, Ref
from florlog.state.heap.kinds.base import MISSING, Build, Kind, Walk, all_same
from florlog.state.heap.names import constant_name, function_name
from florlog.state.heap.rules import ATOMS, COMPILERS, is_constant, is_immutable


class _Function(Kind):
    """A function of the program, or one of a library that closes over something that may be the program's.

    ``own``: its first line; ``refs``: its defaults, and its cells.
    """

    name = "function"
    immutable = True

    def take(self, walk: Walk, value: types.FunctionType) -> Node:
        if str(value.__globals__.get("__name__")).startswith(COMPILERS):
            return Node("tool", "builtins:function")
        refs = walk.refs((value.__defaults__, value.__kwdefaults__, *(value.__closure__ or ())))
        own = walk.named(value.__dict__) if value.__dict__ else None
        return Node("function", function_name(value), value.__code__.co_firstlineno, refs, own)

    def steps(self, node: Node) -> Iterator[str]:
        yield from (".__defaults__", ".__kwdefaults__")
        yield from (f".cell({index})" for index in range(len(node.refs) - 2))

    def compared(self, node: Node) -> Any:
        return None  # lines move when statements are added

    def fits(self, node: Node, live: Any) -> bool:
        return (
            isinstance(live, types.FunctionType)
            and function_name(live) == node.name
            and len(live.__closure__ or ()) == len(node.refs) - 2
        )

    def pairs(self, node: Node, live: Any) -> Iterable[tuple[Ref, Any]]:
        parts = (live.__defaults__, live.__kwdefaults__, *(live.__closure__ or ()))
        return zip(node.refs, parts, strict=True)

    def make(self, build: Build, node: Node, live: Any) -> Any:
        cells = tuple(map(build.value, node.refs[2:]))
        if live is not MISSING and all_same(live.__closure__ or (), cells):
            return live
        code = live.__code__ if live is not MISSING else build.code(node.name, node.own)
        if code is None:
            raise ImageError(f"which function {node.name} was is not to be found")
        space = vars(sys.modules[node.name.partition(":")[0]])
        return types.FunctionType(code, space, code.co_name, None, cells)

    def fill(self, build: Build, node: Node, held: Any) -> None:
        held.__defaults__, held.__kwdefaults__ = map(build.value, node.refs[:2])
        build.put(held, node.attributes)


class _Cell(Kind):
    """A variable that functions share."""

    name = "cell"

    def take(self, walk: Walk, value: types.CellType) -> Node:
        try:
            return Node("cell", "", None, [walk.ref(value.cell_contents)])
        except ValueError:
            return Node("cell", "")

    def steps(self, node: Node) -> Iterator[str]:
        return ("" for _ in node.refs)

    def fits(self, node: Node, live: Any) -> bool:
        return isinstance(live, types.CellType)

    def pairs(self, node: Node, live: Any) -> Iterable[tuple[Ref, Any]]:
        try:
            return zip(node.refs, (live.cell_contents,), strict=False)
        except ValueError:
            return ()

    def make(self, build: Build, node: Node, live: Any) -> Any:
        return types.CellType()

    def fill(self, build: Build, node: Node, held: Any) -> None:
        if node.refs:
            held.cell_contents = build.value(node.refs[0])
        else:
            del held.cell_contents


class _Assembled(Kind):
    """An immutable object that is made of parts."""

    immutable = True

    def parts(self, value: Any) -> tuple[Any, ...]:
        raise NotImplementedError

    def own(self, value: Any) -> Any:
        return None

    def assemble(self, build: Build, node: Node, parts: list[Any]) -> Any:
        return build.kind_named(node.name)(*parts)

    def take(self, walk: Walk, value: Any) -> Node:
        return Node(self.name, walk.class_name(value), self.own(value), walk.refs(self.parts(value)))

    def pairs(self, node: Node, live: Any) -> Iterable[tuple[Ref, Any]]:
        return zip(node.refs, self.parts(live), strict=False)

    def make(self, build: Build, node: Node, live: Any) -> Any:
        parts = list(map(build.value, node.refs))
        if live is not MISSING and self.own(live) == node.own and all_same(self.parts(live), parts):
            return live
        return self.assemble(build, node, parts)


class _Method(_Assembled):
    name = "method"

    def parts(self, value: Any) -> tuple[Any, ...]:
        return value.__func__, value.__self__

    def steps(self, node: Node) -> Iterator[str]:
        return iter(("", ".__self__"))

    def assemble(self, build: Build, node: Node, parts: list[Any]) -> Any:
        return types.MethodType(*parts)


class _Builtin(_Assembled):
    name = "builtin"

    def parts(self, value: Any) -> tuple[Any, ...]:
        return (value.__self__,)

    def own(self, value: Any) -> Any:
        return value.__name__

    def steps(self, node: Node) -> Iterator[str]:
        return iter((".__self__",))

    def assemble(self, build: Build, node: Node, parts: list[Any]) -> Any:
        return getattr(parts[0], node.own)


class _Wrapper(_Assembled):
    """A static method or class method in a class."""

    name = "wrapper"

    def parts(self, value: Any) -> tuple[Any, ...]:
        return (value.__func__,)

    def steps(self, node: Node) -> Iterator[str]:
        return iter(("",))


class _Property(_Assembled):
    name = "property"

    def parts(self, value: Any) -> tuple[Any, ...]:
        return value.fget, value.fset, value.fdel


class _Partial(_Assembled):
    name = "partial"

    def parts(self, value: Any) -> tuple[Any, ...]:
        return value.func, value.args, value.keywords

    def take(self, walk: Walk, value: Any) -> Node:
        node = super().take(walk, value)
        node.attributes = walk.named(value.__dict__)
        return node

    def assemble(self, build: Build, node: Node, parts: list[Any]) -> Any:
        made = build.kind_named(node.name)(parts[0])
        made.__setstate__((*parts, None))  # keeps the mapping of keywords itself
        return made

    def fill(self, build: Build, node: Node, held: Any) -> None:
        build.put(held, node.attributes)


class _Cache(Kind):
    """What `functools.lru_cache` made; ``refs``: the function, and what it holds where that can be put back.

    An unbounded cache lies in a mapping, and is state as any mapping is.  What a bounded one holds can be read and not
    put back: it is emptied, which is exact for immutable results of a function that depends on its arguments alone.
    One that holds other objects, such as the only one of its kind, is opaque.
    """

    name = "cache"
    described_as = "a cache"

    def take(self, walk: Walk, value: Any) -> Node:
        results = cached_results(value)
        parts: list[Any] = [value.__wrapped__]
        if isinstance(results, dict) and all(map(_is_portable, results)):
            parts.append(results)
        elif results is None or not all(map(_is_fixed, _values(results))):
            return walk.opaque(value, "a cache that holds objects which it gives out again")
        held = {name: item for name, item in value.__dict__.items() if name != "__wrapped__"}
        return Node("cache", constant_name(value), None, walk.refs(parts), walk.named(held))

    def steps(self, node: Node) -> Iterator[str]:
        return iter((".__wrapped__", ".cache")[: len(node.refs)])

    def fits(self, node: Node, live: Any) -> bool:
        return isinstance(live, functools._lru_cache_wrapper) and constant_name(live) == node.name

    def pairs(self, node: Node, live: Any) -> Iterable[tuple[Ref, Any]]:
        return zip(node.refs, (live.__wrapped__, cached_results(live)), strict=False)

    def fill(self, build: Build, node: Node, held: Any) -> None:
        if len(node.refs) == 1:
            held.cache_clear()
        build.put(held, node.attributes, frozenset({"__wrapped__"}))


def _values(results: Any) -> Any:
    return results.values() if isinstance(results, dict) else results


def _is_plain(value: Any) -> bool:
    return type(value) in ATOMS or is_immutable(value)


def _is_fixed(value: Any) -> bool:
    """Whether nothing can tell a result from one that is computed again."""
    if type(value) in (tuple, frozenset):
        return all(map(_is_fixed, value))
    return _is_plain(value) or is_constant(value)


def _is_portable(key: Any) -> bool:
    """Whether a key of a cache means the same in another process; one of keyword arguments has a mark of its own."""
    return _is_plain(key) or (type(key) is tuple and all(map(_is_plain, key)))


CODE: tuple[tuple[Any, Kind], ...] = (
    (types.FunctionType, _Function()),
    (types.MethodType, _Method()),
    (types.BuiltinFunctionType, _Builtin()),
    (types.CellType, _Cell()),
    (functools.partial, _Partial()),
    (functools._lru_cache_wrapper, _Cache()),
    ((staticmethod, classmethod), _Wrapper()),
    (property, _Property()),
)
