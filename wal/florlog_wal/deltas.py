"""Pages stored as differences from the page that they replace, where that pays.

There are two forms.  *Planes*: the page is XORed with its base, the k-th bytes of all items are put together as a
plane, and the planes are compressed.  Items that changed little have the same high bytes as before, so the high
planes become nearly all zero.  Measured on Adam training, bfloat16 parameters at a small learning rate shrink 21
times, float32 state 1.2 to 2 times, at a third to a half of the speed of a plain write.  *Rows*: the rows that
changed, as they are now, with their numbers, for tensors of which a step changes few rows, for instance embeddings
under a sparse optimizer (Check-N-Run, NSDI 2022, section 5.1).  Nothing is compressed, so rows cost a comparison
and a small copy.

    +-------+----------+-------+---+------------+-----------+-------+
    | codec | itemsize | depth | 0 | length 4   | base 16   | body  |
    +-------+----------+-------+---+------------+-----------+-------+

Writing a difference is never faster than writing the page; it saves space.  So it is stored only if it has at most
half the size of the page, or for planes of items of two bytes at most four fifths.  Half of a bfloat16 is sign and
exponent, so its planes are 0.6 to 0.7 of the page even where every item changed.  For the same reason the planes
of such a page alone are smaller than the page; these are stored as planes over a page of zeros.  ``depth``
counts the differences down to a full page; it is bounded, because reading applies them all.
Which form is tried for which page is the caller's choice (see `lineage`).
"""

from __future__ import annotations

import importlib
import math
import struct
import zlib
from collections.abc import Callable
from typing import Any, Final

import numpy as np

HEADER: Final = struct.Struct(">BBBxI16s")
ROWS_HEAD: Final = struct.Struct(">III")  # bytes of a row, bytes of the first row on the page before, rows
MAX_DEPTH: Final = 6  # differences down to a full page
MAX_SHARE: Final = 0.5  # of the page's size that a difference may have
MAX_SHARE_OF_PAIRS: Final = 0.8  # the same for planes of items of two bytes
SAMPLE_BYTES: Final = 16 << 10  # of a page's beginning, for planes
SAMPLE_WORDS: Final = 1 << 10  # all over a page, for rows
ZLIB, ZSTD, ROWS = 1, 2, 3
_NUMBER: Final = np.dtype(">u4")
_Bytes = np.ndarray[Any, np.dtype[np.uint8]]
_Numbers = np.ndarray[Any, np.dtype[np.int64]]


