"""The page store: content-addressed pages, small ones in an LMDB environment of their own, large ones in segments.

A page's key is the xxh3-128 digest of its bytes, so a page that is already stored is not written again, across images
and runs.  A large page lies in a segment (`florlog_wal.segments`), and LMDB has its place.  Small ones and differences
are LMDB's values; not of the log's environment, where a write transaction would make the log wait.  `put` writes the
large pages, makes them durable, and then names them in one transaction.  When it returns, all are durable, and only
then may a CheckpointEnd that names them be appended.  Write-ahead needs nothing more here.

A page may be stored as its difference from the page that it replaces, its *base* (see `deltas` for the forms
and `lineage` for the choice).  It is then read through its base; its digest is still that of its own bytes.

The work per page is a hash and a copy, both in C, and without the GIL for pages of `PAGE_SIZE`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

from florlog_wal import deltas, directory, environment, segments
from florlog_wal.btree import Damage, Snapshot
from florlog_wal.environment import Environment
from florlog_wal.errors import CorruptPage, MissingPage, StoreFailed
from florlog_wal.lineage import ZEROS, ZEROS_DIGEST, Lineage, TensorPages
from florlog_wal.segments import MIN_PAGE_BYTES, Place, SegmentWriter
from florlog_wal.tables import page_digest

FULL: Final = "full"
DELTAS: Final = "deltas"
PLACES: Final = "places"
DATABASES: Final = (FULL, DELTAS, PLACES)
INITIAL_MAP_BYTES: Final = 1 << 32
MAX_BATCH_BYTES: Final = 48 << 20
"""Pages of one transaction.  LMDB first copies them into malloc's memory.  48 MiB is less than glibc keeps after a
transaction (see `_keep_memory`), so the next one need not get it from the kernel again, page by page."""
FAILURES: Final = (StoreFailed, OSError, MemoryError)
"""What `put` raises if the pages cannot be written."""


@dataclass(frozen=True, slots=True)
class PutResult:
    """What `put` did: the digests in order, and how many bytes were not stored before."""

    digests: list[bytes]
    written_bytes: int


def acquire(path: Path, map_size: int, *, writable: bool, create: bool = False) -> Environment:
    """The environment of a store's pages."""
    if writable:
        _keep_memory()
    where = path / directory.PAGES
    return environment.acquire(where, DATABASES, map_size, writable=writable, create=create)


class _Page(NamedTuple):
    digest: bytes
    view: memoryview
    tensor: TensorPages | None  # None: no difference is tried
    base: bytes | None  # the digest of the page that it replaces
    offset: int  # in its tensor
    previous: Any  # the base's bytes, if the caller has them


def put(
    env: Environment,
    segments: SegmentWriter,
    pages: Sequence[Any],
    lineages: Sequence[Lineage | None] | None = None,
    previous: Sequence[Any] | None = None,
) -> PutResult:
    """Store pages, durable on return; see `RunLog.put_pages`."""
    views = [memoryview(page).cast("B") for page in pages]
    digests = [page_digest(view) for view in views]
    none = [None] * len(views)
    tensors: dict[Lineage, TensorPages] = {}
    items = []
    for view, digest, lineage, bytes_before in zip(
        views,
        digests,
        none if lineages is None else lineages,
        none if previous is None else previous,
        strict=True,
    ):
        tensor, base, offset = None, None, 0
        if lineage is not None:
            tensor = tensors.setdefault(lineage, TensorPages(lineage))
            base, offset = tensor.add(digest, view.nbytes)
        items.append(_Page(digest, view, tensor, base, offset, bytes_before))
    written = 0
    places: dict[bytes, Place] = {}
    try:
        for batch in _batches(items):
            written += _put_batch(env, segments, batch, places)
        if places:
            segments.sync()
    except BaseException:
        segments.abandon(places.values())
        raise
    if places:  # once this has begun, its outcome may be unknown, and the pages stay
        try:
            env.write(lambda txn: _name_places(env, txn, places))
        finally:
            segments.named(places.values())
    for tensor in tensors.values():
        tensor.end()
    return PutResult(digests, written)


def _name_places(env: Environment, txn: Any, places: Mapping[bytes, Place]) -> None:
    for digest, place in places.items():
        txn.put(digest, place.encode(), db=env.dbs[PLACES])


