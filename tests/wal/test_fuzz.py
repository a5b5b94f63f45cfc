"""A short run of the fuzzer; `python -m tests.wal.fuzz` goes on for longer."""

from __future__ import annotations

import random
import tracemalloc

from florlog_wal import decode_table, decode_value
from florlog_wal.codec import decode

from tests.wal import fuzz


def test_decoders_raise_only_their_own_errors_and_take_bounded_memory() -> None:
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    choose = random.Random(seed)
    inputs = [fuzz.mutate(choose) for _ in range(20_000)]
    tracemalloc.start()
    try:
        for data in inputs[:2000]:
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
            fuzz.one(data)
            assert tracemalloc.get_traced_memory()[1] - before < 8 << 20, data
    finally:
        tracemalloc.stop()
    for data in inputs:
        fuzz.one(data)


def test_the_seeds_are_sound() -> None:
    """Otherwise the fuzzer would stop at the first check of each."""
    assert decode_value(fuzz.SEEDS[0])
    assert decode_table(fuzz.SEEDS[1])
    for data in fuzz.SEEDS[2:6]:
        assert decode(7, data)
