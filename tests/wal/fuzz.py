"""The decoders fuzzed without an end in sight: `python -m tests.wal.fuzz [--seconds S] [--runs N]`.

With atheris installed, inputs follow coverage; without it, they are mutations of sound encodings.  Whatever
comes in, a decoder gives a value that can be encoded again or its own error; nothing else may come out, and
memory may not grow beyond a bound.
"""

from __future__ import annotations

import argparse
import importlib
import random
import resource
import sys
import tempfile
import time
from collections.abc import Callable
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

from tests.wal.samples import commit, run_begin

MEMORY = 1 << 30
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
        # The same with the checksum put right, so that what lies behind it is reached.
        sealed = checksum(data[8:], 7).to_bytes(8, "big") + data[8:]
        attempt(lambda: encode(decode(7, sealed).record, 7, 1, 1), CorruptRecord)
    attempt(lambda: (deltas.head(data), deltas.apply(data, bytearray(b"x" * 32))), deltas.NotADelta)


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


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.wal.fuzz", description="Fuzz the decoders.")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--runs", type=int, default=10**9)
    parser.add_argument("--atheris", action="store_true", help="fail where atheris is not installed")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    options = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    try:
        atheris: Any = importlib.import_module("atheris")
    except ImportError:
        if options.atheris:
            print("atheris is not installed: pip install atheris", file=sys.stderr)
            return 2
        choose = random.Random(options.seed)
        print(f"atheris is not installed: mutating sound encodings, seed {options.seed}")
        start, runs = time.monotonic(), 0
        while runs < options.runs and time.monotonic() - start < options.seconds:
            for _ in range(1000):
                one(mutate(choose))
            runs += 1000
        print(f"{runs} inputs, nothing but the defined errors")
        return 0
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
