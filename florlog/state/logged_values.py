"""Logged values as the log holds them (`florlog.state.readable_values` has them as readers get them).

Tensors and arrays are copied whole, as bytes with a dtype and a shape; quantized tensors by the numbers that they stand
for.  Whether a tensor required a gradient, its
device, and what computed it are not kept.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np
import torch
from florlog_wal import Array

from florlog.state.tensors import dtype_name, tensor_bytes

_SCALARS = {
    torch.float64, torch.float32, torch.float16, torch.bfloat16,
    torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool,
}  # fmt: skip


def plain(value: Any) -> Any:
    """A logged value as it is now, in types that the value codec knows: tensors and arrays become `Array`."""
    if isinstance(value, torch.Tensor):
        if value.ndim == 0 and value.dtype in _SCALARS:
            return value.item()
        if value.is_quantized:
            value = value.dequantize()
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
    if type(value) is deque:
        return deque(map(plain, value), value.maxlen)
    return value
