"""Space by policy: whole runs are removed, or images of the remaining ones; then pages that nothing names.

A run is removed with its whole directory.  Of a run that stays, images are dropped by the rule of
`florlog_wal.thinning`, in the order that `florlog_wal.stored_images` describes, which a crash may cut off anywhere.

The policy is one for all runs, and there may be thousands.  So a first pass opens one log after the other, for reading,
and keeps only what each would take at each level; a second one acts, and asks each log anew.  A run that somebody
writes to, in either pass, is left as it is.

LMDB's file does not shrink; freed space is used again.  Of segments, those without a page are removed, and the others
get holes where the file system has them.  `compact` makes a small copy.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field
from pathlib import Path

from florlog_wal import directory, pages
from florlog_wal.directory import lock_holder
from florlog_wal.errors import CorruptStore, NoSuchRun, RunLocked, WalError
from florlog_wal.filecheck import check_structure
from florlog_wal.run_log import RunLog
from florlog_wal.store import Store
from florlog_wal.stored_images import References, StoredImage, StoredImages, sweep
from florlog_wal.thinning import LEVELS, choose


@dataclass(slots=True)
class GcReport:
    """What `gc` removed, or with ``dry_run`` would remove.  The bytes are those of pages."""

    runs: list[str] = field(default_factory=list)  # removed whole
    busy: list[str] = field(default_factory=list)  # left as they are, because somebody writes to them
    damaged: list[str] = field(
        default_factory=list
    )  # left as they are: the run and what is wrong, in one line
    images: int = 0
    pages: int = 0
    freed_bytes: int = 0
    kept_bytes: int = 0
    swept: int = 0  # directories of runs that were never finished or not wholly removed

    def add(self, part: _Space) -> None:
        """Count what a run loses and keeps."""
        self.images += part.images
        self.pages += part.pages
        self.freed_bytes += part.freed_bytes
        self.kept_bytes += part.kept_bytes


@dataclass(frozen=True, slots=True)
class _Space:
    """What a level frees of a run, and what it leaves."""

    images: int = 0
    pages: int = 0
    freed_bytes: int = 0
    kept_bytes: int = 0

    def __add__(self, other: _Space) -> _Space:
        return _Space(
            self.images + other.images,
            self.pages + other.pages,
            self.freed_bytes + other.freed_bytes,
            self.kept_bytes + other.kept_bytes,
        )


@dataclass(frozen=True, slots=True)
class _Found:
    """A run, as the first pass has seen it."""

    run: str
    started: float  # Unix seconds
    empty: bool  # its writer died before its first record
    busy: bool
    whole: _Space  # what removing it frees
    levels: list[_Space]

    def at(self, level: int) -> _Space:
        """What a level does to it."""
        return self.levels[0 if self.busy else level]


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
    """Remove from a store, or from a single run's directory, what the policy does not keep and nothing names.

    ``keep_last`` keeps the N runs that began last.  ``redo_bound`` drops images as long as re-execution from one to the
    next takes at most this many seconds.  ``budget`` (bytes) bounds the pages of all runs: images are thinned, in all
    runs by the same level, as far as needed; then runs are removed, oldest first, but never the newest.  ``also`` names
    pages that a record needs in addition to its sources and its table.

    Raises what `Store.open` does; what is wrong with a single run is in the report.
    """
    if keep_last is not None and keep_last < 1:
        raise ValueError(f"keep_last is {keep_last}: at least one run stays")
    report = GcReport()
    with Store.open(path, allow_network=allow_network) as store:
        if not dry_run:
            report.swept = store.sweep()
        levels = 1 if budget is None else LEVELS
        looks = (_look(store, run, redo_bound, also, levels, report) for run in store.runs())
        found = sorted((it for it in looks if it is not None), key=lambda it: (it.started, it.run))
        kept, level = _choose(found, keep_last, budget)
        for it in found:
            if it.busy:
                report.busy.append(it.run)
                report.add(it.at(level))
            elif it.run not in kept:
                _remove(store, it, report, dry_run=dry_run)
            elif dry_run:
                report.add(it.at(level))
            else:
                _collect(store, it.run, level, redo_bound, also, report)
    return report


def _choose(found: list[_Found], keep_last: int | None, budget: int | None) -> tuple[set[str], int]:
    """The runs that the policy keeps, and the level to which their images are thinned."""
    kept = [it for it in found if not it.empty or it.busy]
    if keep_last is not None:
        kept = [it for it in kept[:-keep_last] if it.busy] + kept[-keep_last:]
    level = 0
    if budget is not None:
        while sum(it.at(level).kept_bytes for it in kept) > budget and level < LEVELS - 1:
            level += 1
        over = sum(it.at(level).kept_bytes for it in kept) - budget
        for it in kept[:-1]:
            if over > 0 and not it.busy:
                kept.remove(it)
                over -= it.at(level).kept_bytes
    return {it.run for it in kept}, level


def _look(
    store: Store, run: str, bound: float | None, also: References, levels: int, report: GcReport
) -> _Found | None:
    """The first pass over a run; None for one that cannot be read."""
    where = store.directory(run)
    try:
        busy = lock_holder(where) is not None
        with RunLog.open(where, allow_network=True) as log:
            sessions = log.sessions()
            if sessions and sessions[0].begin.run != run:
                raise CorruptStore(str(where), f"it holds run {sessions[0].begin.run!a}")
            whole, made = _spaces(log, bound, also, 0 if busy else levels)
            if (answers := log.answers) is not None:
                inner, (part, *_) = _spaces(answers, None, also, 0 if busy else 1)
                whole, made = whole + inner, [space + part for space in made]
    except (WalError, OSError) as error:
        if run in store:  # else somebody has removed it meanwhile
            report.damaged.append(f"run {run}: {error}")
        return None
    started = sessions[0].begin.started if sessions else 0.0
    return _Found(run, started if math.isfinite(started) else 0.0, not sessions, busy, whole, made)


def _spaces(log: RunLog, bound: float | None, also: References, levels: int) -> tuple[_Space, list[_Space]]:
    """What removing a log frees, and what each level does to it; with no levels, what it is to leave it as it is."""
    sizes = pages.sizes(log._pages)
    total = sum(sizes.values())
    if not levels:  # its writer may be removing images
        return _Space(0, len(sizes), total, 0), [_Space(0, 0, 0, total)]
    held = StoredImages(log, also)
    made: list[_Space] = []
    before: list[StoredImage] | None = None
    for level in range(levels):
        images = choose(held, level, bound)
        if images == before:
            made.append(made[-1])
            continue
        gone = _unneeded(log, held, images, sizes)
        freed = sum(sizes[digest] for digest in gone)
        made.append(_Space(len(held.images) - len(images), len(gone), freed, total - freed))
        before = images
    return _Space(len(held.images), len(sizes), total, 0), made


def _unneeded(
    log: RunLog, held: StoredImages, images: list[StoredImage], sizes: dict[bytes, int]
) -> set[bytes]:
    """The stored pages that are not needed when of the images only these remain."""
    needed = held.fixed.union(*(image.digests for image in images))
    return sizes.keys() - pages.closure(log._pages, needed)


def _remove(store: Store, it: _Found, report: GcReport, *, dry_run: bool) -> None:
    try:
        if not dry_run:
            store.remove(it.run)
    except NoSuchRun:  # somebody else has removed it
        return
    except RunLocked:
        report.busy.append(it.run)
        report.kept_bytes += it.whole.freed_bytes
        return
    report.runs.append(it.run)
    report.add(it.whole)


def _collect(
    store: Store, run: str, level: int, bound: float | None, also: References, report: GcReport
) -> None:
    """The second pass over a run that stays."""
    where = store.directory(run)
    try:
        report.add(_collect_log(where, level, bound, also))
        if (where / directory.ANSWERS / directory.MANIFEST).exists():
            report.add(_collect_log(where / directory.ANSWERS, 0, None, also))
    except RunLocked:
        report.busy.append(run)
    except WalError as error:
        if run in store:  # else somebody has removed it meanwhile
            report.damaged.append(f"run {run}: {error}")


def _collect_log(where: Path, level: int, bound: float | None, also: References) -> _Space:
    with RunLog.open(where, mode="r+", allow_network=True) as log:
        with log._log.read() as snapshot:
            check_structure(snapshot)  # the whole log: opening a writer checked only its last leaf
        held = StoredImages(log, also)
        sizes = pages.sizes(log._pages)
        images = choose(held, level, bound)
        keep = {image.lsn for image in images}
        dropped = [image for image in held.images if image.lsn not in keep]
        gone = _unneeded(log, held, images, sizes)
        held.drop(dropped)
        sweep(log, gone)
    freed = sum(sizes[digest] for digest in gone)
    return _Space(len(dropped), len(gone), freed, sum(sizes.values()) - freed)
