"""Analysis of logs that end at any record: which images and commits count."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from florlog_recovery import Loop, RunTree, analyse
from florlog_wal import (
    Abort,
    Begin,
    CheckpointBegin,
    CheckpointEnd,
    Commit,
    Entry,
    LoopBegin,
    LoopEnd,
    Path,
    Record,
    RunEnd,
    SessionInfo,
    Statement,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.recovery.trees import BEGIN


@dataclass
class Log:
    """The records of one session, as a store gives them."""

    records: list[Record] = field(default_factory=lambda: [BEGIN])
    copies: list[int] = field(default_factory=list)  # CheckpointBegins without an end
    losers: list[tuple[int, int]] = field(default_factory=list)  # LoopBegin and index

    def append(self, record: Record) -> int:
        self.records.append(record)
        return len(self.records)

    def scan(self, start: int = 1, stop: int | None = None, **_: Any) -> Iterable[Entry]:
        for lsn, record in enumerate(self.records[: (stop or 1 << 62) - 1], 1):
            yield Entry(lsn, 1, 0, 10, record)


def run(draw: st.DrawFn) -> Log:
    """A run of two nested loops that an exception may end, with images whose CheckpointEnd may come late."""
    log = Log()
    site = ("/s.py", "<module>", 1)
    for number, name in enumerate(("epoch", "step"), 1):
        log.append(Statement(number, "loop", *site[:2], number, b"", (), (name,)))

    def begin(name: str, parent: int, path: Path) -> int:
        number = 1 if name == "epoch" else 2
        return log.append(LoopBegin(path, name, parent, number, "for", -1, 0, (site,), 0.0, {}))

    def boundary(loop: int, index: int) -> None:
        if draw(st.integers(0, 2)) == 0:
            log.copies.append(log.append(CheckpointBegin(loop, index)))
        while log.copies and draw(st.booleans()):
            end = CheckpointEnd(log.copies.pop(0), b"%d" % len(log.records), 1, 1, 0.0, 0.0)
            log.append(end)

    def commit(loop: int, index: int) -> None:
        log.append(Commit(loop, index, 0, (), 1.0, b"", b"", b"", False))

    epochs = begin("epoch", 0, ())
    broken = False
    for epoch in range(draw(st.integers(1, 3))):
        boundary(epochs, epoch)
        log.append(Begin(epochs, epoch))
        steps = begin("step", epochs, (("epoch", epoch),))
        count = draw(st.integers(0, 3))
        for step in range(count):
            boundary(steps, step)
            commit(steps, step)
            if draw(st.integers(0, 6)) == 0:  # an exception left the loop
                log.append(LoopEnd(steps, step + 1, True))
                boundary(steps, step + 1)
                log.append(Abort(steps, step, "ValueError"))
                log.losers.append((steps, step))
                broken = True
                break
        if broken:
            break
        log.append(LoopEnd(steps, count, False))
        boundary(steps, count)
        commit(epochs, epoch)
    while log.copies and draw(st.booleans()):
        log.append(CheckpointEnd(log.copies.pop(0), b"x", 1, 1, 0.0, 0.0))
    log.append(RunEnd("failed" if broken else "complete", 1.0, None))
    return log


runs = st.composite(run)


def tree_of(log: Log, length: int) -> RunTree:
    return analyse(Log(log.records[:length]), [SessionInfo(1, BEGIN, length, length * 10, {})])


def commits(tree: RunTree) -> set[tuple[Path, int]]:
    return {(loop.path(index), loop.commits[index]) for loop in tree.loops() for index in range(loop.count)}


@settings(max_examples=150, deadline=None)
@given(runs())
def test_whatever_instant_a_log_ends_at_only_complete_images_of_winners_are_kept(log: Log) -> None:
    for length in range(1, len(log.records) + 1):
        records = log.records[:length]
        complete = {record.begin for record in records if isinstance(record, CheckpointEnd)}
        aborted = {(r.loop, r.index) for r in records if isinstance(r, Abort)}
        for loop in tree_of(log, length).loops():
            for index, image in loop.images.items():
                assert image.lsn in complete
                assert 0 <= index <= loop.count
                assert (loop.lsn, index - 1) not in aborted


@settings(max_examples=150, deadline=None)
@given(runs())
def test_a_longer_log_takes_nothing_back_but_the_loser(log: Log) -> None:
    before: set[tuple[Path, int]] = set()
    for length in range(1, len(log.records) + 1):
        now, again = commits(tree_of(log, length)), commits(tree_of(log, length))
        assert now == again
        gone = before - now
        last = log.records[length - 1]
        if isinstance(last, Abort):
            assert {path[-1][1] for path, _ in gone} <= {last.index}
            assert len(gone) <= 1
        else:
            assert not gone
        before = now


def kept(loop: Loop) -> set[int]:
    return set(loop.images)


def test_pages_that_arrive_after_the_abort_make_no_image() -> None:
    log = Log()
    log.append(Statement(1, "loop", "/s.py", "<module>", 1, b"", (), ("step",)))
    loop = log.append(LoopBegin((), "step", 0, 1, "for", -1, 0, (("/s.py", "<module>", 1),), 0.0, {}))
    log.append(Commit(loop, 0, 0, (), 1.0, b"", b"", b"", False))
    good = log.append(CheckpointBegin(loop, 1))
    log.append(Commit(loop, 1, 0, (), 1.0, b"", b"", b"", False))
    bad = log.append(CheckpointBegin(loop, 2))
    log.append(Abort(loop, 1, "ValueError"))
    for begin in (good, bad):
        log.append(CheckpointEnd(begin, b"t", 1, 1, 0.0, 0.0))
    (found,) = tree_of(log, len(log.records)).loops()
    assert kept(found) == {1}
