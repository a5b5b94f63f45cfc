"""Space, by policy: whole runs go, or the images of those that stay are thinned; then pages nobody names.

What is removed goes in an order that a crash may cut anywhere.  First the records: a run with all its
sessions, one transaction each, or an image's CheckpointEnd, which makes the image unreachable.  The LSNs
that go are noted as removed ranges in the same transaction, so the log stays dense but for what it says is
gone.  Then pages: marked from the records that are left, swept what is not marked.  A crash in between
leaves pages too many, which the next gc finds; never a record that names a page too few.

A run is removed whole, its resumes and replays with it, because a resumed session continues from an image
of an earlier one: so the log is never cut where a kept image needs it.  Thinning keeps a session's first and
last image and those that another continues from, and drops others while the redo between neighbours, in
recorded seconds, stays within a bound.

LMDB's file does not shrink; freed space is used again.  `compact` makes a small copy.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from florlog_wal import log, pages
from florlog_wal.codec import lsn_key
from florlog_wal.filecheck import check_structure
from florlog_wal.records import CheckpointEnd, Commit, Entry, RunBegin
from florlog_wal.sessions import Summary
from florlog_wal.store import Store
from florlog_wal.tables import decode_table

References = Callable[[Entry], Iterable[bytes]]
_SWEEP: int = 10_000


@dataclass(slots=True)
class GcReport:
    """What `gc` removed, or with ``dry_run`` would remove."""

    runs: list[str] = field(default_factory=list)
    records: int = 0
    images: int = 0
    pages: int = 0
    freed_bytes: int = 0
    kept_bytes: int = 0


@dataclass(slots=True)
class _StoredImage:
    lsn: int
    session: int
    run: str
    begin: int  # LSN of its CheckpointBegin
    redo: float  # recorded seconds from the session's start to the image
    digests: frozenset[bytes]


@dataclass(slots=True)
class _Contents:
    """What the log holds, as far as space goes."""

    runs: dict[str, list[int]] = field(default_factory=dict)  # run id -> its sessions, oldest run first
    fixed: dict[str, set[bytes]] = field(default_factory=dict)  # pages of a run that no thinning frees
    images: list[_StoredImage] = field(default_factory=list)
    resumed: set[int] = field(default_factory=set)  # images that a session continues from, by their begin


def gc(
    path: str | os.PathLike[str],
    *,
    keep_last: int | None = None,
    budget: int | None = None,
    redo_bound: float | None = None,
    also: References = lambda entry: (),
    dry_run: bool = False,
    allow_network: bool = False,
) -> GcReport:
    """Remove what the policy does not keep, and every page that nothing names.

    ``keep_last`` keeps the newest N runs.  ``redo_bound`` thins images so that re-execution from one to the
    next takes no longer than so many seconds.  ``budget`` thins as far as needed for the pages to fit, then
    removes runs, oldest first, but never the newest.  ``also`` names pages that a record needs beside its
    sources and its table.  Takes the writer's lock: nothing may be recording.
    """
    if keep_last is not None and keep_last < 1:
        raise ValueError(f"keep_last is {keep_last}: at least one run stays")
    with Store.open(path, mode="w", allow_network=allow_network) as store:
        with store._log.read() as snapshot:
            check_structure(snapshot)  # to the end: a writer has looked at the log's last leaf only
        contents = _read(store, also)
        with store._pages.read() as snapshot:
            sizes = {**dict(snapshot.sizes(pages.FULL)), **dict(snapshot.sizes(pages.DELTAS))}
        kept = list(contents.runs)[-keep_last if keep_last is not None else None :]
        kept, images = _choose(contents, sizes, kept, budget, redo_bound)
        report = GcReport(runs=[run for run in contents.runs if run not in kept])
        sessions = {lsn for run in report.runs for lsn in contents.runs[run]}
        keep = {image.lsn for image in images}
        staying = [image for image in contents.images if image.session not in sessions]
        dropped = [image for image in staying if image.lsn not in keep]
        report.images = len(contents.images) - len(images)
        marked = pages.closure(store._pages, _needed(contents, kept, images))
        gone = {digest: size for digest, size in sizes.items() if digest not in marked}
        report.pages, report.freed_bytes = len(gone), sum(gone.values())
        report.kept_bytes = sum(sizes.values()) - report.freed_bytes
        if not dry_run:
            for session in sorted(sessions):
                report.records += _remove(store, session, None)
            for image in dropped:
                report.records += _remove(store, image.session, image.lsn)
            _sweep(store, list(gone))
    return report


def _read(store: Store, also: References) -> _Contents:
    contents = _Contents()
    run_of: dict[int, str] = {}
    redo: dict[int, float] = {}
    for entry in store.scan():
        record, session = entry.record, entry.session
        if isinstance(record, RunBegin):
            run_of[session] = record.run
            contents.resumed.add(record.resumed_from)
            contents.runs.setdefault(record.run, []).append(session)
            contents.fixed.setdefault(record.run, set()).update(digest for _, _, digest in record.sources)
        contents.fixed[run_of[session]].update(also(entry))
        if isinstance(record, Commit) and record.segment == 0:
            redo[session] = redo.get(session, 0.0) + record.seconds
        if isinstance(record, CheckpointEnd):
            table = decode_table(store.get_page(record.table))
            digests = {record.table, *(digest for item in table.values() for digest in item.pages)}
            since = redo.get(session, 0.0)
            image = _StoredImage(entry.lsn, session, run_of[session], record.begin, since, frozenset(digests))
            contents.images.append(image)
    return contents


def _choose(
    contents: _Contents, sizes: dict[bytes, int], kept: list[str], budget: int | None, bound: float | None
) -> tuple[list[str], list[_StoredImage]]:
    """The runs and images that the policy keeps."""

    def images(runs: list[str], seconds: float | None) -> list[_StoredImage]:
        present = [image for image in contents.images if image.run in runs]
        return present if seconds is None else _thin(present, seconds, contents.resumed)

    chosen = images(kept, bound)
    if budget is None:
        return kept, chosen

    def fits(runs: list[str], some: list[_StoredImage]) -> bool:
        return sum(sizes.get(digest, 0) for digest in _needed(contents, runs, some)) <= budget

    longest = max((image.redo for image in contents.images), default=0.0)
    seconds = bound or 0.0
    for finer in range(12, -1, -1):  # bounds that double, up to one that keeps first and last only
        if fits(kept, chosen):
            break
        seconds = max(seconds, 1.01 * longest / 2**finer)
        chosen = images(kept, seconds)
    while not fits(kept, chosen) and len(kept) > 1:
        kept = kept[1:]
        chosen = images(kept, seconds)
    return kept, chosen


def _thin(images: list[_StoredImage], seconds: float, resumed: set[int]) -> list[_StoredImage]:
    """Each session's first and last image, those resumed from, and as few more as keep the bound."""
    kept: list[_StoredImage] = []
    images = sorted(images, key=lambda image: (image.session, image.lsn))
    for i, image in enumerate(images):
        first = i == 0 or images[i - 1].session != image.session
        last = i + 1 == len(images) or images[i + 1].session != image.session
        if first or last or image.begin in resumed or images[i + 1].redo - kept[-1].redo > seconds:
            kept.append(image)
    return kept


