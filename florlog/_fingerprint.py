"""Fingerprints: what an iteration saw and left behind, in microseconds.

Three digests of 8 bytes go with every commit: of torch's CPU RNG, of words sampled from the first tensor of
the item, and of words sampled from tracked CPU parameters.  Redo compares them.  They are a check, not a
proof of the whole state, which is what the page table's digest at an image is for.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import xxhash

_WORDS = 16
_TENSORS = 4


def rng_fingerprint() -> bytes:
    """Digest of the state of torch's default CPU generator."""
    return xxhash.xxh3_64_digest(torch.default_generator.get_state().numpy().data)


def item_fingerprint(item: Any) -> bytes:
    """Digest of sampled words of the item's first CPU tensor or array, b"" without one."""
    found = _first_array(item, 3)
    return b"" if found is None else _sampled(found)


def _first_array(item: Any, depth: int) -> np.ndarray[Any, Any] | None:
    if isinstance(item, torch.Tensor):
        return _bytes_of(item)
    if isinstance(item, np.ndarray) and item.dtype.kind in "biufc" and item.flags.c_contiguous:
        return item.reshape(-1).view(np.uint8)
    if depth and isinstance(item, (list, tuple, dict)):
        for part in item.values() if isinstance(item, dict) else item:
            if (found := _first_array(part, depth - 1)) is not None:
                return found
    return None


def _bytes_of(tensor: torch.Tensor) -> np.ndarray[Any, Any] | None:
    # Each operation of torch costs ten times more between two steps than in a loop by itself, as the step has
    # taken the caches: one is enough for the tensors that loaders give.
    if tensor.device.type != "cpu" or not tensor.is_contiguous():
        return None
    try:
        data = tensor.numpy()
        return data.reshape(-1).view(np.uint8) if data.size else None
    except (RuntimeError, TypeError):  # it requires a gradient, or NumPy has no such dtype
        pass
    try:
        return tensor.detach().reshape(-1).view(torch.uint8).numpy() if tensor.numel() else None
    except (RuntimeError, TypeError):
        return None


def _sampled(data: np.ndarray[Any, Any]) -> bytes:
    step = max(1, len(data) // 8 // _WORDS) * 8
    if len(data) < 8 * _WORDS:
        return xxhash.xxh3_64_digest(np.ascontiguousarray(data).data)
    words = data[: len(data) // 8 * 8].view(np.uint64)[:: step // 8]
    return xxhash.xxh3_64_digest(np.ascontiguousarray(words).data)


class StateFingerprint:
    """Samples words of tracked parameters; the views are kept and renewed when memory moves."""

    def __init__(self) -> None:
        self._watched: dict[str, list[torch.Tensor]] = {}
        self._tensors: list[torch.Tensor] = []
        self._views: list[tuple[int, np.ndarray[Any, Any]]] = []

    def watch(self, name: str, module: torch.nn.Module) -> None:
        """Include a module's first and last CPU parameters, in the place of the last module of that name."""
        parameters = [p for p in module.parameters() if p.device.type == "cpu" and p.numel() > 0]
        chosen: list[torch.Tensor] = [*parameters[: _TENSORS // 2], *parameters[-_TENSORS // 2 :]]
        self._watched[name] = chosen
        self._tensors = list({id(p): p for held in self._watched.values() for p in held}.values())
        self._views = []

    def __call__(self) -> bytes:
        """The digest now, b"" when nothing is watched."""
        if not self._tensors:
            return b""
        if len(self._views) != len(self._tensors) or any(
            tensor.data_ptr() != pointer
            for tensor, (pointer, _) in zip(self._tensors, self._views, strict=True)
        ):
            self._views = [(t.data_ptr(), _view(t)) for t in self._tensors]
        return xxhash.xxh3_64_digest(b"".join([view.tobytes() for _, view in self._views]))


def _view(tensor: torch.Tensor) -> np.ndarray[Any, Any]:
    data = _bytes_of(tensor)
    if data is None:
        return np.zeros(0, dtype=np.uint8)
    if len(data) < 8 * _WORDS:
        return data
    words = data[: len(data) // 8 * 8].view(np.uint64)
    return words[:: max(1, len(words) // _WORDS)]
