"""Trees of state, taken apart and put together again.

`flatten` turns a tree into a *skeleton* and a list of tensors.  The skeleton has the tree's structure, with
each tensor replaced by its key; it is made of types that the value codec knows, so it becomes one encoded
host value.  Every node is a pair ``(tag, payload)``:

    v  a plain value, or a container of nothing but plain values
    l  list    u  tuple    e  set    f  frozenset    q  deque (maxlen, items)
    d  dict (pairs)    o  OrderedDict    c  Counter    m  defaultdict (factory, pairs)
    t  a dense tensor (key)              w  a tensor of another memory order, or expanded (key, order, shape)
    s  a sparse tensor                       r  a tensor that requires a gradient (tensor, gradient)
    k  a compressed sparse tensor (compressed indices, plain indices, values, shape, layout)
    z  a quantized tensor (integers, scale, zero point, axis or None)
    n  a NumPy array (key, dtype, shape, order)
    g  a NumPy scalar (dtype, bytes)
    x  an object with a codec (name, state)    y  an enumeration's member, dataclass, named tuple (name, fields)

A tensor's order in memory is part of its state: sums depend on it.  A tensor that occurs twice is kept
once, and comes back as one.  Whatever has no tag is refused by its type and place; a subclass of a known
type is another type, because what it adds would be lost.
"""

from __future__ import annotations

import functools
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any, TypeAlias

import numpy as np
import torch
from florlog_wal import Array, Unencodable

from florlog.state.codecs import codec_of, decode, fields_of, with_fields
from florlog.state.pending import Pending, awaits_gradient
from florlog.state.tensors import compressed_parts, dense_part, dtype_name, is_viewable, put_together

StateTree: TypeAlias = Any
"""The state of an object as a tree: plain values, tensors, arrays, and containers of them."""

Skeleton = tuple[str, Any]


_MAX_LEVELS = 30  # of a tree; the value codec takes 100, and a level of a skeleton is three
_PLAIN = frozenset({type(None), bool, int, float, complex, str, bytes})
_FACTORIES: dict[Any, str] = {None: "", list: "list", dict: "dict", set: "set", int: "int", float: "float"}
_ITEMS: dict[type, str] = {list: "l", tuple: "u", set: "e", frozenset: "f"}
_PAIRS: dict[type, str] = {dict: "d", OrderedDict: "o", Counter: "c"}
_ARRAYS = "biufcmMSU"
_COMMON = frozenset({torch.float32, torch.bfloat16, torch.float16, torch.float64, torch.int64, torch.bool})


def flatten(tree: Any, prefix: str) -> tuple[Skeleton, list[tuple[str, torch.Tensor]]]:
    """The skeleton of ``tree``, and its tensors with their keys, which start with ``prefix``.

    Raises `florlog_wal.Unencodable` for a leaf that cannot be captured, `Pending` for one with a gradient to come.
    """
    flattener = _Flattener()
    return flattener.walk(tree, prefix, 0), list(flattener.tensors.items())


