"""Which images of a run are kept: dense near its end, sparse before, those at the ends of outer loops longest.

The rule has one parameter, the *level*.  The age of an image is the training from it to the newest one, in seconds.
Time from the run's start is divided into intervals whose lengths are powers of two and whose bounds are multiples of
their length.  An image's *slot* is the largest such interval around it that is at most 1/m as long as its own end is
old; m is a power of two, half as large at each coarser level.  Of the images in a slot one is kept: the one at the
outermost boundary, of those the earliest.

What follows from it:

* An image that was dropped at age a has a kept one less than a / m away.  If images were taken at most G apart, to
  redo any moment of age a takes at most 2 G + (3 a + 4 G) / m seconds: from the last image that was taken before it,
  the kept one is at most two slots and one distance away.
* At most 2 m + 2 images are kept of each doubling of the age.  So a run twice as long needs so many more, not twice as
  many.
* As the run goes on, and at coarser levels, slots only join two by two.  What an earlier thinning dropped would be
  dropped again, however often a run is thinned.

Where one image for each doubling is too many, every second, fourth, ... of those is kept, then the first and the
newest.  Two kinds of images always stay: the newest, and those from which a session continues.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from florlog_wal import pages
from florlog_wal.run_log import RunLog
from florlog_wal.stored_images import StoredImage, StoredImages, sweep

_FINEST_PARTS: Final = 2048  # m of level 1; level 0 keeps all
_HALVINGS: Final = 12  # levels with an m of 2048 to 1
_STRIDES: Final = (2, 4, 8, 16)
LEVELS: Final = 1 + _HALVINGS + len(_STRIDES) + 2
"""From level 0, which keeps all images, to the one that keeps only what must stay."""
_EXPONENTS: Final = range(-20, 64)  # of the lengths of slots, in seconds


class Mark(NamedTuple):
    """What the rule knows of an image."""

    seconds: float  # of training before it
    rank: int  # 0 at the outermost boundaries
    stays: bool


def kept(marks: Sequence[Mark], level: int) -> list[int]:
    """The positions of the images that a level keeps; ``marks`` are in order of time, the newest last."""
    if not marks or level == 0:
        return list(range(len(marks)))
    must = {at for at, mark in enumerate(marks) if mark.stays} | {len(marks) - 1}
    if level == LEVELS - 1:
        return sorted(must)
    if level == LEVELS - 2:
        return sorted(must | {0})
    if level <= _HALVINGS:
        return sorted({*must, 0, *_one_of_each_slot(marks, _FINEST_PARTS >> (level - 1))})
    stride = _STRIDES[level - 1 - _HALVINGS]
    return sorted({*must, 0, *sorted(_one_of_each_slot(marks, 1), reverse=True)[::stride]})


def _one_of_each_slot(marks: Sequence[Mark], parts: int) -> list[int]:
    """The rule with m = ``parts``."""
    best: dict[tuple[int, int], int] = {}
    for at, mark in enumerate(marks):
        slot = _slot(mark.seconds, marks[-1].seconds, parts) or (0, -1 - at)
        other = best.setdefault(slot, at)
        if mark.rank < marks[other].rank:
            best[slot] = at
    return list(best.values())


def _slot(seconds: float, end: float, parts: int) -> tuple[int, int] | None:
    """The slot around a moment, by exponent of its length and number; None at the end, where each image has its own."""

    def fails(exponent: int) -> bool:  # once it does, it does for all longer ones
        length = math.ldexp(1.0, exponent)
        return end - (math.floor(seconds / length) + 1) * length < parts * length

    fitting = bisect_left(_EXPONENTS, True, key=fails)
    if fitting == 0:
        return None
    exponent = _EXPONENTS[fitting - 1]
    return exponent, math.floor(seconds / math.ldexp(1.0, exponent))


def choose(held: StoredImages, level: int, bound: float | None = None) -> list[StoredImage]:
    """The images that a level keeps, of those that a bound on the redo between two, in seconds, leaves."""
    images = held.images if bound is None else _bounded(held, bound)
    marks = [Mark(image.seconds, held.rank(image), held.stays(image)) for image in images]
    return [images[at] for at in kept(marks, level)]


def _bounded(held: StoredImages, seconds: float) -> list[StoredImage]:
    """The first image, those that stay, and so few others that from one to the next it takes at most ``seconds``.

    After each the outermost within that reach comes next, of those the last; where there is none in reach, the nearest.
    """
    images, at = held.images, 0
    left = images[:1]
    while at < len(images) - 1:
        reach: list[int] = []
        for there in range(at + 1, len(images)):
            if reach and images[there].seconds - images[at].seconds > seconds:
                break
            reach.append(there)
            if held.stays(images[there]):
                break
        stays = held.stays(images[reach[-1]])
        at = reach[-1] if stays else min(reach, key=lambda it: (held.rank(images[it]), -it))
        left.append(images[at])
    return left


@dataclass(frozen=True, slots=True)
class Thinned:
    """What `Thinner.thin` left of a run's images."""

    dropped: int
    images: int
    bytes: int  # of the pages that only these images need


class Thinner:
    """Thins the images of a run while its writer goes on.

    It reads each record once, so that thinning often costs little.  The order is that of gc: the CheckpointEnd of each
    dropped image goes first, after the remaining images are durable, then the pages that only dropped images needed.
    The caller makes sure that nothing puts pages meanwhile: a page that was put and is not yet named would look as if
    nobody needed it.
    """

    def __init__(self, log: RunLog) -> None:
        """``log`` is open for writing."""
        self._log = log
        self._held: StoredImages | None = None

    def thin(self, budget: float) -> Thinned:
        """Drop images, level by level, until the pages that only images need fit ``budget`` bytes.

        What must stay stays, whether it fits or not.
        """
        self._log.sync()
        if self._held is None:
            self._held = StoredImages(self._log)
        else:
            self._held.read_on()
        held = self._held
        fixed = pages.closure(self._log._pages, held.fixed)
        sizes = pages.sizes(self._log._pages)

        def alone(images: Iterable[StoredImage]) -> set[bytes]:
            return pages.closure(self._log._pages, set().union(*(image.digests for image in images))) - fixed

        for level in range(LEVELS):
            left = choose(held, level)
            needed = alone(left)
            size = sum(sizes.get(digest, 0) for digest in needed)
            if size <= budget:
                break
        keep = {image.lsn for image in left}
        dropped = [image for image in held.images if image.lsn not in keep]
        if dropped:
            gone = alone(dropped) - needed
            held.drop(dropped)
            sweep(self._log, gone)
        return Thinned(len(dropped), len(left), size)
