"""Memory is lent again when nobody can reach it any more, and never before."""

from __future__ import annotations

import gc as python
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from florlog_wal import PAGE_SIZE, CorruptPage, MissingPage, ReusedMemory, RunLog, WalError

from tests.wal.samples import run_begin
from tests.wal.test_bulk import put

SIZE = 3 * PAGE_SIZE


def address(view: Any) -> int:
    found: int = np.frombuffer(view, np.uint8).__array_interface__["data"][0]
    return found


HOLDERS: list[Callable[[memoryview], Any]] = [
    lambda view: view,
    lambda view: view[5:7],
    lambda view: view.cast("I")[1:],
    lambda view: np.frombuffer(view, np.float32)[10:20].reshape(2, 5),
    lambda view: memoryview(np.frombuffer(view, np.uint8)[:1]),
    lambda view: [{"deep": (view[:1],)}],
]


@pytest.mark.parametrize("hold", HOLDERS)
def test_memory_is_lent_again_only_after_the_last_that_holds_it(hold: Callable[[memoryview], Any]) -> None:
    memory = ReusedMemory()
    view = memory.take(SIZE)
    place = address(view)
    held = hold(view)
    del view
    others = [memory.take(SIZE) for _ in range(3)]
    assert place not in map(address, others)
    del held
    assert address(memory.take(SIZE)) == place


def test_memory_in_a_cycle_is_lent_again_when_the_cycle_is_collected() -> None:
    memory = ReusedMemory()
    view = memory.take(SIZE)
    place = address(view)
    cycle: list[Any] = [view]
    cycle.append(cycle)
    del view, cycle
    other = memory.take(SIZE)
    assert address(other) != place
    python.collect()
    assert address(memory.take(SIZE)) == place


def test_memory_outlives_the_one_that_lent_it() -> None:
    memory = ReusedMemory()
    view = memory.take(SIZE)
    view[:] = b"x" * len(view)
    del memory
    others = [ReusedMemory().take(SIZE) for _ in range(3)]
    for other in others:
        other[:] = bytes(len(other))
    assert view == b"x" * len(view)


def test_memory_of_another_size_is_not_lent_and_can_be_freed() -> None:
    memory = ReusedMemory()
    place = address(memory.take(SIZE))
    small = memory.take(SIZE - 4096)
    assert len(small) == SIZE - 4096
    assert not place <= address(small) < place + SIZE
    memory.free()
    blocks = [memory.take(1) for _ in range(2)]  # so that the place is taken, if it was freed
    assert address(blocks[0]) != address(blocks[1])
    assert not memory._free


@pytest.mark.parametrize("how", ["cut", "gone", "other bytes", "hole"])
def test_what_memory_held_before_is_never_taken_for_what_was_read(tmp_path: Path, how: str) -> None:
    path = tmp_path / "store"
    with RunLog.open(path, mode="w") as store:
        store.append(run_begin())
        entry = put(store, os.urandom(SIZE))
    segment = path / "segments" / "00000001"
    with RunLog.open(path) as store:
        memory = ReusedMemory()
        (read,) = store.begin_reading([entry], memory).result()
        place, expected = address(read), bytes(read)
        del read
        (read,) = store.begin_reading([entry], memory).result()
        assert (address(read), read) == (place, expected)
        del read
        if how == "cut":
            os.truncate(segment, SIZE - 4096)
        elif how == "gone":
            segment.unlink()
        else:
            with segment.open("r+b") as file:
                file.seek(2 * PAGE_SIZE)
                file.write(bytes(PAGE_SIZE) if how == "hole" else os.urandom(PAGE_SIZE))
        with pytest.raises((CorruptPage, MissingPage)) as together:
            store.begin_reading([entry], memory).result()
        with pytest.raises(WalError) as alone:
            store.read_entries([entry])
        assert (together.type, str(together.value)) == (alone.type, str(alone.value))
