"""A small deterministic recording, made to be killed: `python -m tests.wal.workload STORE ACKS`.

Its whole log is known beforehand, so the log after a crash can be compared with what a crash may leave.  Promises
are written to the acknowledgement file, one line after each call: ``LSN`` when append has returned, ``durable LSN``
when sync has, ``page DIGEST`` when put_pages has, ``tail SEGMENT OFFSET HEX`` (on request) for what append stored
into mapped memory, which no system call shows, ``behind`` when sync failed, ``stopped`` when the log gave up, after
which the workload goes on as a training would, ``refused`` when opening or closing the store failed, and ``end``.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal, NamedTuple

from florlog_wal import (
    CheckpointBegin,
    CheckpointEnd,
    LogStopped,
    LoopBegin,
    LoopEnd,
    PageEntry,
    PagesFailed,
    Record,
    RunEnd,
    RunLog,
    WalError,
    encode_table,
    page_digest,
)

from tests.wal.samples import commit, run_begin

Durability = Literal["group", "sync"]


class Step(NamedTuple):
    """Pages to put, then a record to append, then perhaps a wait for durability or a pause."""

    record: Record
    session: int
    pages: tuple[bytes, ...] = ()
    after: str = ""


def script(steps: int) -> Iterator[Step]:
    """The whole recording; the k-th step's record gets LSN k, from 1."""
    lsn = 0

    def step(record: Record, session: int, pages: tuple[bytes, ...] = (), after: str = "") -> Step:
        nonlocal lsn
        lsn += 1
        return Step(record, session, pages, after)

    for run in range(2):
        yield step(run_begin(f"r{run}"), 0)
        session = lsn
        yield step(LoopBegin((), "step", 0, 1, "for", steps, 0, (), 0.0, {}), session)
        loop = lsn
        for index in range(steps):
            after = "sync" if index % 4 == 3 else "pause" if index % 4 == 1 else ""
            yield step(commit(index, value=index / 7, loop=loop), session, after=after)
            if index % 3 == 2:
                yield step(CheckpointBegin(loop, index + 1), session)
                begin = lsn
                pages = tuple(bytes([run * 100 + index * (k > 0), k]) * (3000 + 5192 * k) for k in range(3))
                entry = PageEntry("tensor", "uint8", (49152,), 49152, tuple(map(page_digest, pages)))
                table = encode_table({"w": entry})
                end = CheckpointEnd(begin, page_digest(table), 49152, 0, 0.0, 0.0)
                yield step(end, session, (*pages, table))
        yield step(LoopEnd(loop, steps, False), session)
        yield step(RunEnd("complete", 1.0, None), session, after="sync")


def record(
    path: Path, acks: Path, steps: int, durability: Durability = "group", done: int = 0, mirror: bool = False
) -> None:
    """Make the recording, continuing after the first ``done`` records."""
    fd = os.open(acks, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)

    def acknowledge(text: str) -> None:
        os.write(fd, f"{text}\n".encode())

    stopped = False
    try:
        with RunLog.open(path, mode="w", durability=durability, window=0.002) as store:
            for lsn, step in enumerate(script(steps), 1):
                if lsn <= done:
                    continue
                if stopped:
                    continue  # the training goes on, unrecorded
                try:
                    _do(store, step, lsn, acknowledge, mirror)
                except (LogStopped, PagesFailed):
                    stopped = True
                    acknowledge("stopped")
    except (WalError, OSError):
        acknowledge("refused")
    acknowledge("end")
    os.close(fd)


def _do(store: RunLog, step: Step, lsn: int, acknowledge: Callable[[str], None], mirror: bool) -> None:
    if step.pages:
        for digest in store.put_pages(step.pages).digests:
            acknowledge(f"page {digest.hex()}")
    assert store.append(step.record, session=step.session) == lsn
    if mirror:
        for segment, offset, data in mapped(store):
            acknowledge(f"tail {segment} {offset} {data.hex()}")
    acknowledge(str(lsn))
    if step.after == "sync":
        try:
            acknowledge(f"durable {store.sync()}")
        except LogStopped:
            acknowledge("behind")  # it may catch up, and append goes on as long as the tail has room
    elif step.after == "pause":
        time.sleep(0.006)


def mapped(store: RunLog) -> Iterator[tuple[int, int, bytes]]:
    """The first bytes of the tail's segments as they are now: segment, offset, bytes."""
    writer = store._writer
    assert writer is not None
    for segment, memory in enumerate(writer._segments):
        yield segment, 0, bytes(memory[:4096])


if __name__ == "__main__":
    record(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 12)
