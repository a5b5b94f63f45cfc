"""What is wrapped around a loop: taken along when a replay jumps, or no image is taken inside."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import florlog
from florlog.state.wrappers import advance, bare, counters, obstacle

from ..end_to_end.harness import Nursery, logged

pytestmark = pytest.mark.drawn_in_file(3)


def items() -> Iterator[str]:
    yield from "abcdefgh"


def passing(inner: Any) -> Iterator[Any]:
    yield from inner


@pytest.mark.parametrize(
    ("wrap", "what"),
    [
        (lambda inner: zip(range(9), inner, strict=False), "zip"),
        (lambda inner: zip(inner, items(), strict=False), "zip"),
        (lambda inner: enumerate(zip(range(9), inner, strict=False)), "zip"),
        (lambda inner: map(max, "abc", inner), "map"),
        (lambda inner: itertools.islice(inner, 5), "islice"),
        (lambda inner: passing(inner), "generator passing"),
    ],
)
def test_what_cannot_be_taken_along_is_named(wrap: Callable[[Any], Any], what: str) -> None:
    inner = items()
    outer = wrap(inner)
    next(outer)
    assert obstacle(inner).startswith(what)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda inner: zip(inner, range(9), strict=False),
        lambda inner: zip(inner, [10, 20, 30, 40, 50, 60, 70, 80], itertools.count(5), strict=False),
        lambda inner: enumerate(zip(inner, "hijklmnop", strict=False), 3),
        lambda inner: zip(enumerate(inner), range(9), strict=False),
        lambda inner: map(lambda a, b: a + b, inner, "hijklmnop"),
        lambda inner: map(str.upper, inner),
    ],
)
def test_what_counts_for_itself_is_taken_along(wrap: Callable[[Any], Any]) -> None:
    expected = list(wrap(items()))
    jumped: list[int] = []

    def jumping() -> Iterator[str]:
        yield "a"
        assert obstacle(found[0]) == ""
        for counter in counters(found[0]):
            advance(counter, 3)
        jumped.append(4)
        yield from "efgh"

    found = [jumping()]
    outer = wrap(found[0])
    assert [next(outer), *outer] == [expected[0], *expected[4:]]
    assert jumped == [4]


BARE = """
def train(run):
    for epoch in run.loop("epoch", range(3)):
        for step, x in enumerate(run.loop("step", x)):
            pass
    for a in run.loop("a", run.loop("b", x)):
        pass
    for a in (i for i in loop("c", x)):
        pass
    loop("d", x)
    for item in florlog.loop(
        "e", zip(x, x)
    ): pass
    for a in f.loop("f", x): list(enumerate(run.loop("g", x)))
"""


def test_a_loop_is_bare_only_where_a_for_takes_it_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "train.py"
    file.write_text(BARE)
    code = compile(BARE, str(file), "exec")
    lines = BARE.splitlines()
    assert [lines[line - 1].strip() for line in range(1, 20) if bare((code, line))] == [
        'for epoch in run.loop("epoch", range(3)):',
        "for item in florlog.loop(",
    ]


SCRIPT = """
import os, pathlib, signal, sys, time
import torch
import florlog

mark, at = pathlib.Path(sys.argv[1]), int(sys.argv[2])
torch.manual_seed(0)
weight = torch.zeros(3)
with florlog.run("zipped", overhead=float("inf")) as run:
    run.track(weight=weight)
    for epoch in run.loop("epoch", range(2)):
        for step, beside in zip(run.loop("step", range(6)), range(100, 200)):
            weight += torch.rand(3) * beside
            time.sleep(0.05)  # dearer than a restore
            run.log(beside=beside, sum=weight.sum())
            if epoch == 1 and step == at and not mark.exists():
                mark.touch()
                os.kill(os.getpid(), signal.SIGKILL)
        for beside, step in zip(range(100, 200), run.loop("other", range(6))):
            weight += torch.rand(3) * beside
            run.log(other=beside)
"""


@pytest.mark.crash
def test_a_loop_in_a_zip_is_killed_and_resumed(nursery: Nursery, tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(SCRIPT)
    nursery.run(tmp_path / "whole", script, tmp_path / "none", "9")
    expected = logged(tmp_path / "whole")
    command = [script, tmp_path / "mark", "4"]
    killed, _ = nursery.run(tmp_path / "store", *command)
    assert killed
    nursery.run(tmp_path / "store", "florlog", "resume", *command)
    assert logged(tmp_path / "store") == expected


def test_nothing_is_searched_around_a_loop_that_was_left(tmp_path: Path) -> None:
    with florlog.run("left", store=tmp_path / "store", overhead=float("inf")) as run:
        for _ in run.loop("step", range(3)):
            break
        assert (
            run._states._obstacles == {}
        )  # the search goes through all objects, and would find those of None
    with florlog.open(tmp_path / "store") as log:
        (loop,) = log.run().tree().loops()
        assert sorted(loop.images) == [0, 1]
