"""The log: what the records' LMDB environment contains, and how records get into it durably.

Records enter LMDB in one place, `write_records`: a batch and the summary rows of its sessions, in one
transaction with one sync.  It takes the records that LMDB lacks and ignores the others, so it can be repeated
after a failure whose outcome is unknown.

LSNs are dense.  Where `gc` has removed records, a row in the ``removed`` database covers the range.  A record
that is missing without such a row is lost.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any, Final

from florlog_wal import directory, environment, tail
from florlog_wal.btree import Damage, Snapshot
from florlog_wal.codec import check, lsn_key
from florlog_wal.environment import Environment
from florlog_wal.errors import CorruptRecord, CorruptStore
from florlog_wal.sessions import Summary, add_records

RECORDS: Final = "records"
SESSIONS: Final = "sessions"
REMOVED: Final = "removed"
INITIAL_MAP_BYTES: Final = 1 << 28


def acquire(path: Path, map_size: int, *, writable: bool, create: bool = False) -> Environment:
    """The environment of a store's log."""
    names = (RECORDS, SESSIONS, REMOVED)
    return environment.acquire(
        path / directory.LOG, names, map_size, growing=RECORDS, writable=writable, create=create
    )


def extent(snapshot: Snapshot) -> tuple[int, bool]:
    """The last LSN in LMDB (0 for an empty log), and whether the file agrees with itself about it.

    The last key and the number of entries both say it.  If they differ, the file is damaged; then the larger is
    taken, so that reading on finds the record that is missing.
    """
    gone = removed_in(snapshot)
    counted = snapshot.tree(RECORDS).entries + sum(stop - start for start, stop in gone)
    try:
        found = snapshot.last(RECORDS)
    except Damage:
        return counted, False
    last = int.from_bytes(found[0], "big") if found and len(found[0]) == 8 else 0
    last = max(last, gone[-1][1] - 1 if gone else 0)
    if last == counted:
        return last, True
    return max(counted, last if last < 2**63 else 0), False


def last_durable(env: Environment) -> int:
    """The last LSN in LMDB."""
    with env.read() as snapshot:
        last, certain = extent(snapshot)
    if not certain:
        raise CorruptRecord(last, "the log's last record and its count disagree")
    return last


def unlisted(env: Environment) -> dict[int, bytes]:
    """Records of a commit that LMDB ignores, because the commit's meta page has the lower transaction number.

    Either a flipped bit has changed the number of one of the two transactions, or the meta page could not be
    written, after which LMDB puts back an earlier number.  In both cases the commit's pages had been synced,
    so its records count as those of the tail do.
    """
    found: dict[int, bytes] = {}
    with env.read() as snapshot:
        last = extent(snapshot)[0]
        with contextlib.suppress(Damage, CorruptRecord, LookupError):
            for leaf in snapshot.other().leaves(RECORDS, lsn_key(last + 1)):
                for key, data in leaf:
                    lsn = int.from_bytes(key, "big")
                    if lsn > last:
                        check(lsn, data)
                        found[lsn] = data
    return found


def removed_range(item: tuple[bytes, bytes]) -> tuple[int, int]:
    """Start and stop of a removed range.  The value ends in a checksum; raises `CorruptRecord` if it is wrong."""
    key, value = item
    start, stop = int.from_bytes(key, "big"), int.from_bytes(value[:8], "big")
    if len(value) != 16 or value[8:] != directory.seal(key + value[:8]) or not 0 < start < stop:
        raise CorruptRecord(start, "checksum mismatch in the row of a removed range")
    return start, stop


def removed_in(snapshot: Snapshot) -> list[tuple[int, int]]:
    """The ranges that `gc` removed, in order, each as start and stop (the first LSN after it)."""
    return [removed_range(item) for leaf in snapshot.leaves(REMOVED) for item in leaf]


def note_removed(env: Environment, txn: Any, gone: list[tuple[int, int]]) -> None:
    """Add ranges to the removed ones, joining neighbours."""
    db = env.dbs[REMOVED]
    with txn.cursor(db) as cursor:
        known = [removed_range(item) for item in cursor]
    joined: list[tuple[int, int]] = []
    for start, stop in sorted([*known, *gone]):
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(stop, joined[-1][1]))
        else:
            joined.append((start, stop))
    for start, _ in known:
        txn.delete(lsn_key(start), db=db)
    for start, stop in joined:
        key, value = lsn_key(start), lsn_key(stop)
        txn.put(key, value + directory.seal(key + value), db=db)


def add_to_summaries(env: Environment, txn: Any, records: dict[int, bytes]) -> None:
    """Count records in the summary rows of their sessions."""
    db = env.dbs[SESSIONS]
    summaries: dict[int, Summary] = {}

    def load(session: int) -> Summary:
        data = txn.get(lsn_key(session), db=db)
        return Summary() if data is None else Summary.decode(session, data)

    add_records(summaries, records, load)
    for session, summary in summaries.items():
        txn.put(lsn_key(session), summary.encode(session), db=db)


def _removed_count(env: Environment, txn: Any) -> int:
    with txn.cursor(env.dbs[REMOVED]) as cursor:
        return sum(stop - start for start, stop in map(removed_range, cursor))


def _last_of(env: Environment, txn: Any, name: str) -> tuple[bytes, bytes] | None:
    with txn.cursor(env.dbs[name]) as cursor:
        return cursor.item() if cursor.last() else None


def write_records(env: Environment, records: dict[int, bytes]) -> int:
    """Put consecutive records that LMDB lacks into it, durably; the last LSN there afterwards.

    Raises `CorruptStore` if the records do not continue the log, and `CorruptRecord` if LMDB's end is damaged.
    """

    def work(txn: Any) -> int:
        found, gone = _last_of(env, txn, RECORDS), _last_of(env, txn, REMOVED)
        last = int.from_bytes(found[0], "big") if found else 0
        last = max(last, removed_range(gone)[1] - 1 if gone else 0)
        gone_count = _removed_count(env, txn)
        if txn.stat(env.dbs[RECORDS])["entries"] + gone_count != last:
            raise CorruptRecord(last, "the log's last record and its count disagree")
        new = {lsn: data for lsn, data in records.items() if lsn > last}
        if not new:
            return last
        if min(new) != last + 1 or max(new) != last + len(new):
            raise CorruptStore(str(env.path), f"the tail continues at {min(new)}, the log ends at {last}")
        with txn.cursor(env.dbs[RECORDS]) as cursor:
            cursor.putmulti([(lsn_key(lsn), data) for lsn, data in new.items()], append=True)
        add_to_summaries(env, txn, new)
        return last + len(new)

    return env.write(work)


def recover_tail(env: Environment, path: Path) -> int:
    """Move the records that a killed writer left in the tail into LMDB; the last LSN afterwards.

    Raises `CorruptRecord` if the log ends before the floor of the tail.
    """
    last = last_durable(env)
    reader = tail.TailReader(path)
    left = tail.following({**unlisted(env), **reader.records_after(last)}, last)
    if last + len(left) < reader.floor:
        raise CorruptRecord(
            last + len(left) + 1, f"the log once reached {reader.floor} and now ends before it"
        )
    return write_records(env, left) if left else last


def check_end(env: Environment, path: Path) -> None:
    """Raise `CorruptRecord` if the log ends before its end at the last clean close: then nothing may be appended.

    LMDB's pages have no checksums, so a damaged pointer may lead to an older, sound tree.  Between two writers
    nothing else shows it.
    """
    closed_at, last = directory.read_end(path), last_durable(env)
    if last < closed_at:
        raise CorruptRecord(last + 1, f"the log was closed at {closed_at} and now ends before it")
