"""What a restore and a script's set-up cost, fitted from what earlier sessions measured.

A session that restores images leaves a ``Note`` of kind "cost" with ``data``: ``restores``, the sums
[n, bytes, seconds, bytes², bytes·seconds] over its restores; and ``setup``, the seconds from the start of the script
to its first loop.  A restore is taken to cost fixed + bytes / bandwidth, by least squares over all sessions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from .tree import Image

KIND = "cost"
LEAST = 1e-5  # seconds of a restore, at least: the planner's proof wants it to cost something


@dataclass(frozen=True, slots=True)
class CostModel:
    """Seconds of a restore: a fixed part and the state's bytes over the measured bandwidth (bytes/s)."""

    fixed: float = 0.002
    bandwidth: float = 1.0e9
    setup: float = 0.0  # seconds from the script's start to its first loop

    def restore(self, image: Image) -> float:
        """Predicted seconds to restore an image."""
        return self.seconds(image.state_bytes)

    def seconds(self, size: int) -> float:
        """Predicted seconds to restore a state of ``size`` bytes."""
        return self.fixed + size / self.bandwidth


class Measured:
    """Restores and set-ups of one session, summed up."""

    def __init__(self) -> None:
        self.sums = [0.0] * 5
        self.setup: float | None = None

    def restored(self, size: int, seconds: float) -> None:
        """A state of ``size`` bytes was restored."""
        for place, term in enumerate((1.0, size, seconds, float(size) * size, size * seconds)):
            self.sums[place] += term

    @property
    def data(self) -> dict[str, Any]:
        """The note's data."""
        return {"restores": list(self.sums)} | ({} if self.setup is None else {"setup": self.setup})


def fitted(notes: Iterable[Mapping[str, Any]]) -> CostModel:
    """The model that fits the notes' data best, oldest note first; the newest set-up counts."""
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
        if seconds / count - size / count / bandwidth < 0:
            bandwidth = size / seconds
    fixed = seconds / count - size / count / bandwidth
    if fixed < LEAST and seconds > 0:  # the default bandwidth is too slow for this machine
        bandwidth = max(bandwidth, size / seconds)
        fixed = 0.0
    return CostModel(max(fixed, LEAST), bandwidth, setup)
