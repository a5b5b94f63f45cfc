"""A delta log: state that only changes by recorded edits, kept as a base and the edits since (LWCP, ICPP 2019).

A replay buffer, a vocabulary, a graph under construction grow by small edits.  Writing them out whole at each image
would cost their size each time.  A delta log keeps the encoded base, and the encoded edits in sealed chunks: an image
stores only the chunks that are new, by their digests.  When the edits have become larger than the base, the present
state becomes the base: so at most twice the state is kept, and an edit is rewritten a constant number of times.

An edit must be applied by `DeltaLog.append` alone, and ``apply`` must depend on nothing but its arguments.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from florlog_wal import Array, Unencodable, decode_value, encode_value

from florlog.errors import TrackError
from florlog.state.inplace import put_back
from florlog.state.tensors import dtype_name, tensor_bytes, tensor_from
from florlog.state.tree import flatten, unflatten

CHUNK_BYTES = 1 << 18
"""Size at which a chunk is sealed: at most this much of the edits is written again with an image."""

Apply = Callable[[Any, Any], Any]


class DeltaLog:
    """A value that changes only by edits.  Made by `Run.delta_log`."""

    def __init__(
        self, name: str, value: Any, apply: Apply, refuse: Callable[[Exception], None] | None = None
    ) -> None:
        """``refuse`` is called for what has no encoding, in place of raising `TrackError`; edits are applied then."""
        self.value = value
        """The present state: the object that was given, changed in place."""
        self._name = name
        self._apply = apply
        self._refuse = refuse
        self._lost: TrackError | None = None
        """Why the edits do not give the value any more."""
        self._base = b""
        self._sealed: list[torch.Tensor] = []
        self._open = bytearray()
        self._rebase()

    def append(self, edit: Any) -> None:
        """Apply an edit to the value, and record it.  Raises `TrackError` for an edit that has no encoding."""
        encoded = self._encoded(edit)
        self._apply(self.value, edit)
        if self._lost is not None:
            return
        self._open += len(encoded).to_bytes(8, "little") + encoded
        if len(self._open) >= CHUNK_BYTES:
            self._sealed.append(_tensor(bytes(self._open)))
            self._open.clear()
            if sum(chunk.numel() for chunk in self._sealed) > len(self._base):
                self._rebase()

    def __len__(self) -> int:
        return len(self.value)

    def state_dict(self) -> dict[str, Any]:
        """The base and the edits since; `contents` reads it.  Raises `TrackError` where one had no encoding."""
        if self._lost is not None:
            raise self._lost
        return {"base": _tensor(self._base), "edits": [*self._sealed, _tensor(bytes(self._open))]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put the base back into the value, and apply the edits.  `TrackError`: it cannot be changed in place."""
        base, edits = contents(state)
        if put_back(self.value, base) is not self.value:
            raise TrackError(f"the value of delta log {self._name!r} cannot be changed in place")
        for edit in edits:
            self._apply(self.value, edit)
        self._base = bytes(tensor_bytes(state["base"].contiguous()))
        chunks = [chunk.clone() for chunk in state["edits"]]
        self._sealed, self._open = chunks[:-1], bytearray(tensor_bytes(chunks[-1]))

    def _encoded(self, value: Any) -> bytes:
        if self._lost is not None:
            return b""
        try:
            return _encode(value)
        except Exception as error:  # torch's own too, of a tensor without data
            what = f"a {error.type_name}" if isinstance(error, Unencodable) else f"a {type(value).__name__}"
            lost = TrackError(f"delta log {self._name!r} cannot keep {what}: {error}")
            if self._refuse is None:
                raise lost from None
            self._lost = lost
            self._refuse(lost)
            return b""

    def _rebase(self) -> None:
        self._base = self._encoded(self.value)
        self._sealed = []
        self._open.clear()


def contents(state: dict[str, Any]) -> tuple[Any, list[Any]]:
    """The base of a delta log and the edits since, in order, from what its ``state_dict`` gave."""
    edits = []
    for chunk in state["edits"]:
        data = bytes(tensor_bytes(chunk.contiguous()))
        at = 0
        while at < len(data):
            size = int.from_bytes(data[at : at + 8], "little")
            edits.append(_decode(data[at + 8 : at + 8 + size]))
            at += 8 + size
    return _decode(bytes(tensor_bytes(state["base"].contiguous()))), edits


def _encode(value: Any) -> bytes:
    skeleton, tensors = flatten(value, "")
    held = []
    for key, tensor in tensors:
        whole = tensor.cpu().contiguous()
        held.append((key, Array(dtype_name(whole.dtype), tuple(whole.shape), bytes(tensor_bytes(whole)))))
    return encode_value((skeleton, held))


def _decode(data: bytes) -> Any:
    skeleton, held = decode_value(data)
    arrays = dict(held)

    def tensor(key: str) -> torch.Tensor:
        return tensor_from(arrays[key].dtype, arrays[key].shape, arrays[key].data)

    return unflatten(skeleton, tensor)


def _tensor(data: bytes) -> torch.Tensor:
    return torch.from_numpy(np.frombuffer(data, np.uint8).copy())
