"""The memory of tensors and arrays: regions of bytes, and the views into them.

Two views share memory when the memory that their owners hold overlaps.  A *region* is the union of such memory; a view
is its place in a region, its dtype, shape and strides.  So a slice, a transposed tensor, an array made from a tensor
and a flat buffer of gradients come back as what they were.
"""

from __future__ import annotations

import ctypes
import functools
import mmap
import sys
from bisect import bisect_right
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import xxhash
from florlog_wal import Unencodable

from florlog.state.heap.dtypes import dtype_text
from florlog.state.pending import Pending, awaits_gradient
from florlog.state.tensors import is_viewable
from florlog.state.tree import flatten

LARGE_BYTES = 1 << 20
"""Regions of more bytes are not stored while they are what the set-up made: their digest is."""


_PLAIN = (torch.Tensor, torch.nn.Parameter)
WITHOUT_DATA = -1
WHOLE = -2
"""In the place of a region's number: no bytes; a tensor that is kept as a whole, such as a sparse one."""


@dataclass(slots=True)
class View:
    """How a tensor or array sees memory: from byte ``first`` of a region; strides as torch or NumPy counts them.

    ``region`` may be `WITHOUT_DATA`, or `WHOLE` with the number among those in ``first`` and the layout as ``dtype``.
    ``flag``: of a tensor, whether it collects gradients; of an array, whether it may be written to.  ``conjugate`` and
    ``negative``: how torch reads the bytes.
    """

    region: int
    first: int
    dtype: str
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    flag: bool
    device: str
    conjugate: bool = False
    negative: bool = False


@dataclass(slots=True)
class _Extent:
    """The memory that the owner of one view holds."""

    start: int
    stop: int
    owner: Any
    view: View
    first: int  # the byte in it at which the view begins


class Constants:
    """Large regions as they were at a run's first capture: what did not change since need not be stored."""

    def __init__(self) -> None:
        self._digests: dict[tuple[int, int], bytes] = {}
        self._closed = False
        self._changed: set[tuple[int, int]] = set()

    def unchanged(self, start: int, stop: int, data: memoryview) -> bytes | None:
        """The digest of a region that is as the first capture found it; None for any other."""
        key = (start, stop)
        if key in self._changed:
            return None
        digest = xxhash.xxh3_128_digest(data)
        if not self._closed:
            self._digests[key] = digest
        if self._digests.get(key) == digest:
            return digest
        self._changed.add(key)
        return None

    def close(self) -> None:
        """The first capture is over: regions that appear from now on are stored."""
        self._closed = True


class Memory:
    """The regions of one capture."""

    def __init__(self, tracked: Iterable[torch.Tensor], constants: Constants | None = None) -> None:
        self.extents: list[_Extent] = []
        self._whole: list[Any] = []
        self._constants = constants
        spans = set()
        for tensor in tracked:
            if tensor.layout is torch.strided and not tensor.is_meta and tensor.numel():
                start = tensor.data_ptr()
                spans.add((start, start + _extent(tensor)))
        self._elsewhere = _merged(sorted(spans))
        self._files: list[tuple[int, int]] = []  # memory that is a file's: reading it all may take minutes
        self._always_stored: set[int] = (
            set()
        )  # where memory begins that no set-up makes again in the same place

    def tensor(self, value: torch.Tensor, place: Callable[[], str]) -> View | None:
        """The view of a tensor; None where its data cannot be taken.  Raises `Pending`, with the ``place``."""
        if value.grad_fn is not None and awaits_gradient(value.grad_fn):
            raise Pending(place())
        try:
            # A plain tensor is read as it is: nothing of a subclass runs then.
            plain = value if type(value) in _PLAIN else torch.Tensor.detach(value)
            trained = value.requires_grad and value.is_leaf
            if plain.layout is not torch.strided or plain.is_quantized:
                return self._complete(torch.Tensor.detach(plain), trained)
            if type(plain) not in _PLAIN:
                plain = plain.as_subclass(torch.Tensor)
            conjugate, negative = plain.is_conj(), plain.is_neg()
            if negative:
                plain = torch._neg_view(plain)
            if conjugate:
                plain = torch.conj(plain)
            view = View(
                WITHOUT_DATA, 0, _name(plain.dtype), tuple(plain.shape), plain.stride(), trained, _name(plain.device),
                conjugate, negative,
            )  # fmt: skip
            if plain.is_meta or plain.numel() == 0:
                return view
            storage = plain.untyped_storage()
            start = storage.data_ptr()
            first = plain.data_ptr() - start
            self.extents.append(_Extent(start, start + storage.nbytes(), plain, view, first))
            return view
        except (RuntimeError, NotImplementedError, TypeError, ValueError):
            return None

    def _complete(self, plain: torch.Tensor, trained: bool) -> View | None:
        try:
            flatten(plain, "")
        except Unencodable:
            return None
        self._whole.append(plain)
        number, layout = len(self._whole) - 1, str(plain.layout)
        return View(WHOLE, number, layout, tuple(plain.shape), (), trained, str(plain.device))

    def array(self, value: np.ndarray[Any, Any]) -> View:
        """The view of an array.  Raises ValueError for a dtype that `dtype_text` cannot say."""
        dtype = dtype_text(value.dtype)
        view = View(WITHOUT_DATA, 0, dtype, value.shape, value.strides, value.flags.writeable, "numpy")
        if value.size == 0:
            return view
        owner = value
        while isinstance(owner.base, np.ndarray):
            owner = owner.base
        address = value.__array_interface__["data"][0]
        base: Any = owner.base
        if isinstance(base, torch.Tensor):
            storage = base.untyped_storage()
            low, high = storage.data_ptr(), storage.data_ptr() + storage.nbytes()
        else:
            low, high = np.lib.array_utils.byte_bounds(owner)
        if isinstance(base, mmap.mmap):
            self._files.append((low, high))
        self.extents.append(_Extent(low, high, owner, view, address - low))
        return view

    def always_stored(self, value: np.ndarray[Any, Any]) -> None:
        """Say of an array's memory that its bytes are to be stored, also where they are large and do not change."""
        self._always_stored.add(value.__array_interface__["data"][0])

    def regions(self) -> list[Any]:
        """The bytes of all regions, each a flat tensor or what stands for it; the views get their places in them."""
        starts = [extent.start for extent in self.extents]
        order = sorted(range(len(starts)), key=starts.__getitem__)
        merged: list[list[int]] = []
        stop = -1
        for number in order:
            extent = self.extents[number]
            if not merged or extent.start >= stop:
                merged.append([])
                stop = extent.stop
            merged[-1].append(number)
            stop = max(stop, extent.stop)
        merged.sort(key=min)  # in the order in which the walk met them
        made = []
        for place, numbers in enumerate(merged):
            extents = [self.extents[number] for number in numbers]
            start, stop = extents[0].start, extents[0].stop
            for extent in extents:
                extent.view.region = place
                extent.view.first = extent.start + extent.first - start
                stop = max(stop, extent.stop)
            made.append(self._region(extents[0].owner, start, stop))
        return [*made, *(("whole", tensor) for tensor in self._whole)]

    def _region(self, owner: Any, start: int, stop: int) -> Any:
        size = stop - start
        if self._is_elsewhere(start, stop) or any(low <= start and stop <= high for low, high in self._files):
            return ("elsewhere", size)
        data = _flat(owner, start, size)
        constants = None if start in self._always_stored else self._constants
        if constants is not None and size > LARGE_BYTES and data.device.type == "cpu":
            view = data.view(torch.uint8).numpy().data
            if (digest := constants.unchanged(start, stop, view)) is not None:
                return ("constant", size, digest)
        return ("bytes", data)

    def _is_elsewhere(self, start: int, stop: int) -> bool:
        """Whether tracked tensors cover a region."""
        at = bisect_right(self._elsewhere, (start, sys.maxsize)) - 1
        return at >= 0 and self._elsewhere[at][1] >= stop


