"""What a run's log contains and what it cost: records by type, time per loop, overhead, images and redo distance."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from florlog_wal import CheckpointBegin, CheckpointEnd, Commit, Entry, Path, RunLog

from florlog.inspect.record_view import selected
from florlog.inspect.selection import RecordSelection
from florlog.inspect.training_clock import Clock
from florlog.program.units import duration_text, size_text
from florlog.reading.render import printable


@dataclass(slots=True)
class LoopTime:
    """The iterations of all loop executions of one name."""

    iterations: int = 0
    seconds: float = 0.0
    slowest: float = 0.0
    slowest_path: Path = ()


@dataclass(slots=True)
class Images:
    """What images cost, and the redo that they leave.

    ``gaps``: seconds of training between two images in a row, the run's start and the log's end counting as
    boundaries: a crash at the worst instant redoes the longest, one at a random instant ``expected_redo``.
    """

    count: int = 0
    stall: float = 0.0
    persist: float = 0.0
    written: int = 0
    state: int = 0
    gaps: list[float] = field(default_factory=list)

    @property
    def expected_redo(self) -> float:
        """Seconds that a crash at a random instant has to redo on average."""
        total = sum(self.gaps)
        return sum(gap * gap for gap in self.gaps) / (2 * total) if total else 0.0


@dataclass(slots=True)
class Stats:
    """The figures of one run."""

    run: str
    types: dict[str, tuple[int, int]]  # records and bytes
    loops: dict[str, LoopTime]
    images: Images
    seconds: float  # of training in loops

    @property
    def stall_share(self) -> float:
        """The stall of all images as a share of the training time."""
        return self.images.stall / self.seconds if self.seconds else 0.0

    def as_json(self) -> dict[str, Any]:
        """The JSON shape of ``florlog inspect --stats``."""
        images = self.images
        return {
            "run": self.run,
            "types": {name: {"records": n, "bytes": size} for name, (n, size) in self.types.items()},
            "loops": {
                name: {
                    "iterations": loop.iterations,
                    "seconds": loop.seconds,
                    "slowest_seconds": loop.slowest,
                    "slowest": dict(loop.slowest_path),
                }
                for name, loop in self.loops.items()
            },
            "training_seconds": self.seconds,
            "images": {
                "count": images.count,
                "stall_seconds": images.stall,
                "persist_seconds": images.persist,
                "written_bytes": images.written,
                "state_bytes": images.state,
                "longest_redo_seconds": max(images.gaps, default=0.0),
                "expected_redo_seconds": images.expected_redo,
            },
        }


def stats_of(log: RunLog, run: str, selection: RecordSelection) -> Stats:
    """The figures of the selected records, in one pass."""
    types: dict[str, list[int]] = {}
    loops: dict[str, LoopTime] = {}
    images = Images()
    clock = Clock()
    marks: dict[int, float] = {}  # time at a CheckpointBegin
    complete: list[float] = []
    for entry, path in selected(log, selection):
        held = types.setdefault(type(entry.record).__name__, [0, 0])
        held[0] += 1
        held[1] += entry.nbytes
        clock.advance(entry)
        _take(entry, path, loops, images, clock, marks, complete)
    bounds = [0.0, *sorted(complete), clock.seconds]
    images.gaps = [b - a for a, b in itertools.pairwise(bounds)]
    counted = {name: (held[0], held[1]) for name, held in sorted(types.items(), key=lambda t: -t[1][1])}
    return Stats(run, counted, loops, images, clock.seconds)


def _take(
    entry: Entry,
    path: Path,
    loops: dict[str, LoopTime],
    images: Images,
    clock: Clock,
    marks: dict[int, float],
    complete: list[float],
) -> None:
    record = entry.record
    if isinstance(record, Commit):
        loop = loops.setdefault(path[-1][0] if path else "", LoopTime())
        loop.iterations += 1
        loop.seconds += record.seconds
        if record.seconds >= loop.slowest:
            loop.slowest, loop.slowest_path = record.seconds, path
    elif isinstance(record, CheckpointBegin):
        marks[entry.lsn] = clock.seconds
    elif isinstance(record, CheckpointEnd):
        images.count += 1
        images.stall += record.snapshot_seconds
        images.persist += record.persist_seconds
        images.written += record.written_bytes
        images.state = max(images.state, record.state_bytes)
        complete.append(marks.pop(record.begin, clock.seconds))


def stats_text(stats: Stats) -> Iterator[str]:
    """The figures as lines for a person."""
    total = sum(nbytes for _, nbytes in stats.types.values()) or 1
    yield f"{'records':>10}  {'bytes':>12}  {'share':>6}  type"
    for name, (count, nbytes) in stats.types.items():
        yield f"{count:>10}  {nbytes:>12}  {nbytes / total:>6.1%}  {name}"
    yield ""
    yield f"{'iterations':>10}  {'time':>10}  {'mean':>10}  {'slowest':>10}  loop"
    for name, loop in stats.loops.items():
        mean = loop.seconds / loop.iterations
        at = ", ".join(f"{part}={index}" for part, index in loop.slowest_path)
        yield (
            f"{loop.iterations:>10}  {duration_text(loop.seconds):>10}  {duration_text(mean):>10}  "
            f"{duration_text(loop.slowest):>10}  {printable(name)} (slowest at {printable(at)})"
        )
    images = stats.images
    yield ""
    yield (
        f"{images.count} images of up to {size_text(images.state)}, {size_text(images.written)} written; "
        f"stall {duration_text(images.stall)} ({stats.stall_share:.2%} of {duration_text(stats.seconds)} of training), "
        f"persisting in the background {duration_text(images.persist)}"
    )
    yield (
        f"redo after a crash: {duration_text(images.expected_redo)} at a random instant, "
        f"{duration_text(max(images.gaps, default=0.0))} at the worst"
    )
