"""Putting state back into objects that others refer to, and comparing values bit for bit."""

from __future__ import annotations

import dataclasses
from collections import deque
from typing import Any

import torch
from florlog_wal import encode_value

from florlog.errors import ChangedError
from florlog.state.tensors import dense_part, tensor_bytes
from florlog.state.tree import flatten


def overwrite(tensor: torch.Tensor, saved: torch.Tensor) -> None:
    """Give a tensor the contents of another, in its own memory."""
    if tensor.dtype != saved.dtype:
        raise ChangedError(f"a tracked tensor was {saved.dtype} when recorded and is {tensor.dtype} now")
    with torch.no_grad():
        if tensor.shape != saved.shape:
            tensor.resize_(saved.shape)
        part = dense_part(tensor)
        index = tuple(slice(0, size) for size in part.shape)
        part.copy_(saved[index])


def put_back(live: Any, saved: Any) -> Any:
    """The saved value; where ``live`` is mutable and of the same make, that object with the saved contents.

    Others may refer to the live object.  But a tensor, or an item of a list, may as well be a view of what
    belongs to somebody else, such as the training data, and must not be written to.  So of tensors only those that are
    trained keep their identity, and a list's other items are replaced.
    """
    kind = type(live)
    if live is saved:
        return live
    if isinstance(live, torch.Tensor) and isinstance(saved, torch.Tensor):
        if not is_trained(live) or live.dtype != saved.dtype or live.shape != saved.shape:
            return saved.to(live.device)
        overwrite(live, saved.detach())
        live.grad = saved.grad
        return live
    if kind is not type(saved):
        return saved
    if isinstance(live, dict):
        contents = {key: put_back(live[key], item) if key in live else item for key, item in saved.items()}
        live.clear()
        live.update(contents)
        return live
    if kind is list or (kind is deque and live.maxlen == saved.maxlen):
        paired = zip(live, saved, strict=False)
        items = [put_back(old, new) if is_trained(old) else new for old, new in paired]
        items += list(saved)[len(items) :]
        live.clear()
        live.extend(items)
        return live
    if kind is set:
        live.clear()
        live.update(saved)
        return live
    if kind is bytearray:
        live[:] = saved
        return live
    if kind is tuple and len(live) == len(saved):
        together = tuple(put_back(*pair) for pair in zip(live, saved, strict=True))
        return live if all(a is b for a, b in zip(live, together, strict=True)) else together
    if dataclasses.is_dataclass(kind) and not vars(kind)["__dataclass_params__"].frozen:
        for field in dataclasses.fields(live):
            if hasattr(saved, field.name):
                held = getattr(live, field.name, None)
                object.__setattr__(live, field.name, put_back(held, getattr(saved, field.name)))
        return live
    return saved


def is_trained(value: Any) -> bool:
    """Whether a value is a tensor that collects gradients."""
    return isinstance(value, torch.Tensor) and value.is_leaf and value.requires_grad


def bits(value: Any) -> tuple[bytes, ...]:
    """A value as bytes: two values have equal bytes if they are equal bit for bit."""
    skeleton, tensors = flatten(value, "")
    held = [bytes(tensor_bytes(tensor.cpu().contiguous())) for _, tensor in tensors]
    return (encode_value(skeleton), *held)
