"""A run's tensors from image to image, so that the store can keep a tensor as a difference from the last one.

Whether that pays is the store's choice, by measurement (`florlog_wal.Lineage`): bfloat16 parameters at a small
learning rate and tables of which a step touches few rows shrink many times, dense training in float32 does not.
The last image's bytes are still in the other set of buffers, so bases are not read from disk.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from florlog_wal import PAGE_SIZE, Lineage, PageTable

from florlog.state.tensors import dtype_name, tensor_bytes

MIN_TENSOR_BYTES = 4096
"""The smallest tensor for which a difference is tried: LMDB gives a page of memory to each."""

_Form = tuple[str, tuple[int, ...]]


class Lineages:
    """The lineages of the tensors in one run's images."""

    def __init__(self) -> None:
        self._held: dict[str, tuple[_Form, Lineage]] = {}
        self._now: Mapping[str, torch.Tensor] = {}
        self._before: Mapping[str, torch.Tensor] = {}

    def begin(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """The next image has these tensors, by key."""
        self._before, self._now = self._now, tensors
        held = {}
        for key, tensor in tensors.items():
            if tensor.nbytes < MIN_TENSOR_BYTES:
                continue
            form = (dtype_name(tensor.dtype), tuple(tensor.shape))
            known = self._held.get(key)
            held[key] = known if known is not None and known[0] == form else (form, _lineage(tensor))
        self._held = held

    def go_on(self, table: PageTable) -> None:
        """The recording goes on from an image with this page table; its tensors are the first bases."""
        for name, entry in table.items():
            if entry.kind == "tensor" and entry.size >= MIN_TENSOR_BYTES:
                made = _lineage(torch.empty(entry.shape, dtype=getattr(torch, entry.dtype), device="meta"))
                made.digests = entry.pages
                self._held[name.removesuffix(":")] = ((entry.dtype, entry.shape), made)

    def of(self, keys: Sequence[str]) -> list[Lineage | None]:
        """For each page of the image the lineage of its tensor; ``keys`` names the tensor, "" for none."""
        return [self._held[key][1] if key in self._held else None for key in keys]

    def previous(self, keys: Sequence[str]) -> list[memoryview | None]:
        """For each page of the image, the one that it replaces; None if there is none.

        The view is of a buffer that a later image fills again, perhaps while it is read.
        """
        found: list[memoryview | None] = []
        views: dict[str, memoryview] = {}
        offsets: dict[str, int] = {}
        for key in keys:
            before = self._before.get(key) if key in self._held else None
            if before is None:
                found.append(None)
                continue
            if key not in views:
                views[key] = tensor_bytes(before)
            at = offsets.get(key, 0)
            offsets[key] = at + PAGE_SIZE
            found.append(views[key][at : at + PAGE_SIZE])
        return found


def _lineage(tensor: torch.Tensor) -> Lineage:
    row = tensor.nbytes // tensor.shape[0] if tensor.ndim > 1 else 0
    return Lineage(tensor.itemsize, row)
