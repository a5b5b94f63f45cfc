"""A tensor's pages from one image to the next, and whether differences between them have paid off.

Whether a page is stored whole, as planes or as rows is decided by measurement, online and for each tensor:

* Within an image, the changed pages are tried in order.  A try that does not pay (see `deltas`) is a miss.  Trying
  stops when there are `MAX_EXCESS_MISSES` more misses than hits, so no more is wasted than was won.
* The first page for which rows pay is encoded in both forms.  The form that is better there is used for the rest
  of this image.
* A page with items of two bytes that replaces no page, or one at the end of a chain, is tried as planes over zeros.
* From image to image, a tensor without a hit is left alone for 1, then 2, 4, up to `MAX_PAUSE_IMAGES` images.
  So dense training in float32 costs a few samples in every 64th image, and a tensor that becomes sparse,
  or whose learning rate has fallen, is found again.

A lineage keeps digests, no bytes, so it costs 16 bytes per page.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from florlog_wal import deltas
from florlog_wal.tables import PAGE_SIZE, page_digest

ZEROS: Final = bytes(PAGE_SIZE)
ZEROS_DIGEST: Final = page_digest(ZEROS)
MAX_EXCESS_MISSES: Final = 2
MAX_PAUSE_IMAGES: Final = 64
MAX_ROWS_TO_PLANES: Final = 1.5
"""Rows may be this many times as large as planes, because they need no compression in either direction."""


@dataclass(slots=True, eq=False)
class Lineage:
    """What `put_pages` remembers of one tensor.  Make one, and give it with the tensor's pages at each image.

    ``itemsize`` is the bytes of one item, ``row`` the bytes of one row (of an index into the first axis), 0 if
    there are no rows.  Make a new one when dtype or shape change.  ``digests`` are the tensor's pages in the last
    image; give them when a recording goes on from an image.
    """

    itemsize: int = 1
    row: int = 0
    digests: Sequence[bytes] = ()
    pause: int = 0  # images for which it was last left alone; a miss doubles it
    resting: int = 0  # images for which nothing will be tried


class TensorPages:
    """The pages of one tensor in one image, in order."""

    def __init__(self, lineage: Lineage) -> None:
        self._lineage = lineage
        self._digests: list[bytes] = []
        self._size = 0
        self._hits = self._misses = 0
        self._chained = False  # whether some page lies at the end of a chain
        self._by_rows: bool | None = None  # None: not yet known

    def add(self, digest: bytes, size: int) -> tuple[bytes | None, int]:
        """Take the next page: the digest of the page that it replaces, and its offset in the tensor, in bytes."""
        known = self._lineage.digests
        number, offset = len(self._digests), self._size
        self._digests.append(digest)
        self._size += size
        return known[number] if number < len(known) else None, offset

    @property
    def trying(self) -> bool:
        """Whether a difference is worth a try."""
        return not self._lineage.resting and self._misses < MAX_EXCESS_MISSES + self._hits

    def admits(self, depth: int) -> bool:
        """Whether a difference may be built on a page that is ``depth`` differences above its full page."""
        if depth < deltas.MAX_DEPTH:
            return True
        self._chained = True  # which earlier hits have caused
        return False

    def difference(self, page: Any, base: Any, digest: bytes, depth: int, offset: int) -> bytes | None:
        """A page as its difference from ``base``, which has this digest and depth; None if that does not pay."""
        if len(page) != len(base):
            return None
        return self._counted(self._smaller(page, base, digest, depth, offset))

    def alone(self, page: Any) -> bytes | None:
        """A page as its difference from `ZEROS`; None if that does not pay."""
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
            self._by_rows = planes is None or len(rows) <= MAX_ROWS_TO_PLANES * len(planes)
        return rows if self._by_rows and rows is not None else planes

    def end(self) -> None:
        """The image is stored: the pages of the next one replace these."""
        lineage = self._lineage
        lineage.digests = self._digests
        if lineage.resting:
            lineage.resting -= 1
        elif self._hits or self._chained:
            lineage.pause = 0
        elif self._misses:
            lineage.resting = lineage.pause = min(2 * lineage.pause or 1, MAX_PAUSE_IMAGES)
