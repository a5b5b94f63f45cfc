"""Reading LMDB's file without trusting it.

LMDB believes what its pages say: a flipped bit in a page number, an offset or a length leads it outside of its
map, and the process dies by SIGSEGV; a bad sector, or a file cut short under the map, is SIGBUS.  A library in
somebody's training process must not do that.  So all reading is done here, by `os.pread` and bounds-checked
slices over LMDB 0.9's page format, which has not changed since 2011 (struct by struct in ``mdb.c``; the part
that is used here is described in ``specs/log-format.md``).  Anything impossible raises `Damage`.

The engine still does all writing, and holds the reader's slot that keeps a snapshot's pages from being reused.

LMDB's own pages have no checksum, so a pointer may lead to another sound page, for instance an older version
of the right one.  Each page's number, kind and level are checked, and the two meta pages against each other.
The contents tell the rest: a record's checksum covers its LSN, LSNs are dense, the number of entries is
known, and a page of the page store has its digest.
"""

from __future__ import annotations

import bisect
import os
import struct
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

_META: Final = struct.Struct("<16xIIQQ")  # page header; magic, version, address, map size
_DB: Final = struct.Struct("<IHHQQQQQ")  # pad, flags, depth, branch, leaf and overflow pages, entries, root
_META_END: Final = struct.Struct("<QQ")  # last page, transaction
_META_SIZE: Final = _META.size + 2 * _DB.size + _META_END.size
PAGE: Final = struct.Struct("<QHHHH")  # number, pad, flags, lower, upper
_NODE: Final = struct.Struct("<HHHH")  # size or child: low, high; flags; key size
_NUMBER: Final = np.dtype("<u8")
_MAGIC: Final = 0xBEEFC0DE
BRANCH, LEAF, _OVERFLOW = 1, 2, 4
_BIG, _SUBDATA = 1, 2
_INTEGER_KEYS: Final = 8
_NO_PAGE: Final = 2**64 - 1
_MAX_DEPTH: Final = 32  # LMDB's own limit


class Damage(Exception):  # noqa: N818 - internal: it becomes a public error that knows the LSN or digest
    """The file has a structure that LMDB never writes."""


@dataclass(frozen=True, slots=True)
class BTree:
    """The root of one B+tree."""

    depth: int
    entries: int
    root: int


@dataclass(frozen=True, slots=True)
class Meta:
    """One of the two meta pages."""

    page_size: int
    free: BTree  # transaction -> the pages that it freed and that are not yet taken again
    main: BTree  # name -> tree
    last_page: int
    txn: int


Item = tuple[bytes, bytes]


def read_metas(fd: int) -> tuple[Meta, Meta]:
    """Both meta pages, checked against each other: LMDB writes them in turn.

    A writer may commit between the two reads.  So what does not match is damage only if it stays as it is.
    """
    data = _read_both(fd)
    while True:
        try:
            return _match(*data)
        except Damage:
            before, data = data, _read_both(fd)
            if data == before:
                raise


def _read_both(fd: int) -> tuple[bytes, bytes]:
    first = os.pread(fd, _META_SIZE, 0)
    if len(first) < _META_SIZE:
        return first, b""
    return first, os.pread(fd, _META_SIZE, _DB.unpack_from(first, _META.size)[0])


def _match(first_page: bytes, second_page: bytes) -> tuple[Meta, Meta]:
    first, second = _meta(first_page), _meta(second_page)
    if first.page_size != second.page_size:
        raise Damage("the meta pages disagree about the page size")
    fresh = first.txn == second.txn == 0
    if not fresh and (abs(first.txn - second.txn) != 1 or first.txn % 2):
        raise Damage(f"the meta pages have transactions {first.txn} and {second.txn}, which never follow")
    return first, second


