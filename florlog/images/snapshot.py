"""Phase one of an image: the state at a boundary, copied on the training thread.

Tensors are copied into preallocated buffers by `_foreach_copy_`; of host values, the skeletons are frozen
with `marshal`, in C, and encoded later on another thread.  What training changes a microsecond later is not in
the copy.

From a GPU the copy goes into pinned memory on a stream of its own, after what the training's stream has been given.
Whatever that stream is given next, the optimizer's step included, comes after the copy.  The device keeps this order,
so the training thread does not wait.  `StateSnapshot.wait` does, on the thread that persists.
"""

from __future__ import annotations

import functools
import marshal
import mmap
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import torch
from florlog_wal import PAGE_SIZE, encode_value

from florlog.program.signing import seal
from florlog.state.boundary_trees import SEAL
from florlog.state.tree import Skeleton, flatten

Flat = Mapping[str, tuple[Skeleton, list[tuple[str, torch.Tensor]]]]
"""Trees that `flatten` has taken apart, by name."""

TensorPair = tuple[torch.Tensor, torch.Tensor]
_MIN_SHARED_COPY_BYTES = 8 << 20  # of less, waking another thread takes as long as it saves
_WITHOUT_REFERENCES = 2  # the marshal version whose bytes depend on values alone, not on who else holds them


@dataclass
class StateSnapshot:
    """A copy of the state at one boundary."""

    frozen: dict[str, Frozen]
    tensors: dict[str, torch.Tensor]
    buffers: Buffers | None = None
    copies: Sequence[torch.cuda.Event] = ()  # of what comes from GPUs

    def wait(self) -> None:
        """Wait until the copy is complete."""
        for copied in self.copies:
            copied.synchronize()

    @functools.cached_property
    def hosts(self) -> dict[str, bytes]:
        """The encoded skeletons by tracked name, and their seal.  Raises `florlog_wal.Unencodable`."""
        hosts = {name: held.encoded() for name, held in self.frozen.items()}
        if (found := seal(hosts)) is not None:
            hosts[SEAL] = encode_value(("v", found))
        return hosts

    @property
    def nbytes(self) -> int:
        """Bytes of the copied state."""
        return sum(map(len, self.hosts.values())) + sum(t.nbytes for t in self.tensors.values())


class Frozen:
    """A skeleton as it was at a boundary, to be encoded later on another thread.

    Encoding is Python and costs more than copying a small model.  So the training thread only freezes the
    skeleton with `marshal`, in C: types, the bits of floats and the order of dicts are kept, and two
    skeletons with equal frozen bytes have equal encodings.  It never leaves the process.  What `marshal` does
    not know (a deque, a big array) is encoded at once.
    """

    __slots__ = ("_before", "_encoded", "_marshalled")

    def __init__(self, skeleton: Skeleton, before: Frozen | None = None) -> None:
        self._encoded: bytes | None = None
        self._before: Frozen | None = None
        try:
            self._marshalled = marshal.dumps(skeleton, _WITHOUT_REFERENCES)
        except ValueError:
            self._marshalled = b""
            self._encoded = encode_value(skeleton)
            return
        if before is not None and before._marshalled == self._marshalled:
            self._before = before

    def encoded(self) -> bytes:
        """The value codec's encoding."""
        if self._encoded is None:
            before, self._before = self._before, None
            self._encoded = (
                before.encoded() if before is not None else encode_value(marshal.loads(self._marshalled))
            )
        return self._encoded


@dataclass(slots=True)
class Buffers:
    """One set of preallocated copies, reused from image to image."""

    held: dict[str, torch.Tensor] = field(default_factory=dict)
    nbytes: int = 0  # of what is held
    fresh: bool = False  # whether the last copy went into new memory, which costs several times as much
    frozen: dict[str, Frozen] = field(default_factory=dict)

    def fill(
        self, sources: dict[str, torch.Tensor]
    ) -> tuple[dict[str, torch.Tensor], Sequence[torch.cuda.Event]]:
        """Copy the tensors; memory is allocated only for keys whose dtype or shape is new.

        Returns the copies by key, and the events after which those from GPUs are complete.
        """
        held, same = {}, len(sources) == len(self.held)
        for key, source in sources.items():
            buffer = self.held.get(key)
            if buffer is None or buffer.dtype != source.dtype or buffer.shape != source.shape:
                buffer = _empty_like(source)
                same = False
            held[key] = buffer
        if not same:  # asking each costs as much as copying a small model
            self.nbytes = sum(buffer.nbytes for buffer in held.values())
        self.held, self.fresh = held, not same
        pairs = list(zip(held.values(), sources.values(), strict=True))
        near = [pair for pair in pairs if not pair[1].is_cuda]
        copies = [] if len(near) == len(pairs) else _copy_from_gpus(pairs)
        if near:
            _copy(near, self.nbytes)
        return held, copies


