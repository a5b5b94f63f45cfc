"""The page store: content-addressed pages in an environment of their own.

Its own, because an LMDB write transaction shuts out every other writer of its environment: bulk pages
would make the log wait.  A page's key is the xxh3-128 digest of its bytes, so a page that is there already
is not written again, across images and runs.  On return from `put` the pages are durable; only then may a
CheckpointEnd that names them be appended, which is all that write-ahead needs here.

The work per page is a hash and a copy, both in C without the GIL for pages of `PAGE_SIZE`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from florlog_wal import directory, environment
from florlog_wal.btree import Damage
from florlog_wal.environment import Environment
from florlog_wal.errors import CorruptPage, MissingPage, StoreFailed
from florlog_wal.tables import page_digest

FULL: Final = "full"
DELTAS: Final = "deltas"
MAP_SIZE: Final = 1 << 32
BATCH_BYTES: Final = 64 << 20
FAILURES: Final = (StoreFailed, OSError, MemoryError)


@dataclass(frozen=True, slots=True)
class PutResult:
    """What `put` did: the digests in order, and the bytes that were not there before."""

    digests: list[bytes]
    written_bytes: int


def acquire(path: Path, map_size: int, *, writable: bool) -> Environment:
    """The environment of a store's pages."""
    return environment.acquire(path / directory.PAGES, (FULL, DELTAS), map_size, writable=writable)


def put(env: Environment, pages: Sequence[Any]) -> PutResult:
    """Store pages, durable on return."""
    views = [memoryview(page).cast("B") for page in pages]
    digests = [page_digest(view) for view in views]
    written = 0
    for batch in _batches(views, digests):
        written += _put_batch(env, batch)
    return PutResult(digests, written)


def recover(env: Environment) -> None:
    """After a failed put: LMDB may refuse everything until it is opened again."""
    with contextlib.suppress(*FAILURES):
        env.reopen()


def _put_batch(env: Environment, batch: list[tuple[bytes, memoryview]]) -> int:
    with env.read() as snapshot:
        new = {digest: view for digest, view in batch if not snapshot.has(FULL, digest)}
    if not new:
        return 0

    def work(txn: Any) -> int:
        put_one, database = txn.put, env.dbs[FULL]
        return sum(
            view.nbytes for digest, view in new.items() if put_one(digest, view, overwrite=False, db=database)
        )

    return env.write(work)


def _batches(views: list[memoryview], digests: list[bytes]) -> Iterator[list[tuple[bytes, memoryview]]]:
    batch: list[tuple[bytes, memoryview]] = []
    size = 0
    for digest, view in zip(digests, views, strict=True):
        if batch and size + view.nbytes > BATCH_BYTES:
            yield batch
            batch, size = [], 0
        batch.append((digest, view))
        size += view.nbytes
    if batch:
        yield batch


def get(env: Environment, digest: bytes) -> bytes:
    """The page of a digest, verified."""
    with env.read() as snapshot:
        try:
            data = snapshot.get(FULL, digest)
        except Damage as error:
            raise CorruptPage(digest, str(error)) from None
    if data is None:
        raise MissingPage(digest)
    if page_digest(data) != digest:
        raise CorruptPage(digest, "its bytes have another digest")
    return data


def has(env: Environment, digest: bytes) -> bool:
    """Whether a page is stored (its bytes are not read)."""
    with env.read() as snapshot:
        return snapshot.has(FULL, digest)


def closure(env: Environment, wanted: set[bytes]) -> set[bytes]:
    """The pages wanted, and those that they are stored as differences from."""
    return wanted


def digests(env: Environment, after: bytes, limit: int = 4096) -> list[bytes]:
    """The digests of stored pages in order, from the first beyond ``after``."""
    found: list[bytes] = []
    with env.read() as snapshot:
        for leaf in snapshot.key_leaves(FULL, after):
            found += [key for key in leaf if key > after]
            if len(found) >= limit:
                break
    return found