def _keep_memory() -> None:
    """Free a large block that was never touched; from then on glibc returns less freed memory to the kernel.

    This raises glibc's dynamic threshold, as any process with large arrays does sooner or later: up to 32 MiB for
    a block, and twice as much for the memory that it keeps.  Without this, writing pages took half as long again.
    """
    bytes(31 << 20)


def recover(env: Environment) -> None:
    """Open the environment again after a failed `put`, because LMDB may refuse everything until then."""
    with contextlib.suppress(*FAILURES):
        env.reopen()


def _put_batch(
    env: Environment, segments: SegmentWriter, batch: list[_Page], places: dict[bytes, Place]
) -> int:
    """Store the small pages and differences of a batch, append its large ones; the bytes that are new.

    ``places``: where large ones lie that no transaction names yet; those of the batch are added.
    """
    large: dict[bytes, Any] = {}
    full: dict[bytes, Any] = {}
    differences: dict[bytes, bytes] = {}
    with env.read() as snapshot:
        stored = _stored(snapshot, batch)
        for page in batch:
            digest = page.digest
            if (
                digest in stored
                or digest in large
                or digest in full
                or digest in differences
                or digest in places
            ):
                continue
            difference = _difference(env, snapshot, page)
            if difference is None:
                (large if page.view.nbytes >= MIN_PAGE_BYTES else full)[digest] = page.view
            else:
                differences[digest] = difference
                if deltas.head(difference)[1] == ZEROS_DIGEST and not _present(snapshot, ZEROS_DIGEST):
                    full[ZEROS_DIGEST] = ZEROS
    if large:
        places |= zip(large, segments.append(list(large.values())), strict=True)

    def work(txn: Any) -> int:
        size = 0
        for name, some in ((FULL, full), (DELTAS, differences)):
            database = env.dbs[name]
            for digest, data in some.items():
                txn.put(digest, data, db=database)
                size += len(data)
        return size

    size = env.write(work) if full or differences else 0
    return size + sum(map(len, large.values()))


def _stored(snapshot: Snapshot, batch: list[_Page]) -> set[bytes]:
    """The digests of those pages that are stored.  A large page is in `PLACES`, any other and
    `ZEROS` in `FULL`, or each of them in `DELTAS`.
    """
    large = {page.digest for page in batch if page.view.nbytes >= MIN_PAGE_BYTES}
    small = {page.digest for page in batch} - (large - {ZEROS_DIGEST})
    found = snapshot.present(PLACES, large) | snapshot.present(FULL, small)
    return found | snapshot.present(DELTAS, (large | small) - found)


def _difference(env: Environment, snapshot: Snapshot, page: _Page) -> bytes | None:
    """The page as a difference from its base, or from zeros; None where it does not pay."""
    tensor, base = page.tensor, page.base
    if tensor is None or not tensor.trying:
        return None
    if base is None:
        return tensor.alone(page.view)
    try:
        if page.previous is not None:
            depth = _depth(snapshot, base)
            if depth is None or not tensor.admits(depth):
                return tensor.alone(page.view)
            before = memoryview(page.previous).cast("B")
            found = tensor.difference(page.view, before, base, depth, page.offset)
            # Only now: its owner may have been writing to it meanwhile.
            if found is None or page_digest(before) == base:
                return found
        chain, whole = _chain(env, snapshot, base)
        if whole is None or not tensor.admits(len(chain)):
            return tensor.alone(page.view)
        read = _assemble(chain, whole)
        if page_digest(read) != base:
            return None
        return tensor.difference(page.view, read, base, len(chain), page.offset)
    except (Damage, deltas.NotADelta):
        return None


def _batches(pages: list[_Page]) -> Iterator[list[_Page]]:
    batch: list[_Page] = []
    size = 0
    for page in pages:
        if batch and size + page.view.nbytes > MAX_BATCH_BYTES:
            yield batch
            batch, size = [], 0
        batch.append(page)
        size += page.view.nbytes
    if batch:
        yield batch


def get(env: Environment, digest: bytes) -> bytes:
    """The page of a digest, verified.  Raises `MissingPage` or `CorruptPage`."""
    with env.read() as snapshot:
        try:
            data = unverified(env, snapshot, digest)
        except (Damage, deltas.NotADelta) as error:
            raise CorruptPage(digest, str(error)) from None
    if data is not None and page_digest(data) == digest:
        return bytes(data)
    if data is None or not has(env, digest):  # gc may have freed its place after the snapshot
        raise MissingPage(digest)
    raise CorruptPage(digest, "its bytes have another digest")


