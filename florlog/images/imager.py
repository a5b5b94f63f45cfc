"""Images of the tracked state, taken in two phases (CheckFreq, FAST 2021, section 4.1).

Phase one, *snapshot* (`florlog.images.snapshot`), runs on the training thread at an iteration boundary and only
copies: tensors into preallocated buffers with one or two `_foreach_copy_`.  Phase two, *persist*, runs on one
background thread: hash, store the pages that the store lacks, some as differences (`florlog.images.lineages`), then log
the `CheckpointEnd` that makes the image reachable.  There are two sets of buffers, so memory is bounded by twice the
state.  While both are being persisted the next image is skipped: the training never waits.

A state is identified by the digest of its page table, a Merkle root: two states with equal digests are
equal bit for bit.  Replay compares digests without writing anything.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch
from florlog_wal import (
    PAGE_SIZE,
    CheckpointEnd,
    LogStopped,
    PageEntry,
    PageTable,
    RunLog,
    decode_table,
    decode_value,
    encode_table,
    page_digest,
)

from florlog.images.budget import Room
from florlog.images.lineages import Lineages
from florlog.images.snapshot import Buffers, Flat, StateSnapshot, snapshot
from florlog.program.signing import is_sealed
from florlog.state.boundary_trees import SEAL
from florlog.state.left_out import LEFT_OUT, NO_GRADIENTS, Gradients
from florlog.state.tensors import dtype_name, tensor_bytes, tensor_from
from florlog.state.tree import Skeleton, tensor_keys, unflatten

Put = Callable[[Sequence[memoryview], Sequence[str]], Sequence[bytes]]
"""Takes pages, and for each the key of its tensor ("" for a host value); gives their digests."""


def page_table(copy: StateSnapshot, put: Put) -> PageTable:
    """The page table of a snapshot, whose pages ``put`` is given, all at once.  Waits for copies from GPUs."""
    copy.wait()
    views: list[memoryview] = []
    keys: list[str] = []
    shapes: list[tuple[str, str, str, tuple[int, ...], int, int]] = []

    def add(
        name: str, kind: str, dtype: str, shape: tuple[int, ...], data: memoryview, key: str = ""
    ) -> None:
        first = len(views)
        views.extend(data[at : at + PAGE_SIZE] for at in range(0, len(data), PAGE_SIZE))
        keys.extend([key] * (len(views) - first))
        shapes.append((name, kind, dtype, shape, len(data), first))

    for name, encoded in copy.hosts.items():
        add(name, "host", "", (), memoryview(encoded))
    for key, tensor in copy.tensors.items():
        form = dtype_name(tensor.dtype), tuple(tensor.shape)
        add(f"{key}:", "tensor", *form, tensor_bytes(tensor), key)
    digests = put(views, keys)
    table: PageTable = {}
    for name, kind, dtype, shape, size, first in shapes:
        count = -(-size // PAGE_SIZE)
        table[name] = PageEntry(kind, dtype, shape, size, tuple(digests[first : first + count]))
    return table


def digests_only(pages: Sequence[memoryview], keys: Sequence[str]) -> list[bytes]:
    """A ``put`` that stores nothing."""
    return [page_digest(page) for page in pages]


class PageSource(Protocol):
    """Whatever has pages: a store, or memory."""

    def get_page(self, digest: bytes) -> bytes:
        """The bytes of a page."""

    def read_entries(self, entries: Sequence[PageEntry]) -> list[memoryview]:
        """The bytes of each entry, in writable memory of its own."""


class SavedState:
    """The state of an image, read lazily from its page table: all tensors of a name together.

    Host values are read once, so that the ones restored are those whose seal was checked.
    """

    def __init__(self, store: PageSource, digest: bytes) -> None:
        self._pages = store
        self.digest = digest
        self.table = decode_table(store.get_page(digest))
        self._hosts: dict[str, bytes] = {}
        self._read: dict[str, memoryview] = {}

    def hold(self, read: Mapping[str, memoryview]) -> None:
        """Take entries that were read already.  Each is given away once, as what is given may be written to."""
        self._read.update(read)

    def names(self) -> list[str]:
        """The tracked names."""
        return [name for name, entry in self.table.items() if entry.kind == "host"]

    @property
    def gradients(self) -> Gradients:
        """Those that it has left out."""
        return dict(self.tree(LEFT_OUT)) if LEFT_OUT in self.table else NO_GRADIENTS

    def is_sealed(self) -> bool:
        """Whether what it holds besides tensors is as this user recorded it."""
        hosts = {name: self.encoded(name) for name in self.names() if name != SEAL}
        return SEAL in self.table and is_sealed(hosts, self.tree(SEAL))

    def tree(self, name: str) -> Any:
        """The state of one tracked name; raises KeyError if the image does not have it."""
        skeleton = self.skeleton(name)
        return unflatten(skeleton, self.tensors(tensor_keys(skeleton)).__getitem__)

    def skeleton(self, name: str) -> Skeleton:
        """The tree of a tracked name without its tensors; raises KeyError if the image does not have it."""
        found: Skeleton = decode_value(memoryview(self.encoded(name)))
        return found

    def encoded(self, name: str) -> bytes:
        """The encoded skeleton of a tracked name; raises KeyError if the image does not have it."""
        if name not in self._hosts:
            (held,) = self._entries([name])
            self._hosts[name] = bytes(held)
        return self._hosts[name]

    def tensors(self, keys: Sequence[str]) -> dict[str, torch.Tensor]:
        """The tensors of some keys; raises KeyError if the image does not have them."""
        names = [f"{key}:" for key in keys]
        entries = [self.table[name] for name in names]
        return {
            key: tensor_from(entry.dtype, entry.shape, data)
            for key, entry, data in zip(keys, entries, self._entries(names), strict=True)
        }

    def _entries(self, names: Sequence[str]) -> list[memoryview]:
        if self._read.keys() >= set(names):
            return [self._read.pop(name) for name in names]
        return self._pages.read_entries([self.table[name] for name in names])


def differing(recorded: PageTable, live: PageTable) -> list[str]:
    """The tracked names and tensors in which two states differ."""
    return [
        name.removesuffix(":")
        for name in sorted(recorded.keys() | live.keys())
        if recorded.get(name) != live.get(name)
    ]


class Imager:
    """Takes images while a run records.

    ``session`` is the LSN of the run's session record.  ``on_stop`` is called, on the thread that persists, when the
    log has stopped; ``on_lost`` with the reason why one image was not stored; ``on_durable`` with the LSN of the
    CheckpointBegin of each that is in the log.
    """

    def __init__(
        self,
        log: RunLog,
        session: int,
        on_stop: Callable[[LogStopped], None],
        on_lost: Callable[[str], None],
        room: Room | None = None,
        on_durable: Callable[[int], None] = lambda begin: None,
    ) -> None:
        self._log = log
        self._room = room
        self._session = session
        self._on_stop = on_stop
        self._on_lost = on_lost
        self._on_durable = on_durable
        self._free: queue.SimpleQueue[Buffers] = queue.SimpleQueue()
        self._free.put(Buffers())
        self._free.put(Buffers())
        self.lineages = Lineages()
        self._jobs: queue.SimpleQueue[tuple[StateSnapshot, int, float] | None] = queue.SimpleQueue()
        self.finished: deque[float] = deque()  # CPU seconds of persists that the policy has not counted yet
        self._handed = self._done = 0
        self.resting = False
        """Whether `busy` would give what it gave the last time."""
        self._busy = 0.0
        self._thread = threading.Thread(target=self._work, name="florlog-persist", daemon=True)
        self._thread.start()
        assert self._thread.ident is not None
        self._clock = time.pthread_getcpuclockid(self._thread.ident)

    def has_room(self, *, main: bool) -> bool:
        """Whether a set of buffers is free, so that `snapshot` need not wait.

        The last one is kept for main boundaries, which answer most questions.
        """
        return self._free.qsize() >= (1 if main else 2)

    def snapshot(self, trees: Mapping[str, Any], flat: Flat | None = None) -> StateSnapshot:
        """Phase one; waits for a set of buffers."""
        buffers = self._free.get()
        try:
            return snapshot(trees, buffers, flat)
        except BaseException:
            self._free.put(buffers)
            raise

    def persist(self, copy: StateSnapshot, begin: int, stall: float) -> None:
        """Hand a snapshot to phase two.  ``begin``: the LSN of its CheckpointBegin; ``stall``: seconds of phase one."""
        self._handed += 1
        self.resting = False
        self._jobs.put((copy, begin, stall))

    @property
    def pending(self) -> int:
        """Images handed over that are not in the log yet."""
        return self._handed - self._done

    def busy(self) -> float:
        """CPU seconds of persisting so far.

        Not the time that passed: waiting for a disk, or for a core that another process has, costs training
        nothing.
        """
        if (
            not self.resting
        ):  # asking the clock is a system call, and it stands still while there is nothing to do
            self.resting = self._handed == self._done
            self._busy = time.clock_gettime(self._clock)
        return self._busy

    def close(self) -> None:
        """Wait until everything handed over is in the log."""
        self._jobs.put(None)
        self._thread.join()

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            copy, begin, stall = job
            started = time.thread_time()
            try:
                self._persist(copy, begin, stall)
            except LogStopped as stopped:
                self._on_stop(stopped)
            except Exception as error:  # such as a full disk: this image is lost, the log itself goes on
                self._on_lost(str(error) or type(error).__name__)
            finally:
                self.finished.append(time.thread_time() - started)
                self._done += 1
                if copy.buffers is not None:
                    self._free.put(copy.buffers)

    def _persist(self, copy: StateSnapshot, begin: int, stall: float) -> None:
        started = time.perf_counter()
        written = 0
        if self._room is not None and not self._room.make(copy.nbytes):
            return

        def put(pages: Sequence[memoryview], keys: Sequence[str]) -> Sequence[bytes]:
            nonlocal written
            lineages, previous = self.lineages.of(keys), self.lineages.previous(keys)
            result = self._log.put_pages(pages, lineages=lineages, previous=previous)
            written += result.written_bytes
            return result.digests

        self.lineages.begin(copy.tensors)
        table = page_table(copy, put)
        (digest,) = put([memoryview(encode_table(table))], [""])
        if self._room is not None:
            self._room.took(written)
        seconds = time.perf_counter() - started
        end = CheckpointEnd(begin, digest, copy.nbytes, written, stall, seconds)
        self._log.append(end, session=self._session, prev=begin)
        self._on_durable(begin)


def state_digest(table: PageTable) -> bytes:
    """The digest that identifies a state."""
    return page_digest(encode_table(table))
