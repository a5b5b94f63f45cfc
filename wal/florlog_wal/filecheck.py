"""Whether an LMDB file can be given to the engine, which checks nothing, and whether its newest tree is the newest.

* If a file is shorter than its meta page says, the engine maps more than there is, which is SIGBUS.
* Trees of earlier transactions lie in the file whole until their pages are used again, so a flipped bit in
  the root's page number may lead to one and hide commits.  But each transaction lists the pages that it
  replaces, so the root of an earlier tree is among the free pages.  (For a flipped bit in a transaction's number
  see `log.unlisted`.)
* A flipped bit in a page that the engine changes may make it write outside of the page, or over pages that
  are in use.  So before it may write, the pages that it will walk over are checked: every node lies inside its
  page and overlaps no other, every child lies in the file, and no page of a tree is free.

bbolt has the same as `bolt check`.  The contents of nodes are not checked here: they have checksums of their own.
"""

from __future__ import annotations

import os
from typing import Any, Final

import numpy as np

from florlog_wal.btree import BRANCH, LEAF, BTree, Damage, Snapshot, read_metas

_BIG: Final = 1
_NODE_HEAD: Final = 8
_FIRST_PAGE: Final = 2  # after the meta pages


def check_file(fd: int) -> None:
    """Raise `Damage` for a file that was cut off, or that leads to an older tree; works while a writer is at work."""
    metas = read_metas(fd)
    newest = max(metas, key=lambda meta: meta.txn)
    free: list[tuple[int, Any]] = []
    try:
        free = list(Snapshot(fd, newest.txn).free_pages())
        if any(newest.main.root in pages for _, pages in free):
            raise Damage(f"the root of transaction {newest.txn} is a page that was freed")
    except (Damage, LookupError):
        if read_metas(fd) == metas:
            raise  # otherwise a live writer reused pages meanwhile; it found the file sound when it opened it
    newest = max(read_metas(fd), key=lambda meta: meta.txn)
    last, size = newest.last_page, os.fstat(fd).st_size
    if size < (last + 1) * newest.page_size:
        freed = {page for _, pages in free for page in pages}
        while last in freed:  # taken and freed in one transaction: LMDB never wrote it
            last -= 1
    need = (last + 1) * newest.page_size
    if size < need:
        raise Damage(f"it has {size} bytes and needs {need}: it was cut off")


def check_structure(snapshot: Snapshot, growing: str = "") -> None:
    """Raise `Damage` if the engine could go wrong on the trees of a snapshot, which must be the newest.

    Of the tree ``growing``, to which keys are added only at the end, only the last leaf is read.
    """
    used: list[tuple[int, int]] = []  # first page, number of pages
    _check_tree(snapshot, snapshot.meta.free, used)
    _check_tree(snapshot, snapshot.meta.main, used)
    for name in snapshot.names():
        _check_tree(snapshot, snapshot.tree(name), used, last_only=name == growing)
    free = np.concatenate([np.empty(0, np.uint64), *(pages for _, pages in snapshot.free_pages())])
    taken = np.array(used, np.uint64).reshape(-1, 2)
    starts = np.concatenate([taken[:, 0], free])
    ends = np.concatenate([taken.sum(axis=1, dtype=np.uint64), free + np.uint64(1)])
    order = np.argsort(starts)
    starts, ends = starts[order], ends[order]
    if len(starts) and (starts[0] < _FIRST_PAGE or ends.max() > snapshot.meta.last_page + 1):
        raise Damage("a page number is outside of the file")
    twice = np.flatnonzero(ends[:-1] > starts[1:])
    if len(twice):
        raise Damage(f"page {starts[twice[0] + 1]} is in use twice, or free and in use")


def _check_tree(
    snapshot: Snapshot, tree: BTree, used: list[tuple[int, int]], *, last_only: bool = False
) -> None:
    level = [tree.root] if tree.depth else []
    room = snapshot.pages_there()
    for _ in range(tree.depth - 1):
        used += [(number, 1) for number in level]
        below: list[int] = []
        for number in level:
            below += _children(snapshot, number)
            if len(below) > room:
                raise Damage(f"the tree below page {tree.root} comes to more pages than the file has")
        level = below
    used += [(number, 1) for number in level]
    for number in level[-1:] if last_only else level:
        used += _large_values(snapshot, number)


def _children(snapshot: Snapshot, number: int) -> list[int]:
    """The pages below a branch page.  Raises `Damage` if it is not sound."""
    page, at = _nodes(snapshot, number, BRANCH)
    low, high, top, key = (page[at + i].astype(np.uint64) for i in range(4))
    _check_packed(page, number, at, key)
    children = low | high << np.uint64(16) | top << np.uint64(32)
    return [int(child) for child in children]


def _large_values(snapshot: Snapshot, number: int) -> list[tuple[int, int]]:
    """First page and number of pages of each large value of a leaf page.  Raises `Damage` if it is not sound."""
    page, at = _nodes(snapshot, number, LEAF)
    low, high, flags, key = (page[at + i].astype(np.uint64) for i in range(4))
    size = low | high << np.uint64(16)
    large = flags == _BIG
    _check_packed(page, number, at, key + np.where(large, np.uint64(8), size))
    raw = page.tobytes()
    found = []
    for i in np.flatnonzero(large):
        start = 2 * int(at[i]) + _NODE_HEAD + int(key[i])
        first = int.from_bytes(raw[start : start + 8], "little")
        found.append((first, snapshot.pages_of(int(size[i]))))
    return found


def _nodes(snapshot: Snapshot, number: int, kind: int) -> tuple[Any, Any]:
    """A page as words of 16 bits, and the positions of its nodes in them."""
    page, pointers = snapshot.page(number, kind)
    at = np.array(pointers)
    if (at % 2).any() or at.max() + _NODE_HEAD > len(page):
        raise Damage(f"page {number} has a node beyond its end")
    return np.frombuffer(page, "<u2"), at // 2


def _check_packed(page: Any, number: int, at: Any, contents: Any) -> None:
    """Raise `Damage` unless the nodes fill the end of the page without a gap: then none reaches outside."""
    order = np.argsort(at)
    starts = 2 * at[order].astype(np.uint64)
    ends = starts + (_NODE_HEAD + contents[order] + 1) // 2 * 2
    upper = int(page[7])
    if starts[0] != upper or ends[-1] != 2 * len(page) or (ends[:-1] != starts[1:]).any():
        raise Damage(f"page {number} has nodes that overlap, or lie outside")
