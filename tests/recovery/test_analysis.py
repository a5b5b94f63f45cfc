"""Analysis of logs that end at any record: which images and commits count."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import pytest
from florlog_recovery import Loop, RunTree, analyse, resume_atoms
from florlog_wal import (
    Abort,
    Begin,
    CheckpointBegin,
    CheckpointEnd,
    Commit,
    Entry,
    LoopBegin,
    LoopEnd,
    Note,
    Path,
    Record,
    RunEnd,
    SessionInfo,
    Statement,
    Values,
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
        count, cut = draw(st.integers(0, 3)), False
        for step in range(count):
            boundary(steps, step)
            commit(steps, step)
            how = draw(st.integers(0, 9))
            if how == 0:  # an exception left the loop, as older versions wrote it
                log.append(LoopEnd(steps, step + 1, True))
                boundary(steps, step + 1)
                log.append(Abort(steps, step, "ValueError"))
                log.losers.append((steps, step))
                broken = True
                break
            if how == 1:  # an exception left the next iteration, and arrived at the run
                log.append(Abort(steps, step + 1, "KeyboardInterrupt"))
                broken = True
                break
            if how == 2:  # the script caught it
                log.append(Values(steps, step + 1, 0, ((1, "a", 1),)))
                log.append(Abort(steps, step + 1, "KeyboardInterrupt"))
                count, cut = step + 1, True
                break
        if broken:
            break
        log.append(LoopEnd(steps, count, cut))
        if not cut:
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


def two_loops() -> tuple[Log, int, int]:
    """An epoch with two committed steps; the loops' LSNs."""
    log, site = Log(), (("/s.py", "<module>", 1),)
    for number, name in enumerate(("epoch", "step"), 1):
        log.append(Statement(number, "loop", "/s.py", "<module>", 1, b"", (), (name,)))
    epochs = log.append(LoopBegin((), "epoch", 0, 1, "for", 4, 0, site, 0.0, {}))
    log.append(Begin(epochs, 0))
    steps = log.append(LoopBegin((("epoch", 0),), "step", epochs, 2, "for", 9, 0, site, 0.0, {}))
    for step in range(2):
        log.append(Commit(steps, step, 0, (), 1.0, b"", b"", b"", False))
    return log, epochs, steps


def test_a_log_that_ends_between_the_records_of_a_break_does_not_show_that_execution_went_on() -> None:
    log, epochs, steps = two_loops()
    for record, unproven, count in (
        (Commit(steps, 2, 0, (), 1.0, b"", b"", b"", True), ["step"], 2),
        (LoopEnd(steps, 3, True), ["step"], 2),
        (Commit(epochs, 0, 1, (), 1.0, b"", b"", b"", True), ["step", "epoch"], 2),
        (LoopEnd(epochs, 1, True), ["step", "epoch"], 2),
    ):
        log.append(record)
        tree = tree_of(log, len(log.records))
        assert [loop.name for loop in tree.unproven] == unproven
        tree.reopen_unproven()
        _, node, place = resume_atoms(tree)
        assert (node.path, place) == ((("epoch", 0),), node.loops[0])
        assert node.loops[0].count == count


def test_a_log_that_ends_with_loops_that_were_left_does_not_show_that_execution_went_on() -> None:
    log, epochs, steps = two_loops()
    log.append(Commit(steps, 2, 0, (), 1.0, b"", b"", b"", True))
    log.append(LoopEnd(steps, 3, True))
    log.append(Commit(epochs, 0, 1, (), 1.0, b"", b"", b"", True))
    log.append(LoopEnd(epochs, 1, True))
    tree = tree_of(log, len(log.records))
    assert [loop.name for loop in tree.unproven] == ["step", "epoch"]
    tree.reopen_unproven()
    _, node, place = resume_atoms(tree)
    assert (node.path, place) == ((("epoch", 0),), node.loops[0])
    assert node.loops[0].count == 2
    log.append(Values(0, 0, 1, ()))
    assert not tree_of(log, len(log.records)).unproven


def test_an_iteration_that_was_cut_off_is_not_committed_and_its_boundary_is_no_longer_the_one_before_it() -> (
    None
):
    log, _, steps = two_loops()
    image = log.append(CheckpointBegin(steps, 2))
    log.append(CheckpointEnd(image, b"t", 1, 1, 0.0, 0.0))
    late = log.append(CheckpointBegin(steps, 2))
    log.append(Abort(steps, 2, "KeyboardInterrupt"))
    assert kept(list(tree_of(log, len(log.records)).loops())[1]) == {2}  # still open: the image is before it
    log.append(LoopEnd(steps, 2, True))
    log.append(CheckpointEnd(late, b"t", 1, 1, 0.0, 0.0))
    _, loop = tree_of(log, len(log.records)).loops()
    assert (loop.cut, loop.count, kept(loop)) == (True, 2, set())


def test_what_a_resume_goes_back_behind_is_superseded() -> None:
    log, epochs, steps = two_loops()
    log.append(Commit(steps, 2, 0, (), 1.0, b"", b"", b"", True))
    log.append(LoopEnd(steps, 3, True))
    log.append(Commit(epochs, 0, 1, (), 1.0, b"", b"", b"", True))
    log.append(LoopEnd(epochs, 1, True))
    log.append(RunEnd("complete", 1.0, None))
    site = (("/s.py", "<module>", 1),)
    log.append(LoopBegin((), "epoch", 0, 1, "for", 4, 0, site, 0.0, {}))
    epoch, step = tree_of(log, len(log.records)).loops()  # a resume that is killed here
    assert (epoch.count, epoch.ended, step.count, step.ended) == (0, False, 2, False)


@pytest.mark.parametrize(
    "record",
    [
        Abort(0, 0, "?"), Abort(99, 0, "?"), Begin(99, 0), Values(99, 0, 0, ()), CheckpointBegin(0, 0),
        Commit(0, 0, 0, (), 1.0, b"", b"", b"", False), Commit(6, 7, 0, (), 1.0, b"", b"", b"", False),
        LoopEnd(77, 1, True), LoopEnd(6, 5, False), Note("source", "", {}),
        Note("audited", "", {}), Note("audited", "", {"outcome": "fine", "reached": []}),
        Note("audited", "", {"outcome": "equal", "reached": [("epoch", "1")]}),
        LoopBegin((), "x", 4, 1, "for", 1, 0, (), 0.0, {}), LoopBegin((), "x", 0, 9, "for", 1, 0, (), 0.0, {}),
        LoopBegin((("a", 0),), "x", 0, 1, "for", 1, 0, (), 0.0, {}),
        LoopBegin((("a", 0),), "x", 88, 1, "for", 1, 0, (), 0.0, {}),
    ],
    ids=repr,
)  # fmt: skip
def test_a_record_that_fits_nothing_is_reported_and_the_rest_counts(record: Record) -> None:
    log, _, steps = two_loops()
    lsn = log.append(record)
    log.append(Commit(steps, 2, 0, (), 1.0, b"", b"", b"", False))
    tree = tree_of(log, len(log.records))
    assert [at for at, _ in tree.problems] == [lsn]
    assert [loop.count for loop in tree.loops()] == [0, 3]


def test_a_run_says_how_far_it_was_audited() -> None:
    log, _, _ = two_loops()
    log.append(Note("audited", "to epoch=1", {"outcome": "equal", "reached": [["epoch", 1]]}))
    (audit,) = tree_of(log, len(log.records)).audits
    assert (audit.reached, audit.outcome, audit.text) == ((("epoch", 1),), "equal", "to epoch=1")
