"""Readers next to a live writer: what they use does not keep the log's file from reusing its pages."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from florlog_wal import Commit, LoopBegin, RunBegin, RunLog, Statement

import florlog

Look = Callable[[], object]
COMMITS = 250


def size_after(path: Path, reading: Callable[[Path], AbstractContextManager[Look]]) -> int:
    """Bytes of the log's file after so many group commits, each followed by a look of the reader."""
    with RunLog.open(path, mode="w") as store:
        begin = RunBegin("live", "live", "record", "/l.py", (), "/", {}, {}, (), 0.0, 0, 1, 0)
        session = store.append(begin)
        store.append(Statement(1, "log", "/l.py", "", 1, b"", (), ("x",)), session=session)
        loop = store.append(LoopBegin((), "i", 0, 1, "for", -1, 0, (), 0.0, {}), session=session)
        store.sync()
        with reading(path) as look:
            for group in range(COMMITS):
                for index in range(10 * group, 10 * group + 10):
                    commit = Commit(
                        loop, index, 0, ((1, "x", index / 7),), 0.1, b"r" * 8, b"d" * 8, b"", False
                    )
                    store.append(commit, session=session)
                store.sync()
                look()
    return (path / "log" / "data.mdb").stat().st_size


@contextmanager
def nobody(path: Path) -> Iterator[Look]:
    yield lambda: None


@contextmanager
def slow_readers(path: Path) -> Iterator[Look]:
    """Two that have begun and are never in a hurry; a third that asks for the table now and then."""
    with florlog.open(path) as log:
        records, entries = log.records(), log.run().log.scan()
        looks = 0

        def look() -> None:
            nonlocal looks
            looks += 1
            next(records, None)
            next(entries, None)
            if looks % 50 == 0:
                assert len(log.values("x")) == 10 * looks

        yield look


@contextmanager
def held_transaction(path: Path) -> Iterator[Look]:
    """What a reader must not do."""
    with florlog.open(path) as log, log.run().log._log.read() as snapshot:
        assert snapshot is not None
        yield lambda: None


def test_slow_readers_do_not_make_the_log_grow(tmp_path: Path) -> None:
    alone = size_after(tmp_path / "alone", nobody)
    beside = size_after(tmp_path / "beside", slow_readers)
    held = size_after(tmp_path / "held", held_transaction)
    assert beside <= 1.25 * alone
    assert held > 2 * alone  # so it would have been seen
