"""What it costs to store a new image, next to what writing the same bytes to a file costs.

    python benchmarks/persist.py                160 MB, 8 rounds, in turns
    python benchmarks/persist.py --mb 40 --store DIR

Every round writes new bytes three ways, in random order: `RunLog.put_pages` from aligned memory, as an image is
persisted; one file with ``O_DIRECT`` in writes of 8 MiB and fdatasync; and `torch.save` with fsync, what a user would
do.  CPU is that of the thread.  *Restore* reads the pages back and verifies each; *plain read* reads
the same bytes from the file.  Both files are dropped from the page cache before that.
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
from florlog_wal import PAGE_SIZE, RunLog

WRITE_BYTES = 8 << 20


def memory(size: int) -> np.ndarray:
    """Aligned memory of so many bytes."""
    return np.frombuffer(mmap.mmap(-1, size), np.uint8)


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Wall and CPU seconds."""
    wall, cpu = time.perf_counter(), time.thread_time()
    work()
    return time.perf_counter() - wall, time.thread_time() - cpu


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
            files = [
                folder / "plain",
                *(folder / "store").rglob("0*"),
                folder / "store" / "pages" / "data.mdb",
            ]
            for file in files:
                if file.exists():
                    drop(file)
            found.setdefault("restore", []).append(timed(lambda: [store.get_page(one) for one in digests]))
            drop(folder / "plain")
            found.setdefault("plain read", []).append(timed((folder / "plain").read_bytes))
    print(f"{size / 1e6:.0f} MB, median of {options.rounds} rounds")
    for way, times in found.items():
        wall, cpu = (statistics.median(column) for column in zip(*times, strict=True))
        print(f"{way:16} {wall * 1e3:8.1f} ms  CPU {cpu * 1e3:8.1f} ms  {cpu * 1e9 / size:6.3f} ms/MB of CPU")


if __name__ == "__main__":
    main()