class _Flattener:
    def __init__(self) -> None:
        self.tensors: dict[str, torch.Tensor] = {}
        self._keys_by_address: dict[int, list[str]] = {}

    def _keep(self, key: str, tensor: torch.Tensor) -> str:
        pointer = tensor.data_ptr()
        same = self._keys_by_address.get(pointer) if pointer else None
        if same is not None:
            for held in same:
                if _is_same(self.tensors[held], tensor):
                    return held
        while key in self.tensors:  # a name with a dot, or both 1 and "1"
            key += "'"
        self.tensors[key] = tensor
        if same is not None:
            same.append(key)
        elif pointer:
            self._keys_by_address[pointer] = [key]
        return key

    def walk(self, node: Any, key: str, depth: int) -> Skeleton:
        if isinstance(node, torch.Tensor):
            return self._tensor(node, key)
        kind = type(node)
        if kind in _PLAIN or kind is Array:
            return ("v", node)
        if depth >= _MAX_LEVELS:
            raise Unencodable(f"{kind.__name__} nested deeper than {_MAX_LEVELS}", key)
        if (tag := _ITEMS.get(kind)) is not None:
            if _PLAIN.issuperset(map(type, node)):
                return ("v", node)
            return (tag, [self.walk(item, f"{key}.{i}", depth + 1) for i, item in enumerate(node)])
        if (tag := _PAIRS.get(kind)) is not None:
            return (tag, self._pairs(node, key, depth))
        if kind is deque:
            items = [self.walk(item, f"{key}.{i}", depth + 1) for i, item in enumerate(node)]
            return ("v", node) if _PLAIN.issuperset(map(type, node)) else ("q", (node.maxlen, items))
        if kind is defaultdict and node.default_factory in _FACTORIES:
            return ("m", (_FACTORIES[node.default_factory], self._pairs(node, key, depth)))
        if kind is np.ndarray and node.dtype.kind in _ARRAYS and not node.dtype.hasobject:
            return self._array(node, key)
        if isinstance(node, np.generic) and node.dtype.kind in _ARRAYS:
            held = np.asarray(node)  # its dtype has an item size also for an empty text
            return ("g", (held.dtype.str, held.tobytes()))
        if (codec := codec_of(kind)) is not None:
            return ("x", (codec.name, self.walk(codec.encode(node), key, depth + 1)))
        if (fields := fields_of(node)) is not None:
            return ("y", (fields[0], self._pairs(fields[1], key, depth)))
        raise Unencodable(_kind_name(node), key)

    def _pairs(self, node: dict[Any, Any], key: str, depth: int) -> list[tuple[Skeleton, Skeleton]]:
        made = []
        tensor, keep = torch.Tensor, self._keep
        for name, item in node.items():
            label = ("v", name) if type(name) is str else self.walk(name, key, depth + 1)
            if (  # as in `_tensor`, without its call: a state is mostly this
                type(item) is tensor
                and item.dtype in _COMMON
                and not (item.requires_grad or item.is_meta)
                and item.layout is torch.strided
                and item.is_contiguous()
            ):
                made.append((label, ("t", keep(f"{key}.{name}", item))))
            else:
                made.append((label, self.walk(item, f"{key}.{name}", depth + 1)))
        return made

    def _tensor(self, node: torch.Tensor, key: str) -> Skeleton:
        if (
            type(node) is torch.Tensor
            and not node.requires_grad
            and node.layout is torch.strided
            and node.device.type != "meta"
            and node.is_contiguous()
            and is_viewable(node.dtype)
        ):
            return ("t", self._keep(key, node))  # nearly all; the rest takes what follows
        if node.requires_grad and node.is_leaf:
            grad = None if node.grad is None else self._tensor(node.grad.detach(), f"{key}.grad")
            return ("r", (self._tensor(node.detach(), key), grad))
        if node.grad_fn is not None and awaits_gradient(node.grad_fn):
            raise Pending(key)
        node = node.detach()
        if node.layout is torch.sparse_coo:
            parts = (
                self._tensor(node._indices(), f"{key}.indices"),
                self._tensor(node._values(), f"{key}.values"),
            )
            return ("s", (*parts, tuple(node.shape), node.is_coalesced()))
        if compressed := compressed_parts(node):
            taken = (self._tensor(part, f"{key}.{number}") for number, part in enumerate(compressed))
            return ("k", (*taken, tuple(node.shape), dtype_name(node.layout)))
        if node.is_quantized and node.layout is torch.strided and (parameters := _quantizer(node)):
            integers = self._tensor(node.int_repr(), f"{key}.integers")
            return ("z", (integers, *(self.walk(held, f"{key}.{i}", 0) for i, held in enumerate(parameters))))
        if problem := _refusal(node):
            raise Unencodable(problem, key)
        if node.is_contiguous():
            return ("t", self._keep(key, node))
        part = dense_part(node)
        order = sorted(range(part.ndim), key=part.stride, reverse=True)
        return ("w", (self._keep(key, part.permute(order)), order, tuple(node.shape)))

    def _array(self, node: np.ndarray[Any, Any], key: str) -> Skeleton:
        order = sorted(range(node.ndim), key=lambda dim: -abs(node.strides[dim]))
        if node.flags.c_contiguous:
            order.sort()
        turned = node.transpose(order)
        flat = np.ascontiguousarray(turned)
        if not flat.flags.writeable or any(stride < 0 for stride in flat.strides):
            flat = flat.copy()
        try:
            held = torch.from_numpy(flat)
        except (
            TypeError,
            ValueError,
        ):  # big-endian, text, a date: torch has no such dtype, its bytes will do
            held = torch.from_numpy(flat.reshape(-1).view(np.uint8))
        return ("n", (self._keep(key, held), node.dtype.str, turned.shape, order))


