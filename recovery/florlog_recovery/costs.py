"""What a restore and a script's set-up cost, fitted to the measurements of earlier sessions.

A session that restores images leaves a ``Note`` of kind "cost".  Its ``data`` has ``restores``, the sums
[n, bytes, seconds, bytes², bytes·seconds] over its restores, and ``setup``, the seconds from the start of the script
to its first loop.  The model of a restore is fixed + bytes / bandwidth, fitted by least squares over all sessions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from florlog_recovery.tree import Image

KIND = "cost"  # of the notes
MIN_RESTORE_SECONDS = 1e-5  # the planner's proof needs a restore to cost something


@dataclass(frozen=True, slots=True)
class CostModel:
    """The seconds of a restore: ``fixed`` + bytes / ``bandwidth``; and those of the set-up."""

    fixed: float = 0.002  # seconds
    bandwidth: float = 1.0e9  # bytes per second
    setup: float = 0.0  # seconds from the script's start to its first loop

    def restore(self, image: Image) -> float:
        """Predicted seconds to restore an image."""
        return self.seconds(image.state_bytes)

    def seconds(self, size: int) -> float:
        """Predicted seconds to restore a state of ``size`` bytes."""
        return self.fixed + size / self.bandwidth


class Measured:
    """The restores of one session, summed up, and its set-up."""

    def __init__(self) -> None:
        self.sums = [0.0] * 5
        self.setup: float | None = None

    def restored(self, size: int, seconds: float) -> None:
        """Count the restore of a state of ``size`` bytes, which took ``seconds``."""
        for place, term in enumerate((1.0, size, seconds, float(size) * size, size * seconds)):
            self.sums[place] += term

    @property
    def data(self) -> dict[str, Any]:
        """The note's data."""
        return {"restores": list(self.sums)} | ({} if self.setup is None else {"setup": self.setup})


def fitted(notes: Iterable[Mapping[str, Any]]) -> CostModel:
    """The model that fits the data of the notes best; they are given oldest first, and the newest set-up counts."""
    sums, setup = [0.0] * 5, 0.0
    for note in notes:
        sums = [a + b for a, b in zip(sums, note.get("restores", [0.0] * 5), strict=True)]
        setup = note.get("setup", setup)
    count, size, seconds, squares, products = sums
    default = CostModel(setup=setup)
    bandwidth = default.bandwidth
    if not count:
        return default
    spread = squares - size * size / count
    if spread > 1e-6 * squares:
        slope = (products - size * seconds / count) / spread
        if slope > 0:
            bandwidth = 1.0 / slope
        if seconds > 0 and seconds / count - size / count / bandwidth < 0:
            bandwidth = size / seconds
    fixed = seconds / count - size / count / bandwidth
    if fixed < MIN_RESTORE_SECONDS and seconds > 0:  # the default bandwidth is too slow for this machine
        bandwidth = max(bandwidth, size / seconds)
        fixed = 0.0
    return CostModel(max(fixed, MIN_RESTORE_SECONDS), bandwidth, setup)
