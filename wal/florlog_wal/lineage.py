"""A tensor's pages from one image to the next, and whether differences between them have paid off.

Whether a page is stored whole, as planes or as rows is decided by measurement, per tensor and online:

* Within an image, the changed pages are tried in order.  A try that does not pay (`deltas`) is a miss; trying
  stops once there are `PATIENCE` more misses than hits.  So what is wasted is bounded by what is won.
* Of pages for which rows pay, the first is encoded in both forms, and the form that is better there is
  used for the rest of this image.
* A page of items of two bytes that replaces none, or one at the end of a chain, is tried as planes over zeros.
* From image to image, a tensor without a hit is left alone for 1, then 2, 4, up to `LONGEST_PAUSE` images.
  Dense training in float32 therefore costs a few samples in every 64th image; a tensor that becomes sparse,
  or whose learning rate has fallen, is found again.

A lineage holds digests, no bytes, so it costs 16 bytes a page.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from florlog_wal import deltas
from florlog_wal.tables import PAGE_SIZE, page_digest

ZEROS: Final = bytes(PAGE_SIZE)
ZEROS_DIGEST: Final = page_digest(ZEROS)
PATIENCE: Final = 4
LONGEST_PAUSE: Final = 64
ROWS_FAVOUR: Final = 1.5
"""Rows may be so many times as large as planes: they cost no compression, writing or reading."""


@dataclass(slots=True, eq=False)
class Lineage:
    """What `put_pages` remembers of one tensor: make one, give it with the tensor's pages at each image.

    ``itemsize`` is that of its items, ``row`` the bytes of one row (of an index into the first axis), 0 if
    it has none.  Make a new one when dtype or shape change.  ``digests`` are its pages in the last image: give
    those of the image that a recording goes on from.
    """

    itemsize: int = 1
    row: int = 0
    digests: Sequence[bytes] = ()
    pause: int = 0  # how long to leave it alone after the next miss, in images
    resting: int = 0  # images for which nothing is tried


class Turn:
    """A lineage's pages in one image, in order."""

    def __init__(self, lineage: Lineage) -> None:
        self._lineage = lineage
        self._digests: list[bytes] = []
        self._size = 0
        self._hits = self._misses = 0
        self._chained = False  # whether a chain has ended here
        self._by_rows: bool | None = None  # not known

    def add(self, digest: bytes, size: int) -> tuple[bytes | None, int]:
        """Take the next page; the digest of the one that it replaces, and where it begins in the tensor."""
        known = self._lineage.digests
        number, offset = len(self._digests), self._size
        self._digests.append(digest)
        self._size += size
        return known[number] if number < len(known) else None, offset

    @property
    def trying(self) -> bool:
        """Whether a difference is worth a try."""
        return not self._lineage.resting and self._misses < PATIENCE + self._hits

    def admits(self, depth: int) -> bool:
        """Whether a difference may be built on a page that is so many differences deep."""
        if depth < deltas.MAX_DEPTH:
            return True
        self._chained = True  # which is due to hits before
        return False

    def difference(self, page: Any, base: Any, digest: bytes, depth: int, offset: int) -> bytes | None:
        """A page as a difference from the base of a digest; None where it does not pay."""
        if len(page) != len(base):
            return None
        return self._counted(self._smaller(page, base, digest, depth, offset))

    def alone(self, page: Any) -> bytes | None:
        """A page as a difference from `ZEROS`; None where it does not pay."""
        if self._lineage.itemsize != 2 or len(page) != PAGE_SIZE:
            return None
        return self._counted(deltas.encode_planes(page, ZEROS, ZEROS_DIGEST, 0, 2))

    def _counted(self, found: bytes | None) -> bytes | None:
        if found is None:
            self._misses += 1
        else:
            self._hits += 1
        return found

    def _smaller(self, page: Any, base: Any, digest: bytes, depth: int, offset: int) -> bytes | None:
        itemsize, row = self._lineage.itemsize, self._lineage.row
        rows = planes = None
        if row and self._by_rows is not False:
            rows = deltas.encode_rows(page, base, digest, depth, row, offset % row)
        if rows is None or self._by_rows is None:
            planes = deltas.encode_planes(page, base, digest, depth, itemsize)
        if rows is not None and self._by_rows is None:
            self._by_rows = planes is None or len(rows) <= ROWS_FAVOUR * len(planes)
        return rows if self._by_rows and rows is not None else planes

    def end(self) -> None:
        """The image is stored: the next one's pages replace these."""
        lineage = self._lineage
        lineage.digests = self._digests
        if lineage.resting:
            lineage.resting -= 1
        elif self._hits or self._chained:
            lineage.pause = 0
        elif self._misses:
            lineage.resting = lineage.pause = min(2 * lineage.pause or 1, LONGEST_PAUSE)
