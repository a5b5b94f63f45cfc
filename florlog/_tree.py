"""Trees of state, taken apart and put together again.

`flatten` turns a tree into a *skeleton* and a list of tensors.  The skeleton has the tree's structure, with
each tensor replaced by its key; it is made of types that the value codec knows, so it becomes one encoded
host value.  Every node is a pair ``(tag, payload)``:

    v  a plain value            l  list    u  tuple    d  dict (pairs)    o  ordered dict (pairs)
    t  a torch tensor (key)     n  a NumPy array (key)                    s  torch.Size
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from florlog_wal import Array

Skeleton = tuple[str, Any]


def flatten(tree: Any, prefix: str) -> tuple[Skeleton, list[tuple[str, torch.Tensor]]]:
    """The skeleton of ``tree``, and its tensors with their keys, which start with ``prefix``."""
    tensors: dict[str, torch.Tensor] = {}

    def keep(key: str, tensor: torch.Tensor) -> str:
        while key in tensors:  # a name with a dot, or 1 beside "1"
            key += "'"
        tensors[key] = tensor
        return key

    def walk(node: Any, key: str) -> Skeleton:
        if isinstance(node, torch.Tensor):
            return ("t", keep(key, node.detach()))
        if isinstance(node, np.ndarray) and node.dtype.kind in "biufc":
            return ("n", (keep(key, torch.from_numpy(np.array(node))), node.dtype.str))
        if isinstance(node, np.generic):
            return ("v", node.item())
        if isinstance(node, torch.Size):
            return ("s", tuple(node))
        if type(node) is list:
            return ("l", [walk(item, f"{key}.{i}") for i, item in enumerate(node)])
        if type(node) is tuple:
            return ("u", [walk(item, f"{key}.{i}") for i, item in enumerate(node)])
        if isinstance(node, dict):
            pairs = [(name, walk(item, f"{key}.{name}")) for name, item in node.items()]
            return ("o" if isinstance(node, OrderedDict) else "d", pairs)
        return ("v", node)

    return walk(tree, prefix), list(tensors.items())


def unflatten(skeleton: Skeleton, tensor: Callable[[str], torch.Tensor]) -> Any:
    """The tree that `flatten` took apart; ``tensor`` gives the tensor of a key."""
    tag, payload = skeleton
    match tag:
        case "v":
            return payload
        case "t":
            return tensor(payload)
        case "n":
            key, dtype = payload
            return tensor(key).numpy().view(np.dtype(dtype))
        case "s":
            return torch.Size(payload)
        case "l":
            return [unflatten(item, tensor) for item in payload]
        case "u":
            return tuple(unflatten(item, tensor) for item in payload)
        case "d":
            return {name: unflatten(item, tensor) for name, item in payload}
        case "o":
            return OrderedDict((name, unflatten(item, tensor)) for name, item in payload)
    raise ValueError(f"unknown skeleton tag {tag!r}")


def dtype_name(dtype: torch.dtype) -> str:
    """A torch dtype's name: ``"float32"``."""
    return str(dtype).removeprefix("torch.")


def tensor_from(dtype: str, shape: tuple[int, ...], data: bytes | bytearray) -> torch.Tensor:
    """A tensor on the CPU from its bytes; raises ValueError for a dtype that this torch does not have."""
    kind = getattr(torch, dtype, None)
    if not isinstance(kind, torch.dtype):
        raise ValueError(f"this torch has no dtype {dtype!r}")
    if not data:
        return torch.empty(shape, dtype=kind)
    flat = torch.frombuffer(bytearray(data), dtype=torch.uint8)
    return flat.view(kind).reshape(shape)


def tensor_bytes(tensor: torch.Tensor) -> memoryview:
    """The bytes of a contiguous CPU tensor, without a copy."""
    if tensor.numel() == 0:
        return memoryview(b"")
    return tensor.reshape(-1).view(torch.uint8).numpy().data


def plain(value: Any) -> Any:
    """A logged value in types that the value codec knows: tensors and arrays become `Array`."""
    if isinstance(value, torch.Tensor):
        if value.ndim == 0 and value.dtype in _SCALARS:
            return value.item()
        held = value.detach().cpu().contiguous()
        return Array(dtype_name(held.dtype), tuple(held.shape), bytes(tensor_bytes(held)))
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray) and value.dtype.kind in "biufc":
        held_array = np.ascontiguousarray(value)
        return Array(held_array.dtype.name, held_array.shape, held_array.tobytes())
    if type(value) in (list, tuple, set, frozenset):
        return type(value)(plain(item) for item in value)
    if type(value) is dict:
        return {key: plain(item) for key, item in value.items()}
    return value


_SCALARS = {
    torch.float64, torch.float32, torch.float16, torch.bfloat16,
    torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool,
}  # fmt: skip


def readable(value: Any) -> Any:
    """A logged value as its reader gets it: an `Array` as a NumPy array, or a tensor if NumPy lacks the dtype."""
    if isinstance(value, Array):
        tensor = tensor_from(value.dtype, value.shape, value.data)
        try:
            return tensor.numpy()
        except TypeError:
            return tensor
    if type(value) in (list, tuple, set, frozenset):
        return type(value)(readable(item) for item in value)
    if type(value) is dict:
        return {key: readable(item) for key, item in value.items()}
    return value
