"""What it costs to store a new image, next to what writing the same bytes to a file costs.

    python benchmarks/persist.py                160 MB, 8 rounds, in turns
    python benchmarks/persist.py --mb 40 --store DIR

Every round writes new bytes three ways, in random order: `RunLog.put_pages` from aligned memory, as an image is
persisted; one file with ``O_DIRECT`` in writes of 8 MiB and fdatasync; and `torch.save` with fsync, what a user would
do.  Then the bytes are read back, in random order too: *restore* is `RunLog.read_entries`, as an image is read, with
tensors of 4 MiB; *page by page* is `RunLog.get_page`, which reads the same; both verify each page.  *Plain read* reads
the file into new memory, and *plain read, O_DIRECT* in reads of 8 MiB into memory that is already there, which is the
most that the disk gives to one thread.  All files are dropped from the page cache before each.

CPU is that of the process.
"""

from __future__ import annotations

import argparse
import mmap
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from florlog_wal import PAGE_SIZE, PageEntry, RunLog, entry_bytes

WRITE_BYTES = 8 << 20
TENSOR_BYTES = 4 << 20


def memory(size: int) -> np.ndarray:
    """Aligned memory of so many bytes."""
    return np.frombuffer(mmap.mmap(-1, size), np.uint8)


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Wall and CPU seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = work()
    found = time.perf_counter() - wall, time.process_time() - cpu
    del result  # giving memory back is not reading
    return found


def put(store: RunLog, data: np.ndarray) -> list[bytes]:
    view = data.data
    return store.put_pages([view[at : at + PAGE_SIZE] for at in range(0, len(view), PAGE_SIZE)]).digests


def write(path: Path, data: np.ndarray) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_DIRECT)
    view = data.data
    for at in range(0, len(view), WRITE_BYTES):
        os.pwrite(fd, view[at : at + WRITE_BYTES], at)
    os.fdatasync(fd)
    os.close(fd)


def save(path: Path, data: np.ndarray) -> None:
    with path.open("wb") as file:
        torch.save(torch.from_numpy(data), file)
        file.flush()
        os.fsync(file.fileno())


def entries(digests: list[bytes]) -> list[PageEntry]:
    """Tensors that have these pages."""
    count = TENSOR_BYTES // PAGE_SIZE
    return [
        PageEntry("tensor", "uint8", (TENSOR_BYTES,), TENSOR_BYTES, tuple(digests[at : at + count]))
        for at in range(0, len(digests), count)
    ]


def read(path: Path, into: np.ndarray) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECT)
    view = into.data
    for at in range(0, len(view), WRITE_BYTES):
        os.preadv(fd, [view[at : at + WRITE_BYTES]], at)
    os.close(fd)


def drop(path: Path) -> None:
    """Let the page cache forget a file."""
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mb", type=int, default=160)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--store", type=Path)
    options = parser.parse_args()
    size = options.mb * 1_000_000 // WRITE_BYTES * WRITE_BYTES
    data, generator = memory(size), np.random.default_rng(0)
    found: dict[str, list[tuple[float, float]]] = {}
    with (
        tempfile.TemporaryDirectory(dir=options.store) as held,
        RunLog.open(f"{held}/store", mode="w") as store,
    ):
        folder, digests = Path(held), []
        ways: dict[str, Callable[[], object]] = {
            "put_pages": lambda: digests.__setitem__(slice(None), put(store, data)),
            "plain O_DIRECT": lambda: write(folder / "plain", data),
            "torch.save": lambda: save(folder / "saved", data),
        }
        for _ in range(options.rounds):
            data[:] = generator.integers(0, 256, size, np.uint8)
            for way in random.sample(list(ways), len(ways)):
                found.setdefault(way, []).append(timed(ways[way]))
            tensors = entries(digests)
            reads: dict[str, Callable[[], object]] = {
                "restore": lambda tensors=tensors: store.read_entries(tensors),
                "page by page": lambda tensors=tensors: [entry_bytes(store.get_page, one) for one in tensors],
                "plain read": (folder / "plain").read_bytes,
                "plain read, O_DIRECT": lambda: read(folder / "plain", data),
            }
            for way in random.sample(list(reads), len(reads)):
                for file in (folder / "plain", *(folder / "store").rglob("0*")):
                    drop(file)
                found.setdefault(way, []).append(timed(reads[way]))
    print(f"{size / 1e6:.0f} MB, median of {options.rounds} rounds")
    for way, times in found.items():
        wall, cpu = (statistics.median(column) for column in zip(*times, strict=True))
        print(f"{way:20} {wall * 1e3:8.1f} ms  CPU {cpu * 1e3:8.1f} ms  {cpu * 1e9 / size:6.3f} ms/MB of CPU")


if __name__ == "__main__":
    main()