def _is_same(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether two tensors at one address are the same in all that a copy shows."""
    return (
        one.numel() > 0
        and one.dtype == other.dtype
        and one.shape == other.shape
        and one.stride() == other.stride()
        and one.device == other.device
        and one.is_conj() == other.is_conj()
        and one.is_neg() == other.is_neg()
    )


def _quantizer(node: torch.Tensor) -> tuple[Any, Any, int | None] | None:
    """Scale, zero point and axis of a quantized tensor whose integers are bytes or words; else None."""
    if node.dtype not in (torch.qint8, torch.quint8, torch.qint32):
        return None
    if node.qscheme() is torch.per_tensor_affine:
        return node.q_scale(), node.q_zero_point(), None
    if node.qscheme() in (torch.per_channel_affine, torch.per_channel_affine_float_qparams):
        return node.q_per_channel_scales(), node.q_per_channel_zero_points(), node.q_per_channel_axis()
    return None


def _refusal(node: torch.Tensor) -> str:
    """Why a tensor cannot be captured, "" if it can."""
    if type(node) is not torch.Tensor:
        return f"tensor of type {type(node).__name__}"
    if node.device.type == "meta":
        return "tensor without data (device meta)"
    if node.layout is not torch.strided or not is_viewable(node.dtype):
        return f"tensor of layout {node.layout} and dtype {dtype_name(node.dtype)}"
    return ""


def _kind_name(node: Any) -> str:
    if isinstance(node, np.ndarray):
        return f"{type(node).__name__} of dtype {node.dtype}"
    return type(node).__qualname__


def tensor_keys(skeleton: Skeleton) -> list[str]:
    """The keys of all tensors for which `unflatten` asks, in order."""
    return list(dict.fromkeys(_keys(skeleton)))


def _keys(skeleton: Skeleton) -> Iterator[str]:
    tag, payload = skeleton
    match tag:
        case "t":
            yield payload
        case "w" | "n":
            yield payload[0]
        case "l" | "u" | "e" | "f":
            yield from chain.from_iterable(map(_keys, payload))
        case "d" | "o" | "c":
            yield from _keys_of_pairs(payload)
        case "m" | "y":
            yield from _keys_of_pairs(payload[1])
        case "q":
            yield from chain.from_iterable(map(_keys, payload[1]))
        case "x":
            yield from _keys(payload[1])
        case "s":
            yield from chain.from_iterable(map(_keys, payload[:2]))
        case "k":
            yield from chain.from_iterable(map(_keys, payload[:3]))
        case "z":
            yield from chain.from_iterable(map(_keys, payload))
        case "r":
            yield from chain.from_iterable(_keys(part) for part in payload if part is not None)


def _keys_of_pairs(payload: list[tuple[Skeleton, Skeleton]]) -> Iterator[str]:
    return chain.from_iterable(map(_keys, chain.from_iterable(payload)))


def unflatten(skeleton: Skeleton, tensor: Callable[[str], torch.Tensor]) -> Any:
    """The tree that `flatten` took apart; ``tensor`` gives the tensor of a key, and is asked once for each."""
    return _Unflattener(functools.cache(tensor)).build(skeleton)


class _Unflattener:
    def __init__(self, tensor: Callable[[str], torch.Tensor]) -> None:
        self._tensor = tensor

    def build(self, skeleton: Skeleton) -> Any:
        tag, payload = skeleton
        match tag:
            case "v":
                return payload
            case "t":
                return self._tensor(payload)
            case "l":
                return [self.build(item) for item in payload]
            case "u":
                return tuple(self.build(item) for item in payload)
            case "e":
                return {self.build(item) for item in payload}
            case "f":
                return frozenset(self.build(item) for item in payload)
            case "q":
                return deque((self.build(item) for item in payload[1]), payload[0])
            case "d":
                return self._pairs(payload)
            case "o":
                return OrderedDict(self._pairs(payload))
            case "c":
                return Counter(self._pairs(payload))
            case "m":
                factory = next(known for known, name in _FACTORIES.items() if name == payload[0])
                return defaultdict(factory, self._pairs(payload[1]))
            case "n":
                key, dtype, shape, order = payload
                flat = self._tensor(key).numpy().reshape(-1).view(np.uint8).view(np.dtype(dtype))
                return flat.reshape(shape).transpose(_inverse(order))
            case "g":
                dtype, data = payload
                return np.frombuffer(data, dtype)[0]
            case "x":
                return decode(payload[0], self.build(payload[1]))
            case "y":
                return with_fields(payload[0], self._pairs(payload[1]))
            case "w" | "s" | "r" | "z" | "k":
                return self._special(tag, payload)
        raise ValueError(f"unknown skeleton tag {tag!r}")

    def _pairs(self, payload: list[tuple[Skeleton, Skeleton]]) -> dict[Any, Any]:
        return {self.build(name): self.build(item) for name, item in payload}

    def _special(self, tag: str, payload: Any) -> torch.Tensor:
        if tag == "w":
            key, order, shape = payload
            held = self._tensor(key)
            return held.permute(_inverse(order)).expand(shape)
        if tag == "s":
            indices, values, shape, coalesced = payload
            parts = self.build(indices), self.build(values)
            return torch.sparse_coo_tensor(*parts, shape, is_coalesced=coalesced, check_invariants=False)
        if tag == "k":
            *taken, shape, layout = payload
            return put_together([self.build(part) for part in taken], shape, layout)
        if tag == "z":
            integers, scale, zero, axis = (self.build(part) for part in payload)
            if axis is None:
                return torch._make_per_tensor_quantized_tensor(integers, scale, zero)
            return torch._make_per_channel_quantized_tensor(integers, scale, zero, axis)
        data, grad = payload
        trained: torch.Tensor = self.build(data).requires_grad_()
        trained.grad = None if grad is None else self.build(grad)
        return trained


def _inverse(order: list[int]) -> list[int]:
    return sorted(range(len(order)), key=order.__getitem__)
