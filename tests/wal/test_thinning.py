"""The rule of thinning, against what it promises and against a slow model of it."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path

from florlog_wal import (
    CheckpointBegin,
    CheckpointEnd,
    LoopBegin,
    LoopEnd,
    PageEntry,
    RunLog,
    Thinner,
    encode_table,
    gc,
    verify,
)
from florlog_wal.stored_images import StoredImages
from florlog_wal.thinning import LEVELS, Mark, kept
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.wal.samples import checkpoint_end, commit, run_begin

PARTS = {level: 2048 >> (level - 1) for level in range(1, 13)}
"""m of the levels that have one."""


@st.composite
def timelines(draw: st.DrawFn) -> list[Mark]:
    """Images of a run, at even or uneven distances."""
    step = draw(st.sampled_from([0.001, 0.05, 1.0, 7.3, 600.0]))
    gaps = draw(
        st.lists(st.just(1.0) | st.floats(0.1, 10.0), min_size=1, max_size=120)
        | st.integers(1, 400).map(lambda count: [1.0] * count)
    )
    seconds, marks = 0.0, []
    for gap in gaps:
        seconds += gap * step
        rank = draw(st.sampled_from([2, 2, 2, 2, 1, 0])) if len(gaps) <= 120 else 1
        stays = len(gaps) <= 120 and draw(st.integers(0, 30)) == 0
        marks.append(Mark(seconds, rank, stays))
    return marks


def model_slot(marks: list[Mark], at: int, parts: int) -> tuple[float, float]:
    """Start and end of an image's slot, found by trying every length."""
    moment, end = marks[at].seconds, marks[-1].seconds
    best = (moment, moment)
    for exponent in range(-20, 64):
        length = 2.0**exponent
        start = math.floor(moment / length) * length
        if end - (start + length) >= parts * length:
            best = (start, start + length)
    return best


def model(marks: list[Mark], parts: int) -> set[int]:
    """One image of each slot by brute force, and those that stay."""
    left = {0, len(marks) - 1} | {at for at, mark in enumerate(marks) if mark.stays}
    slots = [model_slot(marks, at, parts) for at in range(len(marks))]
    for at, slot in enumerate(slots):
        same = [it for it, other in enumerate(slots) if other == slot] if slot[0] < slot[1] else [at]
        left.add(min(same, key=lambda it: (marks[it].rank, it)))
    return left


@given(timelines(), st.sampled_from(sorted(PARTS)))
@settings(deadline=None, max_examples=150)
def test_the_rule_is_that_of_the_model(marks: list[Mark], level: int) -> None:
    assert set(kept(marks, level)) == model(marks, PARTS[level])


@given(timelines())
@settings(deadline=None, max_examples=150)
def test_levels_are_nested_and_keep_what_must_stay(marks: list[Mark]) -> None:
    before = set(range(len(marks)))
    for level in range(LEVELS):
        left = set(kept(marks, level))
        assert left <= before
        assert {at for at, mark in enumerate(marks) if mark.stays} | {len(marks) - 1} <= left
        assert level == LEVELS - 1 or 0 in left
        before = left
    assert before == {at for at, mark in enumerate(marks) if mark.stays} | {len(marks) - 1}


@given(timelines(), st.sampled_from(sorted(PARTS)))
@settings(deadline=None, max_examples=150)
def test_what_is_redone_is_bounded_by_the_age(marks: list[Mark], level: int) -> None:
    """The bound of the module's docstring, at the moments just before each image, where it is tightest."""
    parts, end = PARTS[level], marks[-1].seconds
    left = sorted(marks[at].seconds for at in kept(marks, level))
    widest = max((b.seconds - a.seconds for a, b in pairwise(marks)), default=0.0)
    for mark in marks[1:]:
        age = end - mark.seconds
        before = max(moment for moment in left if moment < mark.seconds)
        assert mark.seconds - before <= 1e-6 + 2 * widest + (3 * age + 4 * widest) / parts
    for mark in marks:
        age = end - mark.seconds
        assert min(abs(mark.seconds - moment) for moment in left) <= age / parts


@given(timelines(), st.sampled_from(sorted(PARTS)))
@settings(deadline=None, max_examples=150)
def test_so_many_are_kept_of_each_doubling_of_the_age(marks: list[Mark], level: int) -> None:
    marks = [mark._replace(stays=False) for mark in marks]
    ages = [marks[-1].seconds - marks[at].seconds for at in kept(marks, level)[1:]]
    for exponent in range(-12, 24):
        some = [age for age in ages if 2.0**exponent <= age < 2.0 ** (exponent + 1)]
        assert len(some) <= 2 * PARTS[level] + 2


