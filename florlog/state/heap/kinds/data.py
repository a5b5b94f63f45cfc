"""Tensors, arrays and random generators."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch

from florlog.state.adapters import adapter
from florlog.state.heap.dtypes import dtype_of, dtype_text
from florlog.state.heap.graph import Node, Ref
from florlog.state.heap.kinds.base import MISSING, Build, Kind, Walk
from florlog.state.heap.kinds.files import mapped
from florlog.state.heap.memory import WHOLE, View
from florlog.state.left_out import LeftOutGradient, is_left_out
from florlog.state.tensors import compressed_parts
from florlog.state.tree import flatten, unflatten

TENSOR_HOOKS = ("_backward_hooks", "_post_accumulate_grad_hooks")
"""Attributes of a tensor that are in no ``__dict__``."""
WITHOUT_GRADIENT = "gradient left out"
"""Among the attributes of a tensor: there was a gradient, which is not captured."""
_NO_ATTRIBUTES = (*TENSOR_HOOKS, WITHOUT_GRADIENT)
_RANDOM = (random.Random, torch.Generator, np.random.Generator, np.random.BitGenerator, np.random.RandomState)


class _Tensor(Kind):
    """``own`` is the view; ``refs``: the gradient, which may be left out."""

    name = "tensor"

    def take(self, walk: Walk, value: torch.Tensor) -> Node:
        view = walk.memory.tensor(value, walk.place)
        if view is None:
            return walk.opaque(value, f"a tensor of layout {value.layout} and dtype {value.dtype}")
        kind = type(value)
        grad = value.grad if value.is_leaf else None
        held = dict(own) if (own := getattr(value, "__dict__", None)) else {}
        for name in TENSOR_HOOKS:
            if (hooks := getattr(value, name, None)) is not None:
                held[name] = hooks
        held.pop("grad", None)
        name = walk.class_name(value) if kind is not torch.Tensor else "torch:Tensor"
        if grad is not None and (id(grad) in walk.gradients or is_left_out(grad)):
            return Node("tensor", name, view, (None,), {**walk.named(held), WITHOUT_GRADIENT: True})
        return Node("tensor", name, view, (walk.ref(grad),), walk.named(held) if held else None)

    def steps(self, node: Node) -> Iterator[str]:
        return iter((".grad",))

    def pairs(self, node: Node, live: Any) -> Iterable[tuple[Ref, Any]]:
        return [(node.refs[0], live.grad)] if live.is_leaf else []

    def fits(self, node: Node, live: Any) -> bool:
        """A result of a computation does not: it cannot be cut off from it in place."""
        if not super().fits(node, live) or (live.requires_grad and not live.is_leaf):
            return False
        view: View = node.own
        if view.region == WHOLE:
            # Torch does not give a compressed tensor other contents.
            return str(live.layout) == view.dtype and compressed_parts(live) is None
        return (
            live.layout is torch.strided
            and not live.is_quantized
            and (live.is_conj(), live.is_neg()) == (view.conjugate, view.negative)
        )

    def make(self, build: Build, node: Node, live: Any) -> Any:
        plain, view = _view(build, node.own), node.own
        kind = build.kind_named(node.name)
        if issubclass(kind, torch.nn.Parameter):
            made: Any = torch.nn.Parameter(plain, view.flag)
            return made if kind is torch.nn.Parameter else made.as_subclass(kind)
        if kind is not torch.Tensor:
            plain = plain.as_subclass(kind)
        return plain.requires_grad_() if view.flag else plain

    def fill(self, build: Build, node: Node, held: Any) -> None:
        view = node.own
        if not _stands(build, held, view):
            held.grad = None
            if not view.flag:
                held.requires_grad_(False)
            held.data = torch.Tensor.detach(_view(build, view))
        if held.requires_grad != view.flag:
            held.requires_grad_(view.flag)
        known = node.attributes or {}
        held.grad = LeftOutGradient(held) if WITHOUT_GRADIENT in known else build.value(node.refs[0])
        attributes = {name: ref for name, ref in known.items() if name not in _NO_ATTRIBUTES}
        if attributes or getattr(held, "__dict__", None):
            build.put(held, attributes)
        for name in TENSOR_HOOKS:
            hooks = build.value(known.get(name))
            if getattr(held, name, None) is not hooks:
                setattr(held, name, hooks)  # torch registers all that are in it


def _view(build: Build, view: View) -> torch.Tensor:
    if view.region == WHOLE:
        return build.whole(view.first).to(view.device)
    dtype: Any = getattr(torch, view.dtype)
    if view.region < 0:
        plain = torch.empty_strided(view.shape, view.strides, dtype=dtype, device=view.device)
    else:
        memory = build.memory[view.region]
        plain = torch.empty(0, dtype=dtype, device=view.device)
        offset = memory.storage_offset() + view.first
        plain.set_(memory.untyped_storage(), offset // plain.element_size(), view.shape, view.strides)
    if view.conjugate:
        plain = torch.conj(plain)
    return torch._neg_view(plain) if view.negative else plain


def _stands(build: Build, held: torch.Tensor, view: View) -> bool:
    """Whether a tensor is the view already."""
    if view.region == WHOLE or str(held.dtype) != f"torch.{view.dtype}" or held.shape != view.shape:
        return False
    if view.region < 0:
        return str(held.device) == view.device
    start = build.memory[view.region].data_ptr()
    return held.stride() == view.strides and held.data_ptr() == start + view.first


class _Array(Kind):
    """``own`` is the view."""

    name = "array"
    immutable = True

    def take(self, walk: Walk, value: np.ndarray[Any, Any]) -> Node:
        if value.dtype.hasobject:
            if value.dtype != object or type(value) is not np.ndarray:
                return walk.opaque(value, f"array of {value.dtype}")
            return Node("objects", "", list(value.shape), walk.refs(value.reshape(-1).tolist()))
        if isinstance(value, np.memmap) and (file := mapped(value, walk.class_name(value))) is not None:
            return file
        view = walk.memory.array(value)
        attributes = walk.named(getattr(value, "__dict__", {}))
        return Node("array", walk.class_name(value), view, (), attributes)

    def make(self, build: Build, node: Node, live: Any) -> Any:
        view: View = node.own
        kind, dtype = build.kind_named(node.name), dtype_of(view.dtype)
        if view.region < 0:
            if live is not MISSING and dtype_text(live.dtype) == view.dtype and live.shape == view.shape:
                return live
            made: Any = np.ndarray(view.shape, dtype, bytearray(), 0, view.strides)
        else:
            memory = build.memory[view.region].numpy()
            if live is not MISSING and (
                dtype_text(live.dtype) == view.dtype
                and live.shape == view.shape
                and live.strides == view.strides
                and live.flags.writeable == view.flag
                and live.__array_interface__["data"][0] == memory.__array_interface__["data"][0] + view.first
            ):
                return live
            made = np.ndarray(view.shape, dtype, memory, view.first, view.strides)
        made.flags.writeable = made.flags.writeable and view.flag
        return made if kind is np.ndarray else made.view(kind)

    def fill(self, build: Build, node: Node, held: Any) -> None:
        if node.attributes or getattr(held, "__dict__", None):
            build.put(held, node.attributes)


class _Objects(Kind):
    """An array of objects; ``own`` is its shape."""

    name = "objects"

    def fits(self, node: Node, live: Any) -> bool:
        return isinstance(live, np.ndarray) and live.dtype == object and list(live.shape) == node.own

    def pairs(self, node: Node, live: Any) -> Iterable[tuple[Ref, Any]]:
        return zip(node.refs, live.reshape(-1).tolist(), strict=False)

    def make(self, build: Build, node: Node, live: Any) -> Any:
        return np.empty(node.own, dtype=object)

    def fill(self, build: Build, node: Node, held: Any) -> None:
        for place, ref in zip(np.ndindex(*node.own), node.refs, strict=True):
            held[place] = build.value(ref)


class _Random(Kind):
    """A random generator; ``own`` is its state."""

    name = "random"

    def take(self, walk: Walk, value: Any) -> Node:
        try:
            tree = adapter("", value).capture()
        except Exception as error:  # one of the operating system has no state
            return walk.opaque(value, str(error))
        state = flatten(_without_tensors(tree), "")[0]
        return Node("random", walk.class_name(value), state, (), walk.attributes(value))

    def make(self, build: Build, node: Node, live: Any) -> Any:
        kind = build.kind_named(node.name)
        if issubclass(kind, np.random.Generator):
            return kind(getattr(np.random, _state(node)["bit_generator"])())
        return kind.__new__(kind) if issubclass(kind, random.Random) else kind()

    def fill(self, build: Build, node: Node, held: Any) -> None:
        adapter("", held).restore(_state(node))
        if hasattr(held, "__dict__"):
            build.put(held, node.attributes)


def _state(node: Node) -> Any:
    return _with_tensors(unflatten(node.own, _no_tensor))


def _without_tensors(tree: Any) -> Any:
    """The state of a random generator without tensors: a few kilobytes that need no page of their own."""
    if isinstance(tree, torch.Tensor):
        return ("tensor", tree.numpy().tobytes())
    if isinstance(tree, np.ndarray):
        return ("array", tree.dtype.str, tree.tobytes())
    if isinstance(tree, dict):
        return {key: _without_tensors(item) for key, item in tree.items()}
    if isinstance(tree, tuple | list):
        return type(tree)(map(_without_tensors, tree))
    return tree


def _with_tensors(tree: Any) -> Any:
    if isinstance(tree, tuple) and tree[:1] == ("tensor",):
        return torch.frombuffer(bytearray(tree[1]), dtype=torch.uint8)
    if isinstance(tree, tuple) and tree[:1] == ("array",):
        return np.frombuffer(tree[2], tree[1]).copy()
    if isinstance(tree, dict):
        return {key: _with_tensors(item) for key, item in tree.items()}
    if isinstance(tree, tuple | list):
        return type(tree)(map(_with_tensors, tree))
    return tree


def _no_tensor(key: str) -> torch.Tensor:
    raise AssertionError(key)


OBJECT_ARRAY = _Objects()
DATA: tuple[tuple[Any, Kind], ...] = (
    (torch.Tensor, _Tensor()),
    (np.ndarray, _Array()),
    (_RANDOM, _Random()),
)
