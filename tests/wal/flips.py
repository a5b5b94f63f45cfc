"""Every single-bit flip of two small stores, and random ones of a larger: `python -m tests.wal.flips`.

Each flip is made in the file, the whole store is read, and the flip is undone.  The outcome must be
the right contents or an error of this layer.  Another value, another exception or a dead interpreter is a
failure.  The flips are tried in a child, so that a signal is seen as one.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from florlog_wal import CheckpointBegin, Lineage, PageEntry, RunLog, WalError, encode_table, page_digest
from florlog_wal.segments import MIN_PAGE_BYTES

from tests.wal import workload
from tests.wal.progress import Progress
from tests.wal.samples import checkpoint_end, commit, run_begin

FILES = ("log/data.mdb", "pages/data.mdb", "segments/00000001", "FLORLOG", "end")
SHARES = 400
RANDOM_SHARES, RANDOM_FLIPS = 50, 200


def make(path: Path, steps: int) -> list[bytes]:
    """Make a store with two runs, their images, and a page in each form of difference; the digests of its pages."""
    workload.record(path, path.with_name("acks"), steps)
    digests = [page_digest(page) for step in workload.script(steps) for page in step.pages]
    with RunLog.open(path, mode="w") as store:
        for number, lineage in enumerate((Lineage(itemsize=2), Lineage(itemsize=4, row=16))):
            page = random.Random(number).randbytes(600)
            for changed in (page, page[:320] + bytes(8) + page[328:]):
                digests += store.put_pages([changed], lineages=[lineage]).digests
    return digests


def make_small(path: Path) -> list[bytes]:
    """Make a store of one run with two images, as small as possible; the digests of its pages."""
    pages: list[bytes] = []
    with RunLog.open(path, mode="w", window=3600) as store:
        session = store.append(run_begin())
        for index in range(2):
            store.append(commit(index), session=session)
            begin = store.append(CheckpointBegin(0, index + 1), session=session)
            some = store.put_pages([b"shared" * 50, bytes([index]) * MIN_PAGE_BYTES]).digests
            entry = PageEntry("tensor", "uint8", (300 + MIN_PAGE_BYTES,), 300 + MIN_PAGE_BYTES, tuple(some))
            table = store.put_pages([encode_table({"w": entry})]).digests[0]
            store.append(checkpoint_end(begin, table), session=session)
            pages += [*some, table]
    return list(dict.fromkeys(pages))


def contents(path: Path, digests: list[bytes]) -> list[Any]:
    """The answers to everything that a reader can ask, each of them a value or an error."""
    answers: list[Any] = []

    def ask(question: Any) -> None:
        try:
            answers.append(question())
        except WalError as error:
            answers.append(error)

    try:
        store = RunLog.open(path, allow_network=True)  # to find out the file system takes long
    except WalError as error:
        return [error]
    with store:
        ask(lambda: store.last_lsn)
        ask(lambda: list(store.scan()))
        ask(store.sessions)
        ask(lambda: store.record(3))
        ask(lambda: [entry.lsn for entry in store.scan(reverse=True, session=1)])
        for digest in digests:
            ask(lambda digest=digest: store.get_page(digest))
    return answers


Flip = tuple[str, int, int]


def all_bits(path: Path, *, start: int = 0, every: int = 1) -> Iterator[Flip]:
    """File, byte and bit of each flip, or of every K-th."""
    sizes = {name: (path / name).stat().st_size for name in FILES}
    for name, size in sizes.items():
        yield from ((name, number // 8, number % 8) for number in range(start, 8 * size, every))
        start = (start - 8 * size) % every


def head_bits(path: Path) -> Iterator[Flip]:
    """The bits that hold the structure: of LMDB's meta pages, and of every page's head and first pointers."""
    for name in FILES[:2]:
        for page in range(0, (path / name).stat().st_size, 4096):
            for byte in range(page, page + (168 if page < 8192 else 40)):
                yield from ((name, byte, bit) for bit in range(8))


def random_bits(path: Path, choose: random.Random, count: int) -> Iterator[Flip]:
    """``count`` random flips, distributed over all files by size."""
    sizes = {name: (path / name).stat().st_size for name in FILES}
    for _ in range(count):
        name = choose.choices(list(sizes), list(sizes.values()))[0]
        yield name, choose.randrange(sizes[name]), choose.randrange(8)


def try_flips(
    path: Path, digests: list[bytes], flips: Iterable[Flip], names: tuple[str, ...] = FILES
) -> Counter[str]:
    """Count the outcomes; raises on the first that is neither right nor an error."""
    right = contents(path, digests)
    assert not any(isinstance(answer, WalError) for answer in right)
    counts: Counter[str] = Counter()
    files = {name: os.open(path / name, os.O_RDWR) for name in names}
    for name, byte, bit in flips:
        old = os.pread(files[name], 1, byte)
        os.pwrite(files[name], bytes([old[0] ^ 1 << bit]), byte)
        try:
            found = contents(path, digests)
        except BaseException as error:
            raise AssertionError(f"bit {bit} of byte {byte} of {name}: {error!r}") from error
        finally:
            os.pwrite(files[name], old, byte)
        errors = sum(isinstance(answer, WalError) for answer in found)
        wrong = [a for a, b in zip(found, right, strict=False) if not isinstance(a, WalError) and a != b]
        if wrong:
            raise AssertionError(f"bit {bit} of byte {byte} of {name}: another value, {str(wrong[0])[:200]}")
        counts["an error" if errors else "the right contents"] += 1
    for fd in files.values():
        os.close(fd)
    return counts


@dataclass(frozen=True)
class Share:
    """The flips ``number``, ``number + SHARES``, ... of a small store, or so many random ones of the larger."""

    store: Literal["images", "long", "larger"]
    number: int

    @property
    def name(self) -> str:
        return f"{self.store} {self.number}"

    def run(self) -> Counter[str]:
        """Try the flips, on a store of their own."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "store"
            if self.store == "larger":
                digests = make(path, 150)
                flips: Iterator[Flip] = random_bits(path, random.Random(self.number), RANDOM_FLIPS)
            else:
                digests = make_small(path) if self.store == "images" else make(path, 3)
                flips = all_bits(path, start=self.number, every=SHARES)
            return try_flips(path, digests, flips)


def shares(every: int) -> Iterator[Share]:
    """All the work, or about one flip in ``every``."""
    yield from (Share("images", number) for number in range(0, SHARES, every))
    yield from (Share("larger", number) for number in range(0, RANDOM_SHARES, every))
    yield from (Share("long", number) for number in range(0, SHARES, every))


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.wal.flips",
        description="Flip every bit of two stores with images, random ones of a larger.",
    )
    parser.add_argument("--every", type=int, default=1, help="try about one flip in K")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--progress", metavar="FILE", help="note what is done in FILE, and go on from it")
    options = parser.parse_args()
    progress = Progress(options.progress)
    work = list(shares(options.every))
    counts = {share: found for share in work if (found := progress.get(share.name)) is not None}
    left = [share for share in work if share not in counts]
    with ProcessPoolExecutor(options.jobs) as pool:
        for share, found in zip(left, pool.map(Share.run, left), strict=True):
            progress.note(share.name, found)
            counts[share] = found
    for store in ("images", "long", "larger"):
        total = sum((found for share, found in counts.items() if share.store == store), Counter[str]())
        right, errors = total["the right contents"], total["an error"]
        print(f"{store}: {total.total()} flips, {right} right, {errors} errors, 0 wrong, 0 dead interpreters")
    return 0


if __name__ == "__main__":
    sys.exit(main())
