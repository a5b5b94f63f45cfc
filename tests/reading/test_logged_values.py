"""A logged value as its reader gets it: by NumPy alone where NumPy has the dtype."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from florlog_wal import Array

from florlog.state.logged_values import plain
from florlog.state.readable_values import readable
from florlog.state.tensors import tensor_from

TORCH_DTYPES = [
    torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.float16, torch.float32,
    torch.float64, torch.complex64, torch.complex128,
]  # fmt: skip


@pytest.mark.parametrize("dtype", TORCH_DTYPES, ids=str)
def test_a_tensor_is_read_as_the_array_that_torch_makes_of_it(dtype: torch.dtype) -> None:
    tensor = torch.tensor([[0, 1, 2], [3, 4, 100]]).to(dtype)
    found = readable(plain(tensor))
    assert isinstance(found, np.ndarray)
    assert found.dtype == tensor.numpy().dtype
    assert np.array_equal(found, tensor.numpy())
    found[0, 0] = 1  # it is the reader's own
    assert found[0, 0] == 1


@pytest.mark.parametrize("code", ["u2", "u4", "u8"])
def test_an_array_of_unsigned_integers_is_read_as_it_was(code: str) -> None:
    array = np.array([0, 2 ** (8 * int(code[1])) - 1], code)
    assert np.array_equal(readable(plain(array)), array)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float8_e4m3fn], ids=str)
def test_a_dtype_that_numpy_lacks_is_read_as_a_tensor(dtype: torch.dtype) -> None:
    tensor = torch.tensor([1.0, 2.0]).to(dtype)
    found = readable([plain(tensor)])[0]
    assert isinstance(found, torch.Tensor)
    assert torch.equal(found.view(torch.uint8), tensor.view(torch.uint8))


@pytest.mark.parametrize("shape", [(0,), (2, 0), ()])
def test_an_empty_and_a_zero_dimensional_array_keep_their_shape(shape: tuple[int, ...]) -> None:
    assert readable(Array("float32", shape, bytes(np.zeros(shape, "f4").nbytes))).shape == shape


@pytest.mark.parametrize(
    ("dtype", "shape", "data"),
    [
        ("float32", (3,), b"1234"),
        ("float32", (1,), b"123"),
        ("no such dtype", (1,), b"1"),
        ("tensor", (1,), b"1"),
    ],
)
def test_bytes_that_fit_no_array_are_refused(dtype: str, shape: tuple[int, ...], data: bytes) -> None:
    with pytest.raises((ValueError, RuntimeError)):
        tensor_from(dtype, shape, data)
    array = Array(dtype, shape, data)
    assert readable(array) is array
    assert readable([array])[0] is array
