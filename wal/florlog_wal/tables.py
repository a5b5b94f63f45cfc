"""Page tables and page digests: how a state is named.

A state at an iteration boundary is a page table: tracked name -> dtype, shape and the digests of its pages.
A table has exactly one encoding, in which the names are sorted.  So the digest of the encoding identifies the
state: equal digests mean equal states.  A page itself is plain bytes, and its dtype is in the table.  So equal
bytes are stored once, whatever they mean.

`PAGE_SIZE` is a multiple of a disk's block, so that the pages of a tensor can be written from where they are.
"""

from __future__ import annotations

from typing import Any, Final

import msgpack
import xxhash

from florlog_wal.errors import CorruptValue, Unencodable
from florlog_wal.records import PageEntry, PageTable
from florlog_wal.values import INT_MAX, LAST_ITEM, pack

PAGE_SIZE: Final = 64 * 4096  # bytes, at most
DIGEST_SIZE: Final = 16  # bytes
_TABLE_VERSION: Final = 1
_KINDS: Final = ("tensor", "host")


def page_digest(buffer: Any) -> bytes:
    """The xxh3-128 digest of a page's bytes (any object with a contiguous buffer)."""
    return xxhash.xxh3_128_digest(buffer)


def encode_table(table: PageTable) -> bytes:
    """The one encoding of a page table.  Raises `Unencodable` for an entry with fields of wrong types."""
    parts: list[Any] = [_TABLE_VERSION]
    for name in sorted(table):
        entry = table[name]
        if not _well_formed(name, entry):
            raise Unencodable("PageEntry with fields of wrong types", f"[{name!r}]")
        parts += (name, entry.kind, entry.dtype, len(entry.shape), *entry.shape, entry.size)
        parts.append(b"".join(entry.pages))
    return b"".join(map(pack, parts))


def decode_table(data: bytes) -> PageTable:
    """The page table that the bytes encode; raises `CorruptValue` and nothing else."""
    try:
        unpacker = msgpack.Unpacker(
            max_buffer_size=len(data) + 1, max_array_len=0, max_map_len=0, max_ext_len=0,
            unicode_errors="surrogatepass",
        )  # fmt: skip
        unpacker.feed(data)
        unpacker.feed(LAST_ITEM)
        found = list(unpacker)
        whole = unpacker.tell() == len(data) + 1 and found.pop() is None
        items = iter(found)
    except Exception as error:  # msgpack's own set of exceptions is open; all mean the same here
        raise CorruptValue(f"a page table: {type(error).__name__}: {error}") from None
    if not whole or next(items, None) != _TABLE_VERSION:
        raise CorruptValue("a page table that is cut off, or of an unknown version")
    table: PageTable = {}
    last: str | None = None
    for name in items:
        try:
            kind, dtype, ndim = next(items), next(items), next(items)
            if type(ndim) is not int or ndim < 0:
                raise CorruptValue("a page table's shape has no length")
            shape = tuple([next(items) for _ in range(ndim)])
            size, joined = next(items), next(items)
        except StopIteration:
            raise CorruptValue("a page table ends inside an entry") from None
        if type(joined) is not bytes or len(joined) % DIGEST_SIZE:
            raise CorruptValue("a page table's digests are cut off")
        pages = tuple([joined[i : i + DIGEST_SIZE] for i in range(0, len(joined), DIGEST_SIZE)])
        entry = PageEntry(kind, dtype, shape, size, pages)
        if not _well_formed(name, entry) or (last is not None and name <= last):
            raise CorruptValue("a page table's entry is malformed or out of order")
        table[name], last = entry, name
    return table


def _well_formed(name: Any, entry: PageEntry) -> bool:
    return (
        type(name) is str
        and entry.kind in _KINDS
        and type(entry.dtype) is str
        and type(entry.shape) is tuple
        and all(type(n) is int and 0 <= n <= INT_MAX for n in entry.shape)
        and type(entry.size) is int
        and 0 <= entry.size <= INT_MAX
        and type(entry.pages) is tuple
        and all(type(digest) is bytes and len(digest) == DIGEST_SIZE for digest in entry.pages)
    )