def _needed(contents: _Contents, runs: list[str], images: list[_StoredImage]) -> set[bytes]:
    fixed = [contents.fixed[run] for run in runs]
    return set().union(*fixed, *(image.digests for image in images))


def _remove(store: Store, session: int, only: int | None) -> int:
    """Remove a session's records, or one of them, and note it; the number removed."""
    env = store._log
    lsns = [only] if only is not None else [entry.lsn for entry in store.scan(session, session=session)]
    before = store.scan(session, only, session=session, reverse=True) if only is not None else iter(())
    previous = next((entry.lsn for entry in before), session)

    def work(txn: Any) -> int:
        records, rows = env.dbs[log.RECORDS], env.dbs[log.SESSIONS]
        size = 0
        for lsn in lsns:
            size += len(txn.get(lsn_key(lsn), db=records))
            txn.delete(lsn_key(lsn), db=records)
        if only is None:
            txn.delete(lsn_key(session), db=rows)
        else:
            summary = Summary.decode(session, txn.get(lsn_key(session), db=rows))
            summary.nbytes -= size
            summary.counts[CheckpointEnd.TYPE] -= 1
            summary.counts = {kind: count for kind, count in summary.counts.items() if count}
            summary.last_lsn = previous if summary.last_lsn == only else summary.last_lsn
            txn.put(lsn_key(session), summary.encode(session), db=rows)
        log.note_removed(env, txn, [(lsn, lsn + 1) for lsn in lsns])
        return len(lsns)

    return env.write(work)


def _sweep(store: Store, digests: list[bytes]) -> None:
    """Delete pages, so many in a transaction that none becomes large."""
    env = store._pages
    for at in range(0, len(digests), _SWEEP):

        def work(txn: Any, some: list[bytes] = digests[at : at + _SWEEP]) -> None:
            for digest in some:
                txn.delete(digest, db=env.dbs[pages.FULL])
                txn.delete(digest, db=env.dbs[pages.DELTAS])

        env.write(work)
