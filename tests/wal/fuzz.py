"""The decoders fuzzed: `python -m tests.wal.fuzz [--runs N]`, or with `--atheris [--seconds S]`.

Inputs are ten million mutations of sound encodings; with atheris they are led by coverage.  Whatever the input is,
a decoder must give a value that can be encoded again, or raise its own error, and memory must not grow beyond a bound.
"""

from __future__ import annotations

import argparse
import importlib
import os
import random
import resource
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from itertools import islice
from pathlib import Path
from types import FunctionType
from typing import Any

from florlog_wal import (
    CorruptRecord,
    CorruptValue,
    PageEntry,
    RunEnd,
    Values,
    codec,
    decode_table,
    decode_value,
    deltas,
    encode_table,
    encode_value,
    fields,
    tables,
    values,
)
from florlog_wal.codec import checksum, decode, encode

from tests.wal.progress import Progress
from tests.wal.samples import commit, run_begin

MAX_MEMORY_BYTES = 1 << 30
PART_INPUTS = 50_000
SEEDS: list[bytes] = [
    encode_value([1, (2.5, "x", b"y"), {"a": {1, 2}, (1,): None}, 2**80, 1j, True]),
    encode_table({"w": PageEntry("tensor", "float32", (2, 3), 24, (b"d" * 16,))}),
    *(encode(record, 7, 1, 2) for record in (commit(1), run_begin(), RunEnd("failed", 1.0, None))),
    encode(Values(2, 1, 0, ((1, "m", [1, {"k": (2,)}]),)), 7, 1, 2),
    deltas.HEADER.pack(deltas.ROWS, 1, 1, 32, b"b" * 16)
    + deltas.ROWS_HEAD.pack(8, 4, 1)
    + b"\0\0\0\1"
    + b"rowsrows",
    deltas.HEADER.pack(deltas.ZLIB, 2, 1, 32, b"b" * 16) + b"x\x9cc`\xa0\x1d\x00\x00 \x00\x01",
]


def one(data: bytes) -> None:
    """Every decoder on one input."""
    attempt(lambda: encode_value(decode_value(data)), CorruptValue)
    attempt(lambda: encode_table(decode_table(data)), CorruptValue)
    attempt(lambda: decode(7, data), CorruptRecord)
    if len(data) > 32:
        # The same with a correct checksum, so that the code after the check is reached.
        sealed = checksum(data[8:], 7).to_bytes(8, "big") + data[8:]
        attempt(lambda: encode(decode(7, sealed).record, 7, 1, 1), CorruptRecord)
    attempt(lambda: _apply_delta(data), deltas.NotADelta)


def _apply_delta(data: bytes) -> None:
    deltas.head(data)
    deltas.apply(data, bytearray(b"x" * 32))


def attempt(work: Callable[[], object], allowed: type[Exception]) -> None:
    try:
        work()
    except allowed:
        pass


def mutate(choose: random.Random) -> bytes:
    """A sound encoding with a few things changed."""
    data = bytearray(choose.choice(SEEDS))
    for _ in range(choose.randint(1, 6)):
        at = choose.randrange(len(data) + 1)
        kind = choose.randrange(5)
        if kind == 0:
            data[at : at + 1] = choose.randbytes(1)
        elif kind == 1:
            data[at:at] = choose.randbytes(choose.randint(1, 8))
        elif kind == 2:
            del data[at : at + choose.randint(1, 8)]
        elif kind == 3:
            data[at : at + 1] = bytes([choose.choice([0x90, 0xC1, 0xC7, 0xC9, 0xDC, 0xDD, 0xDE, 0xDF, 0xFF])])
        else:
            other = choose.choice(SEEDS)
            data[at:at] = other[: choose.randrange(len(other))]
        if not data:
            data = bytearray(b"\0")
    if len(data) > 32 and choose.random() < 0.7:  # a length that is right
        data[12:16] = (len(data) - 32).to_bytes(4, "big")
    return bytes(data)


def part(seed: int) -> Counter[str]:
    """Try `PART_INPUTS` mutations."""
    resource.setrlimit(resource.RLIMIT_DATA, (MAX_MEMORY_BYTES, MAX_MEMORY_BYTES))
    choose = random.Random(seed)
    for _ in range(PART_INPUTS):
        one(mutate(choose))
    return Counter(tried=PART_INPUTS)


def mutations(options: argparse.Namespace) -> int:
    """Mutate sound encodings, on all processors, until the end or an error that is not a decoder's own."""
    progress = Progress(options.progress)
    seed = progress.seed(options.seed)
    print(f"mutating sound encodings, seed {seed}", flush=True)
    numbers = range(-(-options.runs // PART_INPUTS))
    done = sum(PART_INPUTS for number in numbers if progress.get(str(number)) is not None)
    left = iter([number for number in numbers if progress.get(str(number)) is None])
    with ProcessPoolExecutor(options.jobs) as pool:
        while some := list(islice(left, options.jobs)):
            for number, counts in zip(some, pool.map(part, [seed + n for n in some]), strict=True):
                progress.note(str(number), counts)
                done += PART_INPUTS
    print(f"{done} inputs, nothing but the defined errors")
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.wal.fuzz", description="Fuzz the decoders.")
    parser.add_argument("--seconds", type=float, default=60, help="with --atheris, how long")
    parser.add_argument("--runs", type=int, default=10**7)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--progress", metavar="FILE", help="note what is done in FILE, and go on from it")
    parser.add_argument("--atheris", action="store_true", help="led by coverage, on one processor")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    options = parser.parse_args()
    if not options.atheris:
        return mutations(options)
    resource.setrlimit(resource.RLIMIT_DATA, (MAX_MEMORY_BYTES, MAX_MEMORY_BYTES))
    try:
        atheris: Any = importlib.import_module("atheris")
    except ImportError:
        print("atheris is not installed: pip install atheris", file=sys.stderr)
        return 2
    for module in (codec, deltas, fields, tables, values):
        for function in vars(module).values():
            if isinstance(function, FunctionType) and function.__module__ == module.__name__:
                atheris.instrument_func(function)
    arguments = [
        sys.argv[0],
        f"-max_total_time={int(options.seconds)}",
        f"-runs={options.runs}",
        "-max_len=512",
    ]
    with tempfile.TemporaryDirectory() as corpus:
        for number, seed in enumerate(SEEDS):
            (Path(corpus) / str(number)).write_bytes(seed)
        atheris.Setup([*arguments, f"-seed={options.seed}", corpus], one)
        atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main())
