"""The log: what the records' LMDB environment holds, and how records get into it durably.

`write_records` is the one place where records enter LMDB: a batch, the summary rows of its sessions, one
transaction, one sync.  It takes what LMDB lacks and ignores the rest, so it can be repeated after a failure
whose outcome is unknown.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from florlog_wal import directory, environment, tail
from florlog_wal.codec import lsn_key
from florlog_wal.environment import Environment
from florlog_wal.errors import CorruptStore
from florlog_wal.sessions import Summary, add_records

RECORDS: Final = "records"
SESSIONS: Final = "sessions"
MAP_SIZE: Final = 1 << 28


def acquire(path: Path, map_size: int, *, writable: bool) -> Environment:
    """The environment of a store's log."""
    return environment.acquire(path / directory.LOG, (RECORDS, SESSIONS), map_size, writable=writable)


def bounds(env: Environment, txn: Any) -> tuple[int, int]:
    """First and last LSN in LMDB; (1, 0) for an empty log."""
    with txn.cursor(env.dbs[RECORDS]) as cursor:
        if not cursor.first():
            return 1, 0
        first = int.from_bytes(cursor.key(), "big")
        cursor.last()
        return first, int.from_bytes(cursor.key(), "big")


def last_durable(env: Environment) -> int:
    """The last LSN in LMDB."""
    with env.read() as txn:
        return bounds(env, txn)[1]


def load_summary(env: Environment, txn: Any, session: int) -> Summary:
    """The summary row of a session; an empty one if there is none."""
    data = txn.get(lsn_key(session), db=env.dbs[SESSIONS])
    return Summary() if data is None else Summary.decode(session, bytes(data))


def write_records(env: Environment, records: dict[int, bytes]) -> int:
    """Put consecutive records that LMDB lacks into it, durably; the last LSN there afterwards."""

    def work(txn: Any) -> int:
        last = bounds(env, txn)[1]
        new = {lsn: data for lsn, data in records.items() if lsn > last}
        if not new:
            return last
        if min(new) != last + 1 or max(new) != last + len(new):
            raise CorruptStore(str(env.path), f"the tail continues at {min(new)}, the log ends at {last}")
        with txn.cursor(env.dbs[RECORDS]) as cursor:
            cursor.putmulti([(lsn_key(lsn), data) for lsn, data in new.items()], append=True)
        summaries: dict[int, Summary] = {}
        add_records(summaries, new, lambda session: load_summary(env, txn, session))
        for session, summary in summaries.items():
            txn.put(lsn_key(session), summary.encode(session), db=env.dbs[SESSIONS])
        return last + len(new)

    return env.write(work)


def recover_tail(env: Environment, path: Path) -> int:
    """Move into LMDB what a killed writer left in the tail; the last LSN afterwards."""
    last = last_durable(env)
    left = tail.pending(path, last)
    return write_records(env, left) if left else last
