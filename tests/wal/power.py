"""Power cuts of the log's workload, replayed from a trace of what it wrote and synced (`traces`, `disk`)."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.wal import legal, traces, workload
from tests.wal.disk import Disk
from tests.wal.traces import Event


def trace(steps: int, durability: workload.Durability) -> list[Event]:
    """Record the workload and read its trace.

    No system call shows what the log stores into mapped memory, so the workload writes it down after each append.
    """
    return traces.trace_of(
        lambda root: workload.record(root / "store", root / "acks", steps, durability, mirror=True)
    ).events


def cut(events: Sequence[Event], after: int, target: Path, seed: int) -> str:
    """Make in a new directory what a cut after so many events may leave; the acknowledgements given by then."""
    disk = Disk(events[:after])
    disk.leave(target, choices(after, seed))
    return disk.acks


def choices(after: int, seed: int) -> random.Random:
    """What a cut after so many events leaves."""
    return random.Random(f"{after}:{seed}")


def try_cut(events: Sequence[Event], after: int, seed: int, steps: int, durability: str) -> list[str]:
    """What is wrong after one cut."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "left"
        acks = cut(events, after, target, seed)
        try:
            return legal.check(
                target / "store", legal.read_acks(acks), steps, power_cut=True, durability=durability
            )
        except Exception as error:  # whatever it is, the store should have opened
            return [f"{type(error).__name__}: {error}"]
