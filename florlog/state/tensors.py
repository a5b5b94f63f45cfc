"""Tensors as bytes and back, and the part of one that has memory of its own."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import torch

_BY_ROWS = (torch.sparse_csr, torch.sparse_bsr)
_BY_COLUMNS = (torch.sparse_csc, torch.sparse_bsc)


def dtype_name(dtype: torch.dtype | torch.layout) -> str:
    """A torch dtype's or layout's name: ``"float32"``."""
    return str(dtype).removeprefix("torch.")


def tensor_from(dtype: str, shape: tuple[int, ...], data: bytes | bytearray | memoryview) -> torch.Tensor:
    """A tensor on the CPU from its bytes.

    Raises ValueError for a dtype that this torch does not have, and for a shape that does not fit the bytes; nothing is
    allocated then.  Memory that can be written to, a bytearray or a view, becomes the tensor's.
    """
    kind = getattr(torch, dtype, None)
    if not isinstance(kind, torch.dtype):
        raise ValueError(f"this torch has no dtype {dtype!r}")
    if math.prod(shape) * kind.itemsize != len(data):
        raise ValueError(f"a shape of {shape!r:.60} does not fit {len(data)} bytes of {dtype}")
    if not data:
        return torch.empty(shape, dtype=kind)
    flat = torch.frombuffer(bytearray(data) if memoryview(data).readonly else data, dtype=torch.uint8)
    return flat.view(kind).reshape(shape)


def tensor_bytes(tensor: torch.Tensor) -> memoryview:
    """The bytes of a contiguous CPU tensor, without a copy unless it is a lazy conjugate or negative."""
    if tensor.numel() == 0:
        return memoryview(b"")
    return tensor.resolve_conj().resolve_neg().reshape(-1).view(torch.uint8).numpy().data


def dense_part(tensor: torch.Tensor) -> torch.Tensor:
    """The part of an expanded tensor that has memory of its own; any other tensor as it is."""
    for dim, (size, stride) in enumerate(zip(tensor.shape, tensor.stride(), strict=True)):
        if stride == 0 and size > 1:
            tensor = tensor.narrow(dim, 0, 1)
    return tensor


@functools.cache
def is_viewable(dtype: torch.dtype) -> bool:
    """Whether torch can copy tensors of a dtype and view their bytes."""
    if dtype in (torch.qint8, torch.quint8, torch.qint32, torch.quint4x2, torch.quint2x4):
        return False
    try:
        torch.empty(1, dtype=dtype).copy_(torch.empty(1, dtype=dtype)).view(torch.uint8)
    except (RuntimeError, NotImplementedError):
        return False
    return True


def compressed_parts(tensor: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor] | None:
    """Compressed indices, plain indices and values of a compressed sparse tensor; None for any other."""
    if tensor.layout in _BY_ROWS:
        return tensor.crow_indices(), tensor.col_indices(), tensor.values()
    if tensor.layout in _BY_COLUMNS:
        return tensor.ccol_indices(), tensor.row_indices(), tensor.values()
    return None


def put_together(parts: Sequence[torch.Tensor], shape: tuple[int, ...], layout: str) -> torch.Tensor:
    """The compressed sparse tensor that `compressed_parts` took apart.  Raises ValueError for any other layout."""
    compressed, plain, values = parts
    for known in (*_BY_ROWS, *_BY_COLUMNS):
        if dtype_name(known) == layout:
            return torch.sparse_compressed_tensor(
                compressed, plain, values, list(shape), layout=known, check_invariants=True
            )
    raise ValueError(f"{layout!r} is no layout of compressed sparse tensors")
