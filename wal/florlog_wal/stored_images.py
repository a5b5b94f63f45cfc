"""The images of a run as its log has them: where they stand, which pages they need; and removing one.

The order of removal is such that a crash may cut it off anywhere.  Records go first: the CheckpointEnd of an image,
which makes the image unreachable.  The same transaction writes its LSN down as removed, so every missing LSN is either
in a removed range or lost.  Then `sweep` deletes pages that nothing names any more.  A crash in between leaves pages
too many, which the next gc finds, and never a record that names a missing page.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

from florlog_wal import log, pages, segments
from florlog_wal.codec import lsn_key
from florlog_wal.records import CheckpointBegin, CheckpointEnd, Commit, Entry, LoopBegin, LoopEnd, RunBegin
from florlog_wal.run_log import RunLog
from florlog_wal.sessions import Summary
from florlog_wal.tables import decode_table

References = Callable[[Entry], Iterable[bytes]]
"""The pages that a record needs in addition to its sources and its table."""
_SWEEP_PAGES: Final = 10_000  # in one transaction


@dataclass(frozen=True, slots=True)
class StoredImage:
    """An image that is complete."""

    lsn: int
    session: int
    begin: int  # LSN of its CheckpointBegin
    seconds: float  # of training before it, over all sessions
    loop: int
    index: int
    digests: frozenset[bytes]  # of its page table and its pages


class StoredImages:
    """What a run's log contains, as far as space is concerned.  `read_on` reads what was appended since."""

    def __init__(self, source: RunLog, also: References = lambda entry: ()) -> None:
        self.images: list[StoredImage] = []  # oldest first
        self.fixed: set[bytes] = set()  # pages that something else than an image needs
        self._source = source
        self._also = also
        self._next = 1
        self._seconds = 0.0
        self._resumed: set[int] = set()  # LSNs of CheckpointBegins
        self._begun: dict[int, tuple[float, int, int]] = {}  # LSN of CheckpointBegin -> seconds, loop, index
        self._depths: dict[int, int] = {}  # LSN of LoopBegin -> depth, 1 for an outermost loop
        self._counts: dict[int, int] = {}  # LSN of LoopBegin -> iterations of a loop that ended
        self.read_on()

    def read_on(self) -> None:
        """Take in the records that were appended since the last call."""
        for entry in self._source.scan(self._next):
            self._next = entry.lsn + 1
            self.fixed.update(self._also(entry))
            self._take(entry)

    def _take(self, entry: Entry) -> None:
        match entry.record:
            case RunBegin() as record:
                self._resumed.add(record.resumed_from)
                self.fixed.update(digest for _, _, digest in record.sources)
            case Commit(segment=0, seconds=seconds) if 0 < seconds < math.inf:
                self._seconds += seconds
            case LoopBegin() as record:
                self._depths[entry.lsn] = len(record.path) + 1
            case LoopEnd() as record:
                self._counts[record.loop] = record.count
            case CheckpointBegin() as record:
                self._begun[entry.lsn] = self._seconds, record.loop, record.index
            case CheckpointEnd() as record:
                table = decode_table(self._source.get_page(record.table))
                digests = frozenset([record.table, *(page for item in table.values() for page in item.pages)])
                seconds, loop, index = self._begun.pop(record.begin, (self._seconds, 0, 0))
                self.images.append(
                    StoredImage(entry.lsn, entry.session, record.begin, seconds, loop, index, digests)
                )
            case _:
                pass

    def stays(self, image: StoredImage) -> bool:
        """Whether an image is never dropped: the newest, and those from which a session continues."""
        return image is self.images[-1] or image.begin in self._resumed

    def rank(self, image: StoredImage) -> int:
        """How far outside the boundary of an image lies: 0 for the end of an outermost loop, more for inner ones."""
        ended = self._counts.get(image.loop) == image.index
        return self._depths.get(image.loop, 1) - ended

    def drop(self, dropped: Iterable[StoredImage]) -> None:
        """Remove images from the log; `sweep` frees their pages."""
        gone = set()
        for image in dropped:
            _remove(self._source, image)
            gone.add(image.lsn)
        self.images = [image for image in self.images if image.lsn not in gone]


def _remove(source: RunLog, image: StoredImage) -> None:
    """Remove an image's CheckpointEnd, and write its LSN down as removed."""
    env = source._log
    before = source.scan(image.session, image.lsn, session=image.session, reverse=True)
    previous = next((entry.lsn for entry in before), image.session)

    def work(txn: Any) -> None:
        records, rows = env.dbs[log.RECORDS], env.dbs[log.SESSIONS]
        summary = Summary.decode(image.session, txn.get(lsn_key(image.session), db=rows))
        summary.nbytes -= len(txn.get(lsn_key(image.lsn), db=records))
        summary.counts[CheckpointEnd.TYPE] -= 1
        summary.counts = {kind: count for kind, count in summary.counts.items() if count}
        summary.last_lsn = previous if summary.last_lsn == image.lsn else summary.last_lsn
        txn.delete(lsn_key(image.lsn), db=records)
        txn.put(lsn_key(image.session), summary.encode(image.session), db=rows)
        log.note_removed(env, txn, [(image.lsn, image.lsn + 1)])

    env.write(work)


def sweep(source: RunLog, digests: Iterable[bytes]) -> None:
    """Delete pages, in transactions of limited size; then give back the space of large ones, also that of no page."""
    env, gone = source._pages, list(digests)
    for at in range(0, len(gone), _SWEEP_PAGES):

        def work(txn: Any, some: list[bytes] = gone[at : at + _SWEEP_PAGES]) -> None:
            for digest in some:
                for name in pages.DATABASES:
                    txn.delete(digest, db=env.dbs[name])

        env.write(work)
    taken = source._segments.taken
    segments.free(source.path, pages.places_of(env).values(), taken)
