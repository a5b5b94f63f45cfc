"""Memory for what is read, which is used again once nobody can reach it any more.

New memory has to be zeroed by the kernel, which takes as long as reading it from a fast disk, and three times as long
where a virtual machine never touched it before.  Whoever reads one image after the other can do without.

A block is lent as the memory of an array.  Views of it, and tensors made of them, hold that array, whoever has them.
So a block is free when its array is, and not before: a tensor that a program keeps keeps its block.
"""

from __future__ import annotations

import mmap
import weakref
from contextlib import suppress
from typing import Final

import numpy as np

from florlog_wal.segments import rounded

_FLAGS: Final = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS


def new_block(size: int) -> mmap.mmap:
    """New memory of ``size`` bytes.  Raises MemoryError."""
    try:
        block = mmap.mmap(-1, size, flags=_FLAGS)
    except OSError as error:
        raise MemoryError(f"no memory for {size} bytes: {error.strerror}") from None
    with suppress(OSError):  # a kernel without them
        block.madvise(mmap.MADV_HUGEPAGE)  # so that most of the time is not spent on page faults
    return block


class ReusedMemory:
    """Blocks that are lent, and those that came back.  Blocks that come back after it is gone are freed."""

    def __init__(self) -> None:
        # Blocks come back on any thread, also in the middle of `take`: there is no lock, each step is atomic.
        self._free: dict[int, list[mmap.mmap]] = {}

    def take(self, size: int) -> memoryview:
        """Memory of ``size`` bytes, in whole blocks, with any contents.  Raises MemoryError."""
        size = rounded(size)
        try:
            block = self._free[size].pop()
        except LookupError:
            block = new_block(size)
        lent = np.frombuffer(block, np.uint8)
        weakref.finalize(lent, _give_back, weakref.ref(self), block).atexit = False
        return lent.data

    def free(self) -> None:
        """Free the blocks that are not lent."""
        self._free.clear()


def _give_back(memory: weakref.ref[ReusedMemory], block: mmap.mmap) -> None:
    if (held := memory()) is not None:
        held._free.setdefault(len(block), []).append(block)
