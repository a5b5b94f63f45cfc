"""Space by policy: whole runs are removed, or images of the remaining ones; then pages that nothing names.

The order of removal is such that a crash may cut it off anywhere.  Records go first: a run with all its sessions,
one transaction for each, or the CheckpointEnd of an image, which makes the image unreachable.  The same transaction
writes the LSNs down as removed ranges, so every missing LSN is either in such a range or lost.  Then pages go:
those that the remaining records need are marked, all others are swept.  A crash in between leaves pages too many,
which the next gc finds, and never a record that names a missing page.

A run is removed whole, with its resumes and replays, because a resumed session continues from an image of an earlier
one.  So the log is never cut where a kept image needs it.  Thinning keeps the first and last image of a session and
those from which another session continues, and drops others while the redo between neighbours, in recorded
seconds, stays within a bound.

LMDB's file does not shrink; freed space is used again.  Of segments, those without a page are removed, and the others
get holes where the file system has them.  `compact` makes a small copy.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from florlog_wal import log, pages, segments
from florlog_wal.codec import lsn_key
from florlog_wal.filecheck import check_structure
from florlog_wal.records import CheckpointEnd, Commit, Entry, RunBegin
from florlog_wal.run_log import RunLog
from florlog_wal.sessions import Summary
from florlog_wal.tables import decode_table

References = Callable[[Entry], Iterable[bytes]]
_SWEEP_PAGES: Final = 10_000  # in one transaction


@dataclass(slots=True)
class GcReport:
    """What `gc` removed, or with ``dry_run`` would remove.  The bytes are those of pages."""

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
    """What the log contains, as far as space is concerned."""

    runs: dict[str, list[int]] = field(
        default_factory=dict
    )  # run id -> LSNs of its sessions, oldest run first
    fixed: dict[str, set[bytes]] = field(default_factory=dict)  # pages of a run that thinning does not free
    images: list[_StoredImage] = field(default_factory=list)
    resumed: set[int] = field(
        default_factory=set
    )  # CheckpointBegin LSNs of images from which a session continues


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
    next takes at most this many seconds.  ``budget`` (bytes) thins as far as needed for the pages to fit, then
    removes runs, oldest first, but never the newest.  ``also`` names pages that a record needs in addition to its
    sources and its table.  Takes the writer's lock, so it raises `RunLocked` while something records.
    """
    if keep_last is not None and keep_last < 1:
        raise ValueError(f"keep_last is {keep_last}: at least one run stays")
    with RunLog.open(path, mode="w", allow_network=allow_network) as store:
        with store._log.read() as snapshot:
            check_structure(snapshot)  # the whole log: opening a writer checked only its last leaf
        contents = _read(store, also)
        sizes = pages.sizes(store._pages)
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


def _read(store: RunLog, also: References) -> _Contents:
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
    """The runs and images that the policy keeps; ``bound`` in seconds, ``budget`` in bytes."""

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
    for finer in range(12, -1, -1):  # bounds that double, up to one that keeps only the first and last
        if fits(kept, chosen):
            break
        seconds = max(seconds, 1.01 * longest / 2**finer)
        chosen = images(kept, seconds)
    while not fits(kept, chosen) and len(kept) > 1:
        kept = kept[1:]
        chosen = images(kept, seconds)
    return kept, chosen


def _thin(images: list[_StoredImage], seconds: float, resumed: set[int]) -> list[_StoredImage]:
    """Each session's first and last image, those that were resumed from, and as few others as the bound allows."""
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


def _remove(store: RunLog, session: int, only: int | None) -> int:
    """Remove a session's records, or only the one at LSN ``only``, and write the range down; the number removed."""
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


def _sweep(store: RunLog, digests: list[bytes]) -> None:
    """Delete pages, in transactions of limited size; then give back the space of large ones, also that of no page."""
    env = store._pages
    for at in range(0, len(digests), _SWEEP_PAGES):

        def work(txn: Any, some: list[bytes] = digests[at : at + _SWEEP_PAGES]) -> None:
            for digest in some:
                for name in pages.DATABASES:
                    txn.delete(digest, db=env.dbs[name])

        env.write(work)
    taken = store._segments.taken
    segments.free(store.path, pages.places_of(env).values(), taken)