def _empty_like(source: torch.Tensor) -> torch.Tensor:
    """Memory for a copy on the CPU; that of a large tensor is such that pages are written from where they lie."""
    if source.is_cuda:
        return torch.empty(source.shape, dtype=source.dtype, device="cpu", pin_memory=True)
    if source.nbytes < PAGE_SIZE:
        return torch.empty(source.shape, dtype=source.dtype, device="cpu")
    # It begins at a boundary of the system's pages, and is shared memory: after a fork, as for a loader's workers, the
    # next copy into private memory would cost as much as the first one.
    memory = mmap.mmap(-1, source.nbytes)
    with suppress(OSError):  # a kernel without huge pages for it
        memory.madvise(mmap.MADV_HUGEPAGE)
    return torch.frombuffer(memory, dtype=torch.uint8).view(source.dtype).view(source.shape)


def _copy(pairs: Sequence[TensorPair], nbytes: int) -> None:
    """Copy tensors that are not on GPUs, ``nbytes`` in all.

    At a boundary training stands still, so its cores are free.  With several threads torch uses them.  Where it has
    only one, a helper copies the second half: one core alone does not fill a memory bus.
    """
    if (
        len(pairs) < 2
        or nbytes < _MIN_SHARED_COPY_BYTES
        or torch.get_num_threads() > 1
        or len(os.sched_getaffinity(0)) < 2
    ):
        _copy_alone(pairs)
        return
    half, first = 0, 0
    while half < nbytes // 2 and first < len(pairs) - 1:
        half += pairs[first][1].nbytes
        first += 1
    rest = _helper().submit(_copy_alone, pairs[first:])
    try:
        _copy_alone(pairs[:first])
    finally:
        rest.result()


def _copy_alone(pairs: Sequence[TensorPair]) -> None:
    with torch.no_grad():
        torch._foreach_copy_([to for to, _ in pairs], [source for _, source in pairs])


@functools.cache
def _helper() -> ThreadPoolExecutor:
    _watch_forks()
    return ThreadPoolExecutor(1, "florlog-copy")


@functools.cache
def _watch_forks() -> None:
    """From the first helper on: a forked child makes its own, as the helper's thread is the parent's."""
    os.register_at_fork(after_in_child=_helper.cache_clear)


@functools.cache
def _stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


def _copy_from_gpus(pairs: Sequence[TensorPair]) -> list[torch.cuda.Event]:
    copies = []
    for device in {source.device for _, source in pairs if source.is_cuda}:
        training, stream = torch.cuda.current_stream(device), _stream(device)
        stream.wait_stream(training)
        with torch.no_grad(), torch.cuda.stream(stream):
            some = [pair for pair in pairs if pair[1].device == device]
            torch._foreach_copy_([to for to, _ in some], [source for _, source in some], non_blocking=True)
            copied = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
            copied.record(stream)
        training.wait_event(
            copied
        )  # also keeps the memory of a source that training frees from being used again
        copies.append(copied)
    return copies


def snapshot(
    trees: Mapping[str, Any], buffers: Buffers | None = None, flat: Flat | None = None
) -> StateSnapshot:
    """Copy the state given as one tree per tracked name (into fresh memory without ``buffers``).

    ``flat`` has the trees that have been flattened already; their trees are not looked at.  Raises
    `florlog_wal.Unencodable` when a leaf has no encoding.
    """
    target = buffers if buffers is not None else Buffers()
    flat = flat or {}
    frozen: dict[str, Frozen] = {}
    tensors: dict[str, torch.Tensor] = {}
    for name, tree in trees.items():
        skeleton, leaves = flat.get(name) or flatten(tree, name)
        frozen[name] = Frozen(skeleton, target.frozen.get(name))
        tensors.update(leaves)
    target.frozen = frozen
    held, copies = target.fill(tensors)
    return StateSnapshot(frozen, held, buffers, copies)
