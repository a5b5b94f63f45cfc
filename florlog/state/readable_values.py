"""Logged values as their readers get them."""

from __future__ import annotations

from typing import Any

import numpy as np
from florlog_wal import Array


def readable(value: Any) -> Any:
    """A logged value for its reader: an `Array` is a NumPy array, or a torch tensor if NumPy lacks its dtype.

    Only the latter imports torch.  An `Array` of a dtype that torch lacks too, or of a shape that does not fit its
    bytes, stays what it is.
    """
    if isinstance(value, Array):
        try:
            return _array(value)
        except (ValueError, RuntimeError):
            return value
    if type(value) in (list, tuple, set, frozenset):
        return type(value)(readable(item) for item in value)
    if type(value) is dict:
        return {key: readable(item) for key, item in value.items()}
    return value


def _array(value: Array) -> Any:
    dtype = _NUMPY_DTYPES.get(value.dtype)
    if dtype is not None:
        return np.frombuffer(bytearray(value.data), dtype).reshape(value.shape)
    from florlog.state.tensors import tensor_from  # which imports torch

    return tensor_from(value.dtype, value.shape, value.data)


_NUMPY_DTYPES = {
    name: np.dtype(name)
    for name in (
        "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64",
        "float16", "float32", "float64", "complex64", "complex128",
    )
}  # fmt: skip
