"""Fingerprints: what an iteration received and what it made of the state, in microseconds.

Three digests go with a commit: of torch's CPU RNG, of the item, and of the last values of each tracked module.  Redo
compares them.  They are a check, not a proof of the whole state, which is what the page table's digest at an image is
for.  What cannot be taken, as of tensors without data, is b"": the training goes on.

An item of up to 1 MiB is digested as a whole, in 16 bytes; in cold caches that takes 45 us for 1 KiB, 64 us for 256 KiB
and 107 us for 1 MiB.  Of a larger one, and of one with parts that cannot be read, words of each array are sampled, in 8
bytes: a replay then says of a value that reads the item that it is not proven.

Between two steps the caches hold the training's data, and a digest costs ten times what it costs in a loop by itself:
the first two take tens of microseconds, the third ten.  So `Pace` lets short steps go without them, as a share of the
training's time; a commit without one has b"".  A difference in the item or in the random numbers shows in trained
parameters from the same step on, so the third, which goes with more commits, shows both.  A loop's last commit,
where its length is known, has those of its end whatever they cost: by them a replay decides whether the loop may be
passed over.
"""

from __future__ import annotations

import marshal
from typing import Any

import numpy as np
import torch
import xxhash
from torch.nn.parameter import is_lazy

_WORDS = 32  # of each array of an item that is sampled
_MAX_ARRAYS = 4  # of an item that is sampled
_MAX_PARTS = 256  # of an item that is digested as a whole
_MAX_WHOLE_BYTES = 1 << 20  # of an item that is digested as a whole
_MAX_DEPTH = 4  # of containers in an item
_PLAIN = frozenset({int, float, complex, str, bytes, bool, type(None)})
_SAMPLED_BYTES = 256  # of a module, hashed at each commit
_MAX_SECONDS = 2e-4  # of one fingerprint: what took longer was interrupted
_INPUT_SHARE, _STATE_SHARE = 0.02, 0.05  # of the overhead

_digest = xxhash.xxh3_64_digest


class Pace:
    """Which innermost iterations get which fingerprints: a fiftieth of the overhead pays for those of the item and the
    random numbers, and a twentieth for that of the parameters."""

    __slots__ = ("input_credit", "input_share", "state_credit", "state_share")

    def __init__(self, overhead: float) -> None:
        overhead = min(overhead, 1e9)  # infinity times no time would be no number
        self.input_share, self.state_share = _INPUT_SHARE * overhead, _STATE_SHARE * overhead
        """Of the seconds of training, how many each of the two may take."""
        self.input_credit = 0.0
        """Seconds that fingerprints of item and random numbers may take now; from zero on, the next step gets them."""
        self.state_credit = 0.0
        """The same for that of the parameters."""


def paid(credit: float, seconds: float) -> float:
    """What is left of a credit, in seconds: at most one fingerprint is saved up, and no interruption is charged."""
    return min(credit, _MAX_SECONDS) - min(seconds, _MAX_SECONDS)


def rng_fingerprint() -> bytes:
    """Digest of the state of torch's default CPU generator."""
    try:
        return _digest(torch.default_generator.get_state().numpy().data)
    except Exception:  # within a mode of torch's that makes all tensors fake
        return b""


def item_fingerprint(item: Any) -> bytes:
    """Digest of an item: 16 bytes of all of it, 8 of sampled words of its first arrays, b"" if it has none.

    Parts are CPU tensors, arrays of numbers, plain values, and lists, tuples and dicts of them.
    """
    try:
        parts: list[Any] = []
        if _gather(item, _MAX_DEPTH, parts, [_MAX_WHOLE_BYTES]):
            digest = xxhash.xxh3_128()
            for part in parts:
                digest.update(part)
            return digest.digest()
        found: list[bytes] = []
        _sample(item, _MAX_DEPTH, found)
    except Exception:  # a container of the user's may fail to be gone through
        return b""
    return _digest(b"".join(found)) if found else b""


def _gather(item: Any, depth: int, parts: list[Any], left: list[int]) -> bool:
    """Collect the bytes of an item with its structure; whether that is all of it, within the ``left`` bytes."""
    if len(parts) > _MAX_PARTS:
        return False
    kind = type(item)
    if kind in _PLAIN:
        if isinstance(item, (str, bytes)) and len(item) > left[0]:
            return False
        # Version 0 writes equal values as equal bytes: it has no references, and does not say what is interned.
        parts.append(marshal.dumps(item, 0))
        left[0] -= len(parts[-1])
        return left[0] >= 0
    if isinstance(item, torch.Tensor):
        if item.device.type != "cpu" or item.numel() * item.element_size() > left[0]:
            return False
        data = _array_of(item if item.is_contiguous() else item.contiguous())
        if data is None and item.numel():
            return False
        parts.append(marshal.dumps((str(item.dtype), tuple(item.shape)), 0))
        if data is not None:
            parts.append(data)
            left[0] -= data.nbytes
        return True
    if isinstance(item, np.ndarray):
        if item.dtype.kind not in "biufcSUmM" or item.nbytes > left[0]:
            return False
        parts.append(marshal.dumps((item.dtype.str, item.shape), 0))
        parts.append(item if item.flags.c_contiguous and item.dtype.kind in "biufc" else item.tobytes())
        left[0] -= item.nbytes
        return True
    if isinstance(item, np.generic):
        return _gather(np.asarray(item), depth, parts, left)
    if not depth or not isinstance(item, (list, tuple, dict)):
        return False
    parts.append(b"%s %d" % (kind.__name__.encode(), len(item)))
    if isinstance(item, dict):
        return all(
            _gather(key, depth - 1, parts, left) and _gather(value, depth - 1, parts, left)
            for key, value in item.items()
        )
    return all(_gather(part, depth - 1, parts, left) for part in item)