def flat_memory(live: Any) -> tuple[int, torch.Tensor, int] | None:
    """Address and bytes of the memory that a tensor's or array's owner holds, and the first byte of the view in it."""
    memory = Memory(())
    view: View | None = memory.array(live) if isinstance(live, np.ndarray) else memory.tensor(live, str)
    if view is None or view.region == WHOLE or not memory.extents:
        return None
    (extent,) = memory.extents
    data = _flat(extent.owner, extent.start, extent.stop - extent.start)
    return extent.start, data.view(torch.uint8), extent.first


def is_read_only(live: Any) -> bool:
    """Whether nobody may write into what an array views, such as the memory of a bytes object or of a JAX array."""
    owner = live
    while isinstance(owner, np.ndarray) and isinstance(owner.base, np.ndarray):
        owner = owner.base
    if not isinstance(owner, np.ndarray) or owner.flags.owndata or owner.flags.writeable:
        return False
    base: Any = owner.base
    return isinstance(base, bytes) or (isinstance(base, memoryview) and base.readonly)


@functools.cache
def _name(kind: Any) -> str:
    """The name of a dtype or device."""
    return str(kind).removeprefix("torch.")


def _merged(spans: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Spans of memory in order, with those that meet put together."""
    found: list[tuple[int, int]] = []
    for low, high in spans:
        if found and low <= found[-1][1]:
            found[-1] = found[-1][0], max(high, found[-1][1])
        else:
            found.append((low, high))
    return found


def _extent(tensor: torch.Tensor) -> int:
    """How many bytes a tensor reaches from its first element on."""
    if tensor.is_contiguous():
        return int(tensor.nbytes)
    last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return (last + 1) * tensor.element_size()


def _flat(owner: Any, start: int, size: int) -> torch.Tensor:
    """Memory as a flat tensor, of the owner's dtype where the size is a multiple of its items'."""
    if isinstance(owner, torch.Tensor):
        storage = owner.untyped_storage()
        if storage.data_ptr() == start and storage.nbytes() == size:
            whole = size % owner.element_size() == 0 and is_viewable(owner.dtype)
            dtype = owner.dtype if whole else torch.uint8
            flat = torch.empty(0, dtype=dtype, device=owner.device)
            return flat.set_(storage, 0, (size // flat.element_size(),), (1,))
        if owner.device.type != "cpu":
            raise ValueError("memory on a device that several storages share")
    span: Any = (ctypes.c_uint8 * size).from_address(start)
    span.owner = owner  # an array that was made for the capture has no other holder
    held = np.ctypeslib.as_array(span)
    flat = torch.from_numpy(held)
    try:
        numbers = (
            owner.dtype
            if isinstance(owner, torch.Tensor)
            else torch.from_numpy(np.empty(0, owner.dtype)).dtype
        )
        return flat.view(numbers)
    except (TypeError, RuntimeError, ValueError):
        return flat