@given(timelines(), st.sampled_from(sorted(PARTS)))
@settings(deadline=None, max_examples=150)
def test_an_outer_boundary_is_never_dropped_before_an_inner_one_of_its_slot(
    marks: list[Mark], level: int
) -> None:
    left = set(kept(marks, level))
    for at in set(range(len(marks))) - left:
        slot = model_slot(marks, at, PARTS[level])
        same = [it for it in left if model_slot(marks, it, PARTS[level]) == slot]
        assert any(marks[it].rank <= marks[at].rank for it in same)


@given(timelines(), st.sampled_from(sorted(PARTS)), st.lists(st.integers(1, 40), max_size=6))
@settings(deadline=None, max_examples=100)
def test_thinning_again_and_again_drops_what_thinning_once_would(
    marks: list[Mark], level: int, pauses: list[int]
) -> None:
    """No image drifts out of reach, however often a run is thinned while it is recorded."""
    marks = [mark._replace(stays=False) for mark in marks]
    held, at = list[Mark](), 0
    for pause in [*pauses, len(marks)]:
        held += marks[at : at + pause]
        at += pause
        held = [held[it] for it in kept(held, level)]
    once = [marks[it] for it in kept(marks, level)]
    assert [mark for mark in held if mark in once] == held
    assert set(once) == set(held)


def record(log: RunLog, epochs: int, steps: int) -> None:
    """Two loops, images after each step and at the ends of both."""
    session = log.append(run_begin())

    def image(loop: int, index: int) -> None:
        begin = log.append(CheckpointBegin(loop, index), session=session)
        pages = log.put_pages([f"{loop} {index}".encode() * 300]).digests
        table = log.put_pages([encode_table({"w": PageEntry("host", "", (), 1, tuple(pages))})]).digests[0]
        log.append(checkpoint_end(begin, table), session=session)

    def begin(path: tuple[tuple[str, int], ...], name: str, parent: int) -> int:
        return log.append(LoopBegin(path, name, parent, 0, "for", -1, 0, (), 0.0, {}), session=session)

    outer = begin((), "epoch", 0)
    for epoch in range(epochs):
        image(outer, epoch)
        inner = begin((("epoch", epoch),), "step", outer)
        for step in range(steps):
            log.append(commit(step, loop=inner), session=session)
            image(inner, step + 1)
        log.append(LoopEnd(inner, steps, False), session=session)
        log.append(commit(epoch, loop=outer), session=session)
    image(outer, epochs)
    log.append(LoopEnd(outer, epochs, False), session=session)


def test_the_boundaries_of_a_run_are_ranked_and_thinned_by_their_loops(tmp_path: Path) -> None:
    with RunLog.open(tmp_path / "run", mode="w") as log:
        record(log, 8, 10)
        held = StoredImages(log)
        assert [held.rank(image) for image in held.images[:12]] == [1, *[2] * 9, 1, 1]
        assert held.rank(held.images[-1]) == 0
        everything = Thinner(log).thin(math.inf)
        assert (everything.dropped, everything.images) == (0, 8 * 11 + 1)
        thinner = Thinner(log)
        thinned = thinner.thin(everything.bytes / 4)
        assert thinned.bytes <= everything.bytes / 4
        left = StoredImages(log).images
        assert len(left) == thinned.images == everything.images - thinned.dropped
        assert left[-1].lsn == held.images[-1].lsn
        early = [held.rank(image) for image in left if image.seconds < left[-1].seconds / 2]
        assert early
        assert max(early) == 1
        assert thinner.thin(math.inf) == type(thinned)(0, thinned.images, thinned.bytes)
        record(log, 1, 3)  # it reads what was appended since
        assert thinner.thin(math.inf).images == thinned.images + 5
    assert gc(tmp_path / "run").pages == 0  # it has left nothing that nobody names
    assert verify(tmp_path / "run").ok


def test_the_image_that_a_session_continues_from_stays_also_where_nothing_fits(tmp_path: Path) -> None:
    with RunLog.open(tmp_path / "run", mode="w") as log:
        record(log, 3, 3)
        begin = [entry.lsn for entry in log.scan(types=[CheckpointBegin])][5]
        log.append(run_begin(kind="resume", resumed_from=begin))
        assert Thinner(log).thin(0).images == 2
        ends = [entry.record for entry in log.scan(types=[CheckpointEnd])]
        assert next(end.begin for end in ends if isinstance(end, CheckpointEnd)) == begin
