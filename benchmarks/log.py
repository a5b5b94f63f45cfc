"""What the log costs: python benchmarks/log.py [--records N] [--rounds N] [--format text|json]

Ratios and bounds rather than the times of one machine: each figure is compared with a yardstick, measured in the
same run and alternating with it, or with the bound that it has to keep.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from florlog_wal import PAGE_SIZE, Commit, Lineage, RunBegin, RunLog, encode_value


@dataclass
class Figure:
    """A measurement and its bound."""

    name: str
    value: float
    unit: str
    bound: float
    at_most: bool
    detail: str

    @property
    def ok(self) -> bool:
        return self.value <= self.bound if self.at_most else self.value >= self.bound

    def __str__(self) -> str:
        sign = "<=" if self.at_most else ">="
        mark = "ok  " if self.ok else "MISS"
        return (
            f"{mark} {self.name}: {self.value:,.3g} {self.unit} (bound {sign} {self.bound:,g}); {self.detail}"
        )


def run_begin() -> RunBegin:
    return RunBegin("bench", "bench", "record", "/b.py", (), "/", {}, {}, (), time.time(), 0, 1, 0)


def commit(index: int) -> Commit:
    return Commit(2, index, 0, ((1, "loss", 0.25),), 0.05, b"r" * 8, b"d" * 8, b"s" * 8, False)


def timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def append(root: Path, rounds: int) -> Figure:
    """One commit with one scalar, made and appended on the calling thread, bursts of 200 with pauses."""
    costs = []
    with RunLog.open(root / "append", mode="w") as store:
        session = store.append(run_begin())
        for _ in range(20 * rounds):
            begun = time.perf_counter()
            for index in range(200):
                store.append(commit(index), session=session, prev=session)
            costs.append((time.perf_counter() - begun) / 200)
            time.sleep(0.005)
    costs.sort()
    detail = f"median of bursts; 99th percentile {costs[int(0.99 * len(costs))] * 1e6:.1f} µs"
    return Figure("append of a commit", statistics.median(costs) * 1e6, "µs", 10, True, detail)


def fill(path: Path, records: int) -> None:
    with RunLog.open(path, mode="w") as store:
        session = store.append(run_begin())
        for index in range(records - 1):
            store.append(commit(index), session=session, prev=session)


def scan(path: Path, records: int, rounds: int) -> Figure:
    """Records decoded and checked per second of processor time; nothing waits here."""
    costs, times = [], []
    for _ in range(rounds):
        with RunLog.open(path) as store:
            begun = time.process_time()
            times.append(timed(lambda store=store: sum(1 for _ in store.scan())))  # type: ignore[misc]
            costs.append(time.process_time() - begun)
    detail = f"{records:,} records, best of {rounds}; {records / min(times):,.0f} a second of wall time"
    return Figure("scan", records / min(costs), "records/s", 300_000, False, detail)


def open_store(path: Path, records: int, rounds: int) -> Figure:
    """Opening for reading, with the list of sessions."""

    def work() -> None:
        with RunLog.open(path) as store:
            store.sessions()

    seconds = statistics.median(timed(work) for _ in range(rounds))
    return Figure("open and list sessions", seconds, "s", 0.5, True, f"a store of {records:,} records")


def reader_memory(small: Path, large: Path, ratio: float) -> Figure:
    """Peak memory of a process that scans the larger store, divided by that of one that scans the smaller."""
    code = (
        "import sys; from florlog_wal import RunLog\n"
        "with RunLog.open(sys.argv[1]) as store: n = sum(1 for _ in store.scan())\n"
        "print(open('/proc/self/status').read().partition('VmHWM:')[2].split()[0])"
    )
    peaks = []
    for path in (small, large):
        out = subprocess.run(
            [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True
        )
        peaks.append(int(out.stdout))
    detail = f"{peaks[0] / 1024:.0f} and {peaks[1] / 1024:.0f} MiB for a log {ratio:.0f} times as long"
    return Figure("memory of a reader", peaks[1] / peaks[0], "times", 1.1, True, detail)


def bulk(root: Path, rounds: int, size: int = 256 << 20) -> Figure:
    """Pages made durable, compared with write and fdatasync of the same bytes.

    A virtual machine's page cache is several times slower where the host has not yet given memory.  So before each
    measurement a file of the same size is written and removed, and its memory is used again.
    """
    choose = random.Random(1)
    block = b"".join([choose.randbytes(1 << 20) for _ in range(size >> 20)])
    pages = [block[at : at + PAGE_SIZE] for at in range(0, size - PAGE_SIZE, PAGE_SIZE)]
    plain, stored = [], []
    for _ in range(rounds):
        for times, work in ((plain, write_plain), (stored, store_pages)):
            write_plain(root, pages)
            times.append(work(root, pages))
    ratios = [one / other for one, other in zip(plain, stored, strict=True)]
    detail = (
        f"best of {rounds} each, {size / 2**20 / min(stored):.0f} against {size / 2**20 / min(plain):.0f} MiB/s;"
        f" median of the rounds' ratios {statistics.median(ratios):.2f}, from {min(ratios):.2f}"
        f" to {max(ratios):.2f}, which other load on the machine lowers"
    )
    return Figure("bulk pages over plain write", min(plain) / min(stored), "times", 0.8, False, detail)


def store_pages(root: Path, pages: list[bytes]) -> float:
    """Seconds to store pages in a fresh store."""
    with RunLog.open(root / "bulk", mode="w") as store:
        seconds = timed(lambda: store.put_pages(pages))
    shutil.rmtree(root / "bulk")
    return seconds


def write_plain(root: Path, pages: list[bytes]) -> float:
    """Seconds to write pages to a file, synced as often as the page store does."""
    begun = time.perf_counter()
    fd = os.open(root / "plain", os.O_WRONLY | os.O_CREAT)
    done = 0
    for page in pages:
        os.write(fd, page)
        done += len(page)
        if done >= 64 << 20:
            os.fdatasync(fd)
            done = 0
    os.fdatasync(fd)
    seconds = time.perf_counter() - begun
    os.close(fd)
    (root / "plain").unlink()
    return seconds


def sparse(root: Path, rounds: int, rows: int = 1 << 16, width: int = 256) -> Figure:
    """Processor time for a page of which 1 % of the rows changed, divided by that for a page that changed wholly.

    The bytes of the replaced pages are not given, so each is read; chains reach their usual depth.
    """
    choose = random.Random(2)
    table = bytearray(choose.randbytes(rows * width))
    lineage = Lineage(itemsize=4, row=width)
    full, some = [], []
    with RunLog.open(root / "sparse", mode="w") as store:
        for _ in range(3 * rounds):
            for row in choose.sample(range(rows), rows // 100):
                table[row * width : (row + 1) * width] = choose.randbytes(width)
            for times, size, lineages in ((some, len(table), lineage), (full, len(table) // 4, None)):
                at = range(0, size, PAGE_SIZE)
                image = bytes(table) if lineages else choose.randbytes(size)
                pages = [image[start : start + PAGE_SIZE] for start in at]
                begun = time.process_time()
                written = store.put_pages(pages, lineages=[lineages] * len(at)).written_bytes
                if not lineages or written < size // 2:
                    times.append((time.process_time() - begun) / len(at))
    shutil.rmtree(root / "sparse")
    detail = (
        f"{statistics.median(some) * 1e6:.0f} against {statistics.median(full) * 1e6:.0f} µs a page, medians"
    )
    ratio = statistics.median(some) / statistics.median(full)
    return Figure("a sparse page over a full one", ratio, "times", 2, True, detail)


def encode() -> Figure:
    """Encoding a host value, a list of floats, as a yardstick of the codec."""
    value = [float(i) for i in range(10_000)]
    seconds = min(timed(lambda: encode_value(value)) for _ in range(5))
    return Figure("encode a value of 10,000 floats", seconds * 1e3, "ms", 20, True, "best of 5")


def main() -> int:
    parser = argparse.ArgumentParser(description="What the log costs.")
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--format", choices=["text", "json"], default="text")
    parser.add_argument("--dir", help="a directory on the disk to measure; default: a temporary one")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.dir) as folder:
        root = Path(folder)
        fill(root / "large", options.records)
        fill(root / "small", options.records // 20)
        figures = [
            append(root, options.rounds),
            scan(root / "large", options.records, options.rounds),
            open_store(root / "large", options.records, options.rounds),
            reader_memory(root / "small", root / "large", 20),
            bulk(root, options.rounds),
            sparse(root, options.rounds),
            encode(),
        ]
    if options.format == "json":
        print(json.dumps([{**asdict(figure), "ok": figure.ok} for figure in figures]))
    else:
        for figure in figures:
            print(figure)
    return 0


if __name__ == "__main__":
    sys.exit(main())