def _optional(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


zstandard: Final = _optional("zstandard")  # without it zlib is used, which is slower


class NotADelta(Exception):  # noqa: N818 - internal: it becomes CorruptPage
    """Bytes that are not a difference from their base."""


def encode_planes(page: Any, base: Any, digest: bytes, base_depth: int, itemsize: int) -> bytes | None:
    """A page as planes over its base, a page of the same length; None if that does not pay."""
    if not _possible(page, base, base_depth) or not 1 <= itemsize <= 16:
        return None
    if len(page) % itemsize:
        itemsize = 1
    max_share = MAX_SHARE_OF_PAIRS if itemsize == 2 else MAX_SHARE
    now, before = np.frombuffer(page, np.uint8), np.frombuffer(base, np.uint8)
    if len(page) > 2 * SAMPLE_BYTES:
        size = SAMPLE_BYTES - SAMPLE_BYTES % itemsize
        sample = now[:size] ^ before[:size]
        if len(_compress(_planes(sample, itemsize))) > max_share * size:
            return None
    compressed = _compress(_planes(now ^ before, itemsize))
    if len(compressed) > max_share * len(page):
        return None
    codec = ZLIB if zstandard is None else ZSTD
    return HEADER.pack(codec, itemsize, base_depth + 1, len(page), digest) + compressed


def encode_rows(page: Any, base: Any, digest: bytes, base_depth: int, row: int, lead: int) -> bytes | None:
    """A page as the rows that differ from its base's; None if that does not pay.

    ``row`` is the length of a row in bytes.  ``lead`` is the number of bytes of the page's first row that lie on the
    page before: pages seldom end where rows end.
    """
    if not _possible(page, base, base_depth) or not 0 <= lead < row or row > len(page):
        return None
    unit = math.gcd(row, lead, len(page), 8)  # words of so many bytes lie in one row each
    kind = np.dtype(f"u{unit}")
    words, before = np.frombuffer(page, kind), np.frombuffer(base, kind)
    step = len(words) // SAMPLE_WORDS or 1
    sample = words[::step] != before[::step]
    if np.count_nonzero(sample) > MAX_SHARE * len(sample):
        return None
    different = words != before
    if np.count_nonzero(different) * unit > MAX_SHARE * len(page):
        return None
    rows = (np.flatnonzero(different) * unit + lead) // row
    numbers = rows[np.concatenate(([True], rows[1:] != rows[:-1]))] if len(rows) else rows
    if len(numbers) * (row + _NUMBER.itemsize) > MAX_SHARE * len(page):
        return None
    head = HEADER.pack(ROWS, 1, base_depth + 1, len(page), digest)
    now = _Rows(np.frombuffer(page, np.uint8), row, lead)
    return (
        head + ROWS_HEAD.pack(row, lead, len(numbers)) + numbers.astype(_NUMBER).tobytes() + now.get(numbers)
    )


def head(data: bytes) -> tuple[int, bytes]:
    """Depth of a stored difference, and the digest of its base.  Raises `NotADelta`."""
    if len(data) < HEADER.size:
        raise NotADelta("it is shorter than its head")
    _, _, depth, _, base = HEADER.unpack_from(data)
    if not 1 <= depth <= MAX_DEPTH:
        raise NotADelta(f"a chain of {depth} differences")
    return depth, base


def apply(data: bytes, page: bytearray) -> None:
    """Turn ``page``, a copy of the base, into the page that the difference stands for.  Raises `NotADelta`."""
    codec, itemsize, _, length, _ = HEADER.unpack_from(data)
    if length != len(page) or not itemsize or length % itemsize:
        raise NotADelta(f"a difference for {length} bytes from a base of {len(page)}")
    into = np.frombuffer(page, np.uint8)
    if codec == ROWS:
        _apply_rows(data, into)
    else:
        planes = _decompress(codec, data[HEADER.size :], length)
        into ^= np.frombuffer(planes, np.uint8).reshape(itemsize, -1).T.reshape(-1)


def _apply_rows(data: bytes, page: _Bytes) -> None:
    at = HEADER.size + ROWS_HEAD.size
    if len(data) < at:
        raise NotADelta("it is shorter than the head of its rows")
    row, lead, count = ROWS_HEAD.unpack_from(data, HEADER.size)
    if not lead < row <= len(page) or len(data) != at + count * (row + _NUMBER.itemsize):
        raise NotADelta(f"{count} rows of {row} bytes do not fill it")
    rows = _Rows(page, row, lead)
    numbers = np.frombuffer(data, _NUMBER, count, at).astype(np.int64)
    if count and (numbers[-1] >= len(rows) or (numbers[1:] <= numbers[:-1]).any()):
        raise NotADelta(f"its rows are not in order, or more than {len(rows)}")
    rows.put(numbers, np.frombuffer(data, np.uint8, count * row, at + count * _NUMBER.itemsize))


class _Rows:
    """A page as rows; the first and the last may lie partly on other pages.  Row numbers are given ascending."""

    def __init__(self, page: _Bytes, row: int, lead: int) -> None:
        self._page, self._row, self._lead = page, row, lead
        self._first = 1 if lead else 0  # the first row that lies wholly on this page
        start = self._first * row - lead
        whole = (len(page) - start) // row
        self._whole = page[start : start + whole * row].reshape(whole, row)

    def __len__(self) -> int:
        return -(-(self._lead + len(self._page)) // self._row)

    def get(self, numbers: _Numbers) -> bytes:
        """The rows one after the other; bytes that lie on other pages are zero."""
        rows = np.zeros((len(numbers), self._row), np.uint8)
        low, high = self._inner(numbers)
        rows[low:high] = self._whole[numbers[low:high] - self._first]
        for i in (*range(low), *range(high, len(numbers))):
            here, there = self._edge(int(numbers[i]))
            rows[i, there] = self._page[here]
        return rows.tobytes()

    def put(self, numbers: _Numbers, data: _Bytes) -> None:
        """The inverse of `get`."""
        rows = data.reshape(-1, self._row)
        low, high = self._inner(numbers)
        self._whole[numbers[low:high] - self._first] = rows[low:high]
        for i in (*range(low), *range(high, len(numbers))):
            here, there = self._edge(int(numbers[i]))
            self._page[here] = rows[i, there]

    def _inner(self, numbers: _Numbers) -> tuple[int, int]:
        """The range of positions in ``numbers`` whose rows are whole; at most one lies outside at each end."""
        if not len(numbers):
            return 0, 0
        beyond = numbers[-1] >= self._first + len(self._whole)
        return int(numbers[0] < self._first), len(numbers) - int(beyond)

    def _edge(self, number: int) -> tuple[slice, slice]:
        """Where the bytes of a partial row are on the page, and where they are in the row."""
        start = number * self._row - self._lead
        low, high = max(start, 0), min(start + self._row, len(self._page))
        return slice(low, high), slice(low - start, high - start)


def _possible(page: Any, base: Any, base_depth: int) -> bool:
    return len(page) == len(base) and len(page) > 0 and base_depth < MAX_DEPTH


def _planes(items: np.ndarray[Any, Any], itemsize: int) -> bytes:
    return items.reshape(-1, itemsize).T.tobytes()


def _compress(data: bytes) -> bytes:
    if zstandard is None:
        return zlib.compress(data, 1)
    compressed: bytes = zstandard.ZstdCompressor(level=1).compress(data)
    return compressed


def _decompress(codec: int, data: bytes, length: int) -> bytes:
    """Decompress to exactly ``length`` bytes, without reading more.  Raises `NotADelta`."""
    tools: dict[int, Callable[[], bytes]] = {ZLIB: lambda: zlib.decompressobj().decompress(data, length)}
    if zstandard is not None:
        tools[ZSTD] = lambda: zstandard.ZstdDecompressor().stream_reader(data).read(length)
    elif codec == ZSTD:
        raise NotADelta("it is compressed by zstandard, which is not installed: install it")
    if codec not in tools:
        raise NotADelta(f"an unknown codec {codec}")
    try:
        planes = tools[codec]()
    except Exception as error:  # each library has its own
        raise NotADelta(str(error)) from None
    if len(planes) != length:
        raise NotADelta(f"it holds {len(planes)} bytes of {length}")
    return planes