def unverified(env: Environment, snapshot: Snapshot, digest: bytes) -> bytes | bytearray | None:
    """What is stored as the page of a digest; None if nothing is.  Raises `Damage` or `NotADelta`."""
    chain, whole = _chain(env, snapshot, digest)
    return None if whole is None else _assemble(chain, whole)


def _chain(env: Environment, snapshot: Snapshot, digest: bytes) -> tuple[list[bytes], bytes | None]:
    """The differences from a page down to a full page, and that full page; None if it is not stored."""
    chain: list[bytes] = []
    below = deltas.MAX_DEPTH + 1
    while (difference := snapshot.get(DELTAS, digest)) is not None:
        depth, digest = deltas.head(difference)
        if depth >= below:
            raise deltas.NotADelta(f"a chain whose depth goes from {below} to {depth}")
        below = depth
        chain.append(difference)
    whole = _whole(env, snapshot, digest)
    if whole is None and chain:
        raise deltas.NotADelta(f"its base {digest.hex()} is missing")
    return chain, whole


def _whole(env: Environment, snapshot: Snapshot, digest: bytes) -> bytes | None:
    """The unverified bytes of a page that is no difference; None if it is not stored."""
    if (row := snapshot.get(PLACES, digest)) is None:
        return snapshot.get(FULL, digest)
    try:
        data = segments.read(env.path.parent, Place.decode(row))
    except ValueError as error:
        raise Damage(str(error)) from None
    return b"" if data is None else data


def _assemble(chain: list[bytes], whole: bytes) -> bytes | bytearray:
    """The unverified bytes of the page at the top of a chain."""
    if not chain:
        return whole
    page = bytearray(whole)
    for difference in reversed(chain):
        deltas.apply(difference, page)
    return page


def _depth(snapshot: Snapshot, digest: bytes) -> int | None:
    """How many differences lie between a page and its full page; None if it is not stored."""
    difference = snapshot.get(DELTAS, digest)
    if difference is not None:
        return deltas.head(difference)[0]
    return 0 if snapshot.has(PLACES, digest) or snapshot.has(FULL, digest) else None


def _present(snapshot: Snapshot, digest: bytes) -> bool:
    return any(snapshot.has(name, digest) for name in (PLACES, FULL, DELTAS))


def has(env: Environment, digest: bytes) -> bool:
    """Whether a page is stored (its bytes are not read)."""
    with env.read() as snapshot:
        return _present(snapshot, digest)


def closure(env: Environment, wanted: set[bytes]) -> set[bytes]:
    """The pages ``wanted``, and all bases that they need."""
    found = set(wanted)
    todo = list(wanted)
    with env.read() as snapshot:
        if not snapshot.tree(DELTAS).entries:
            return found
        while todo:
            difference = snapshot.get(DELTAS, todo.pop())
            if difference is not None:
                base = deltas.head(difference)[1]
                if base not in found:
                    found.add(base)
                    todo.append(base)
    return found


def digests(env: Environment, name: str, after: bytes, limit: int = 4096) -> list[bytes]:
    """About ``limit`` digests of stored pages, in order, from the first one after ``after``."""
    found: list[bytes] = []
    with env.read() as snapshot:
        for leaf in snapshot.key_leaves(name, after):
            found += [key for key in leaf if key > after]
            if len(found) >= limit:
                break
    return found


def stored(env: Environment, name: str, digest: bytes) -> bytes:
    """The stored form of a page that is known to be sound."""
    with env.read() as snapshot:
        data = snapshot.get(name, digest)
    if data is None:
        raise MissingPage(digest)
    return data


def sizes(env: Environment) -> dict[bytes, int]:
    """The bytes that each stored page takes."""
    with env.read() as snapshot:
        found = {**dict(snapshot.sizes(FULL)), **dict(snapshot.sizes(DELTAS))}
    return found | {digest: place.length for digest, place in places_of(env).items()}


def places_of(env: Environment) -> dict[bytes, Place]:
    """Where the large pages lie.  Raises `CorruptPage` for a row that is no place."""
    found: dict[bytes, Place] = {}
    with env.read() as snapshot:
        for leaf in snapshot.leaves(PLACES):
            for digest, row in leaf:
                try:
                    found[digest] = Place.decode(row)
                except ValueError as error:
                    raise CorruptPage(digest, str(error)) from None
    return found