def _meta(data: bytes) -> Meta:
    if len(data) < _META_SIZE:
        raise Damage("the file is shorter than its meta pages")
    magic, version, _, _ = _META.unpack_from(data)
    if magic != _MAGIC or version != 1:
        raise Damage("it does not begin with the meta pages of LMDB 0.9")
    page_size = _DB.unpack_from(data, _META.size)[0]
    if page_size < 512 or page_size > 65536 or page_size & (page_size - 1):
        raise Damage(f"a page size of {page_size}")
    last_page, txn = _META_END.unpack_from(data, _META.size + 2 * _DB.size)
    free = _tree(data, _META.size, _INTEGER_KEYS)
    main = _tree(data, _META.size + _DB.size)
    return Meta(page_size, free, main, last_page, txn)


def _tree(data: bytes, at: int, kind: int = 0) -> BTree:
    _, flags, depth, _, _, _, entries, root = _DB.unpack_from(data, at)
    if flags != kind:
        raise Damage(f"a tree with flags {flags}")
    if depth > _MAX_DEPTH or (root == _NO_PAGE) != (depth == 0):
        raise Damage(f"a tree of depth {depth} with root {root}")
    return BTree(depth, entries, root)


class Snapshot:
    """The named trees of one committed transaction."""

    def __init__(self, fd: int, txn: int | None) -> None:
        """``txn`` None: the newest.  Raises `LookupError` if the transaction's meta page was replaced."""
        self._fd = fd
        metas = read_metas(fd)
        wanted = [meta for meta in metas if txn is None or meta.txn == txn]
        if not wanted:
            raise LookupError(txn)
        meta = max(wanted, key=lambda meta: meta.txn)
        self.meta, self._page_size = meta, meta.page_size
        self._trees: dict[str, BTree] = {}
        self._branch_pages: dict[int, tuple[bytes, tuple[int, ...]]] = {}
        self._branches: dict[int, list[tuple[bytes, int]]] = {}
        self._leaf: tuple[int, bytes, tuple[int, ...]] = (
            -1,
            b"",
            (),
        )  # the last one: keys are asked for in order

    def other(self) -> Snapshot:
        """The snapshot of the older meta page; raises `LookupError` if it was replaced."""
        return Snapshot(self._fd, min(read_metas(self._fd), key=lambda meta: meta.txn).txn)

    def names(self) -> list[str]:
        """The names of the trees."""
        main = self.meta.main
        pages = self._walk(main.root, main.depth, b"") if main.depth else ()
        return [key.decode("latin-1") for page in pages for key in self._keys(page)]

    def tree(self, name: str) -> BTree:
        """A named tree."""
        found = self._trees.get(name)
        if found is None:
            data = self._lookup(self.meta.main, name.encode())
            if data is None or len(data) != _DB.size:
                raise Damage(f"the database {name} is missing")
            found = self._trees[name] = _tree(data, 0)
        return found

    def get(self, name: str, key: bytes) -> bytes | None:
        """The value of a key."""
        return self._lookup(self.tree(name), key)

    def has(self, name: str, key: bytes) -> bool:
        """Whether a key is there; its value is not read."""
        return self._find(self.tree(name), key) is not None

    def present(self, name: str, keys: Collection[bytes]) -> set[bytes]:
        """Those of the keys that are there; they are looked up in order, so each leaf is read once."""
        tree = self.tree(name)
        return {key for key in sorted(keys) if self._find(tree, key) is not None} if tree.depth else set()

    def key_leaves(self, name: str, start: bytes = b"") -> Iterator[list[bytes]]:
        """Like `leaves`, but only the keys."""
        tree = self.tree(name)
        if tree.depth:
            for page in self._walk(tree.root, tree.depth, start):
                yield self._keys(page)

    def sizes(self, name: str) -> Iterator[tuple[bytes, int]]:
        """Every key with the size of its value, which is not read."""
        tree = self.tree(name)
        if tree.depth:
            for number in self._walk(tree.root, tree.depth, b""):
                page, pointers = self.page(number, LEAF)
                try:
                    for at in pointers:
                        low, high, flags, size = _NODE.unpack_from(page, at)
                        key, at = page[at + 8 : at + 8 + size], at + 8 + size
                        if flags == _BIG:
                            self._big_head(int.from_bytes(page[at : at + 8], "little"), low | high << 16)
                        yield key, low | high << 16
                except struct.error:
                    raise Damage(f"page {number} has a node beyond its end") from None

    def leaves(self, name: str, start: bytes = b"") -> Iterator[list[Item]]:
        """The items in order of key, one leaf at a time, from the leaf where ``start`` belongs."""
        tree = self.tree(name)
        if tree.depth:
            for page in self._walk(tree.root, tree.depth, start):
                yield self._items(page)

    def free_pages(self) -> Iterator[tuple[int, np.ndarray[Any, np.dtype[np.uint64]]]]:
        """For each transaction that freed pages: its number, and the numbers of those pages that are still free."""
        if not self.meta.free.depth:
            return
        for leaf in self._walk(self.meta.free.root, self.meta.free.depth, b""):
            for key, value in self._items(leaf):
                numbers = np.frombuffer(value, _NUMBER) if len(value) % 8 == 0 else np.empty(0, _NUMBER)
                if len(key) != 8 or not len(numbers) or numbers[0] != len(numbers) - 1:
                    raise Damage(f"page {leaf} has a list of free pages that cannot be")
                yield int.from_bytes(key, "little"), numbers[1:]

    def last(self, name: str) -> Item | None:
        """The last item."""
        tree = self.tree(name)
        if not tree.depth:
            return None
        page = tree.root
        for _ in range(tree.depth - 1):
            page = self._children(page)[-1][1]
        return self._items(page)[-1]

    def _lookup(self, tree: BTree, key: bytes) -> bytes | None:
        found = self._find(tree, key)
        return None if found is None else self._value(*found)

    def _find(self, tree: BTree, key: bytes) -> tuple[bytes, int, int, int, int] | None:
        """Where the value of a key is: its leaf page, the page's number, the value's offset, its flags and its size."""
        if not tree.depth:
            return None
        number = tree.root
        try:
            for _ in range(tree.depth - 1):
                page, pointers = self._branch_page(number)
                low, high, top, _ = _NODE.unpack_from(page, pointers[_search(page, pointers, key, 1)])
                number = low | high << 16 | top << 32
            if self._leaf[0] != number:
                self._leaf = (number, *self.page(number, LEAF))
            _, page, pointers = self._leaf
            at = pointers[_search(page, pointers, key, 0)]
            low, high, flags, size = _NODE.unpack_from(page, at)
        except struct.error:
            raise Damage(f"page {number} has a node beyond its end") from None
        if page[at + 8 : at + 8 + size] != key:
            return None
        return page, number, at + 8 + size, flags, low | high << 16

    def _branch_page(self, number: int) -> tuple[bytes, tuple[int, ...]]:
        """A branch page, read only once: a few of them lie above all leaves."""
        found = self._branch_pages.get(number)
        if found is None:
            found = self._branch_pages[number] = self.page(number, BRANCH)
        return found

    def _walk(self, page: int, depth: int, start: bytes) -> Iterator[int]:
        """The leaf pages in order; no more than the file has pages, whatever the branches say."""
        room = self.pages_there()
        for count, leaf in enumerate(self._descend(page, depth, start)):
            if count >= room:
                raise Damage(f"the tree below page {page} comes to more leaves than the file has pages")
            yield leaf

    def pages_there(self) -> int:
        """How many pages the file has."""
        return os.fstat(self._fd).st_size // self._page_size

    def _descend(self, page: int, depth: int, start: bytes) -> Iterator[int]:
        if depth == 1:
            yield page
            return
        children = self._children(page)
        first = _position(children, start)
        for _, child in children[first:]:
            yield from self._descend(child, depth - 1, start)
            start = b""

    def _children(self, number: int) -> list[tuple[bytes, int]]:
        """The keys and children of a branch page; the first key means minus infinity."""
        known = self._branches.get(number)
        if known is not None:
            return known
        page, pointers = self._branch_page(number)
        children = []
        try:
            for at in pointers:
                low, high, top, size = _NODE.unpack_from(page, at)
                children.append((page[at + 8 : at + 8 + size], low | high << 16 | top << 32))
        except struct.error:
            raise Damage(f"page {number} has a node beyond its end") from None
        self._branches[number] = children
        return children

    def _keys(self, number: int) -> list[bytes]:
        """The keys of a leaf page."""
        page, pointers = self.page(number, LEAF)
        try:
            sizes = [(at + 8, _NODE.unpack_from(page, at)[3]) for at in pointers]
        except struct.error:
            raise Damage(f"page {number} has a node beyond its end") from None
        return [page[at : at + size] for at, size in sizes]

    def _items(self, number: int) -> list[Item]:
        """The items of a leaf page."""
        page, pointers = self.page(number, LEAF)
        items = []
        unpack = _NODE.unpack_from
        try:
            for at in pointers:
                low, high, flags, size = unpack(page, at)
                key = page[at + 8 : at + 8 + size]
                at += 8 + size
                if flags == 0:
                    items.append((key, page[at : at + (low | high << 16)]))
                else:
                    items.append((key, self._value(page, number, at, flags, low | high << 16)))
        except struct.error:
            raise Damage(f"page {number} has a node beyond its end") from None
        return items

    def _value(self, page: bytes, number: int, at: int, flags: int, size: int) -> bytes:
        """The value of a node; a large one lies on pages of its own."""
        if flags == _BIG:
            return self._big(int.from_bytes(page[at : at + 8], "little"), size)
        if flags not in (0, _SUBDATA):
            raise Damage(f"page {number} has a node with flags {flags}")
        return page[at : at + size]

    def page(self, number: int, kind: int) -> tuple[bytes, tuple[int, ...]]:
        """A branch or leaf page, and the offsets of its nodes."""
        size = self._page_size
        page = self._read(number, size)
        found, _, flags, lower, upper = PAGE.unpack_from(page)
        count = (lower - PAGE.size) // 2
        if found != number or flags != kind or not PAGE.size < lower <= upper <= size or lower % 2:
            raise Damage(f"page {number} says it is page {found} with flags {flags}, {count} nodes")
        return page, struct.unpack_from(f"<{count}H", page, PAGE.size)

    def _big(self, number: int, size: int) -> bytes:
        """A value on pages of its own."""
        self._big_head(number, size)
        return self._read(number, size, PAGE.size)

    def _big_head(self, number: int, size: int) -> None:
        """Raise `Damage` unless a value of ``size`` bytes begins on page ``number``."""
        found, _, flags, low, high = PAGE.unpack_from(self._read(number, PAGE.size))
        if found != number or flags != _OVERFLOW or low | high << 16 != self.pages_of(size):
            raise Damage(f"page {number} does not hold a value of {size} bytes")
        if size > os.fstat(self._fd).st_size:
            raise Damage(f"page {number} has a value larger than the file")

    def pages_of(self, size: int) -> int:
        """How many pages a large value takes."""
        return (PAGE.size + size - 1) // self._page_size + 1

    def _read(self, number: int, size: int, skip: int = 0) -> bytes:
        offset = number * self._page_size + skip
        if offset >= 2**62:
            raise Damage(f"page {number} is beyond any file")
        data = os.pread(self._fd, size, offset)
        if len(data) != size:
            raise Damage(f"page {number} is beyond the end of the file")
        return data


def _search(page: bytes, pointers: tuple[int, ...], key: bytes, first: int) -> int:
    """The last node whose key is not greater than ``key``, or node 0; keys before node ``first`` do not count."""
    low, high = first, len(pointers)
    while low < high:
        middle = (low + high) // 2
        at = pointers[middle]
        if page[at + 8 : at + 8 + _NODE.unpack_from(page, at)[3]] <= key:
            low = middle + 1
        else:
            high = middle
    return max(low - 1, 0)


def _position(children: list[tuple[bytes, int]], key: bytes) -> int:
    """The child where a key belongs."""
    return bisect.bisect_right(children, key, 1, key=lambda child: child[0]) - 1