def _sample(item: Any, depth: int, found: list[bytes]) -> None:
    if isinstance(item, torch.Tensor):
        if (data := _array_of(item)) is not None:
            found.append(_words(data))
    elif isinstance(item, np.ndarray):
        if item.dtype.kind in "biufc" and item.size:
            found.append(_words(item))
    elif depth and isinstance(item, (list, tuple, dict)):
        for part in item.values() if isinstance(item, dict) else item:
            if len(found) >= _MAX_ARRAYS:
                return
            _sample(part, depth - 1, found)


def _words(data: np.ndarray[Any, Any]) -> bytes:
    flat = data.reshape(-1) if data.flags.c_contiguous else data.ravel()
    return flat[:: max(1, flat.size // _WORDS)].tobytes()


def _array_of(tensor: torch.Tensor) -> np.ndarray[Any, Any] | None:
    """A tensor's memory as an array; None for one that is empty, not dense or not on the CPU."""
    if tensor.device.type != "cpu" or not tensor.is_contiguous():
        return None
    try:
        data = tensor.numpy()
        return data if data.size else None
    except (RuntimeError, TypeError):  # it requires a gradient, or NumPy has no such dtype
        pass
    try:
        return tensor.detach().reshape(-1).view(torch.uint8).numpy() if tensor.numel() else None
    except (RuntimeError, TypeError):
        return None


class StateFingerprint:
    """Hashes the end of the last parameter that each tracked module trains when it is tracked.

    A step changes that parameter as a whole in nearly all trainings, and it depends on all that comes before it.  It is
    looked up by its name each time, as a training may replace a head, and a restored image may have put back another.
    """

    def __init__(self) -> None:
        self._watched: dict[str, _Watched] = {}
        self._windows: list[memoryview] = []

    def watch(self, name: str, module: torch.nn.Module) -> None:
        """Include a module; where it is another than the last one of that name, it comes after all others."""
        named = [(at, p) for at, p in module.named_parameters() if not is_lazy(p)]
        here = [(at, p) for at, p in named if p.device.type == "cpu" and p.numel() > 0]
        trained = [(at, p) for at, p in here if p.requires_grad]
        before = self._watched.get(name)
        if not here or (before is not None and before.module is not module):
            self._watched.pop(name, None)
        if here:
            at, tensor = (trained or here)[-1]
            self._watched[name] = _Watched(module, at, tensor)
        self._renew()

    def forget(self, name: str) -> None:
        """Leave out what is watched under a name."""
        if self._watched.pop(name, None) is not None:
            self._renew()

    def _renew(self) -> None:
        windows: dict[int, memoryview] = {}
        for watched in self._watched.values():
            window = watched.window()
            windows.setdefault(id(watched.tensor), window)  # modules may share it
        self._windows = [*windows.values()]

    def digest(self) -> bytes:
        """The digest now, b"" when nothing is watched."""
        try:
            for watched in self._watched.values():
                if watched.moved():
                    self._renew()
                    break
            windows = self._windows
            if len(windows) == 1:
                return _digest(windows[0])
            return _digest(b"".join(windows)) if windows else b""
        except Exception:  # a parameter is not there any more, or has no memory
            return b""


class _Watched:
    """A parameter by its place in a module."""

    __slots__ = ("_last", "_path", "_pointer", "module", "tensor")

    def __init__(self, module: torch.nn.Module, name: str, tensor: torch.Tensor) -> None:
        self.module = module
        *self._path, self._last = name.split(".")
        self._pointer = -1
        self.tensor = tensor

    def _found(self) -> torch.Tensor:
        module: Any = self.module
        for part in self._path:
            module = module._modules[part]
        tensor: torch.Tensor = module._parameters[self._last]
        return tensor

    def moved(self) -> bool:
        """Whether another parameter is there, or other memory.  Raises whatever looking it up raises."""
        tensor = self._found()
        return tensor is not self.tensor or tensor.data_ptr() != self._pointer

    def window(self) -> memoryview:
        """The last bytes of the parameter, as they change; the view keeps the memory."""
        try:
            self.tensor = self._found()
            self._pointer = self.tensor.data_ptr()
            return _window(self.tensor)
        except Exception:  # it is not there, or has no memory
            self._pointer = -1
            return memoryview(b"")


def _window(tensor: torch.Tensor) -> memoryview:
    """The last bytes of a tensor, as it changes; the view keeps its memory."""
    data = _array_of(tensor)
    if data is None:
        return memoryview(b"")
    return data.reshape(-1).view(np.uint8)[-_SAMPLED_BYTES:].data
