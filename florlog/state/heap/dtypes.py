"""The dtypes of arrays as text, those with fields as well."""

from __future__ import annotations

import ast
import functools
from typing import Any

import numpy as np
from numpy.lib import format as npy

_RECORD = "record "


def dtype_text(dtype: np.dtype[Any]) -> str:
    """What `dtype_of` makes the dtype of: its code, or the Python literal of its fields as a .npy file has it.

    Raises ValueError for one whose fields overlap or lie out of order.
    """
    if dtype.names is None:
        return dtype.str
    fields = repr(npy.dtype_to_descr(dtype))
    return _RECORD + fields if issubclass(dtype.type, np.record) else fields


@functools.cache
def dtype_of(text: str) -> np.dtype[Any]:
    """The dtype of a text of `dtype_text`.  Raises ValueError, TypeError or SyntaxError for any other."""
    fields = text.removeprefix(_RECORD)
    if not fields.startswith("["):
        return np.dtype(text)
    dtype = npy.descr_to_dtype(ast.literal_eval(fields))
    return np.dtype((np.record, dtype)) if fields != text else dtype
