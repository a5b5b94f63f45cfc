"""The images of a run, what each cost and saves: ``florlog inspect images``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from florlog_wal import CheckpointBegin, CheckpointEnd, Path, RunLog

from florlog.following.trust import where
from florlog.inspect.record_paths import Paths
from florlog.inspect.training_clock import Clock
from florlog.program.units import duration_text, size_text
from florlog.reading.render import printable


@dataclass(slots=True)
class ImageCost:
    """A complete image.

    ``saves``: the seconds of training between the image before it (or the run's start) and it, which need no redo
    after a restore of this image.
    """

    lsn: int  # of its CheckpointBegin
    path: Path  # the iteration at whose start it is; the index after a loop's last one is the loop's end
    state_bytes: int
    written_bytes: int
    stall_seconds: float
    persist_seconds: float
    saves: float
    table: bytes


def images_of(log: RunLog) -> Iterator[ImageCost]:
    """Every complete image in order of completion."""
    clock, paths = Clock(), Paths(log)
    begun: dict[int, tuple[Path, float]] = {}
    last = 0.0
    for session in log.sessions():
        for entry in log.scan(session.lsn, session.last_lsn + 1, session=session.lsn):
            clock.advance(entry)
            path = paths.of(entry)
            record = entry.record
            if isinstance(record, CheckpointBegin):
                begun[entry.lsn] = (path, clock.seconds)
            elif isinstance(record, CheckpointEnd) and record.begin in begun:
                at, seconds = begun.pop(record.begin)
                yield ImageCost(
                    record.begin,
                    at,
                    record.state_bytes,
                    record.written_bytes,
                    record.snapshot_seconds,
                    record.persist_seconds,
                    max(0.0, seconds - last),
                    record.table,
                )
                last = max(last, seconds)


def images_text(images: Iterator[ImageCost]) -> Iterator[str]:
    """The images as lines with a head."""
    yield (
        f"{'lsn':>8}  {'at the start of':<26}  {'state':>9}  {'written':>9}  {'stall':>9}  {'persist':>9}  "
        f"{'saves':>9}"
    )
    for image in images:
        yield (
            f"{image.lsn:>8}  {printable(where(image.path)):<26}  {size_text(image.state_bytes):>9}  "
            f"{size_text(image.written_bytes):>9}  {duration_text(image.stall_seconds):>9}  "
            f"{duration_text(image.persist_seconds):>9}  {duration_text(image.saves):>9}"
        )
