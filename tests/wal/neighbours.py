"""Processes that go on beside the one that is killed: a recording that also begins further runs, and a reader."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Protocol

from florlog_wal import (
    CheckpointBegin,
    CheckpointEnd,
    Record,
    RunExists,
    RunLog,
    Store,
    WalError,
    decode_table,
    verify,
)

from tests.wal.many_runs import Held, image
from tests.wal.samples import commit, run_begin

MAX_SECONDS = 120
"""After so long a neighbour that nobody ended ends itself."""
_MAX_RUNS = 6
_MAX_IMAGES = 2
"""Of a run that is recorded, after the first: gc decides by size, so it may not grow much."""
_LIVE = "live"


class _Signals(Protocol):
    def ready(self) -> None:
        """Tell the parent that it can go on."""

    def told(self, seconds: float | None) -> bool:
        """Whether the parent says so within a time (None: wait for it)."""


class Neighbour:
    """A forked process.  It works until it is told to stop."""

    def __init__(self, work: Callable[[_Signals], None], report: Path) -> None:
        self._report = report
        self._ready, ready = os.pipe()
        stop, self._stop = os.pipe()
        self._child = os.fork()
        if self._child == 0:
            code = 1
            try:
                signal.alarm(MAX_SECONDS)
                work(_Child(ready, stop))
                code = 0
            except BaseException:
                report.write_text(traceback.format_exc())
            finally:
                os._exit(code)
        os.close(ready)
        os.close(stop)
        os.read(self._ready, 1)

    def tell(self) -> None:
        """Let it go on to its next phase, and wait until it has; it may have failed."""
        self._say()
        os.read(self._ready, 1)

    def end(self) -> list[str]:
        """Let it end; what it has to complain about."""
        self._say()
        status = os.waitpid(self._child, 0)[1]
        os.close(self._stop)
        os.close(self._ready)
        return (
            [self._report.read_text() if self._report.exists() else f"wait status {status}"] if status else []
        )

    def _say(self) -> None:
        with contextlib.suppress(BrokenPipeError):  # it has failed, as `end` reports
            os.write(self._stop, b"x")


class _Child:
    def __init__(self, ready: int, stop: int) -> None:
        self._ready, self._stop = ready, stop

    def ready(self) -> None:
        os.write(self._ready, b"r")

    def told(self, seconds: float | None) -> bool:
        return bool(select.select([self._stop], [], [], seconds)[0]) and bool(os.read(self._stop, 1))


def script(run: str) -> Iterator[Record]:
    """What a live run records; the ends of images are known by their type alone."""
    yield run_begin(run, started=-1.0)  # older than all, so that it counts for no policy
    for index in range(10**6):
        yield commit(index)
        if index <= _MAX_IMAGES:
            yield CheckpointBegin(0, index + 1)
            yield CheckpointEnd(0, b"", 0, 0, 0.0, 0.0)


def recording(path: Path, acks: Path) -> Callable[[_Signals], None]:
    """Record the run ``live`` with a large page, then more and more runs; all stay open until the end."""

    def work(signals: _Signals) -> None:
        with Store.open(path) as store, acks.open("w", buffering=1) as out:
            logs: dict[str, RunLog] = {}
            counts: dict[str, int] = {}

            def begin(run: str) -> None:
                try:
                    logs[run] = store.new_log(run, window=0.002)
                except RunExists:  # to gc it looked like a dead writer's; the next one has another name
                    return
                logs[run].append(run_begin(run, started=-1.0))
                counts[run] = 0
                out.write(f"{run} 1\n")

            def go_on(run: str, large: int = 0) -> None:
                log, index = logs[run], counts[run]
                log.append(commit(index), session=1)
                pages = image(log, 1, run, index, large) if index <= _MAX_IMAGES else []
                counts[run] = index + 1
                out.writelines(f"{run} page {page.hex()}\n" for page in pages)
                out.write(f"{run} {log.last_lsn}\n")

            begin(_LIVE)
            go_on(_LIVE, large=20_000)
            signals.ready()
            turn = 0
            while not signals.told(0.003):
                turn += 1
                if turn % 5 == 0 and len(logs) < _MAX_RUNS:
                    begin(f"{_LIVE}{turn}")
                for run in logs:
                    go_on(run)
            signals.ready()
            signals.told(None)
            for log in logs.values():
                log.close()

    return work


def recorded(path: Path, acks: Path) -> list[str]:
    """What is wrong with the runs that were recorded, by what was acknowledged."""
    wrong: list[str] = []
    lsns: dict[str, int] = {}
    pages: dict[str, list[bytes]] = {}
    for line in acks.read_text().split("\n")[:-1]:
        run, *rest = line.split()
        if rest[0] == "page":
            pages.setdefault(run, []).append(bytes.fromhex(rest[1]))
        else:
            lsns[run] = int(rest[0])
    for run, last in lsns.items():
        try:
            with RunLog.open(path / "runs" / run) as log:
                missing = [page for page in pages.get(run, []) if not log.has_page(page)]
                found = [entry.record for entry in log.scan()]
        except WalError as error:
            wrong.append(f"lost: live run {run}: {error}")
            continue
        expected = [record for record, _ in zip(script(run), found, strict=False)]
        if len(found) < last or not all(map(_same, found, expected)):
            wrong.append(f"lost: live run {run} has {len(found)} records, {last} were acknowledged")
        if missing:
            wrong.append(f"lost: {len(missing)} pages of live run {run}")
        wrong += [f"live run {run}: {problem}" for problem in verify(path / "runs" / run).problems]
    return wrong


def _same(found: Record, expected: Record) -> bool:
    return isinstance(found, CheckpointEnd) if isinstance(expected, CheckpointEnd) else found == expected


def reading(path: Path, kept: Mapping[str, Held], others: Mapping[str, Held]) -> Callable[[_Signals], None]:
    """Read, from before the crash to after it: of ``kept`` all that is given, of others what is still there."""

    def work(signals: _Signals) -> None:
        with Store.open(path) as store:
            logs = {run: store.log(run) for run in (*kept, *others)}
            first = True
            while first or not signals.told(0.01):
                for run, before in kept.items():
                    _read(logs[run], before)
                for run, before in others.items():
                    with contextlib.suppress(WalError):
                        _read(logs[run], before)
                if first:
                    signals.ready()
                first = False

    return work


def _read(log: RunLog, before: Held) -> None:
    for lsn, (entry, pages) in before.images.items():
        assert log.record(lsn) == entry
        assert isinstance(entry.record, CheckpointEnd)
        table = decode_table(log.get_page(entry.record.table))
        assert [bytes(memory) for memory in log.read_entries(list(table.values()))] == pages
    assert log.record(1) == before.records[0]
