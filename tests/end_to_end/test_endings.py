"""However a run ends, by an exception or a signal at any record, a resume makes it the uninterrupted run."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

import florlog

from .endings import Endings, Round, drawn
from .harness import Nursery, flor

pytestmark = pytest.mark.drawn_in_file(3)

ROUNDS = 4


@pytest.fixture(scope="module")
def endings(nursery: Nursery, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endings]:
    return Endings(nursery, tmp_path_factory.mktemp("endings"))


@pytest.mark.crash
@pytest.mark.parametrize(
    "this",
    [
        Round("finally", ("30:later2,31:9",)),  # killed while the exception unwinds
        Round("plain", ("38:15",)),  # in the generator that a break closes
        Round("caught", ("84:2,87:15", "78:later15")),  # between the records of two loops that it leaves
        Round(
            "flag", ("6:2", "45:15", "4:9,8:later2")
        ),  # a resume is killed before it comes to the inner loop
        Round("caught", ("75:2,75:later2", "54:later2", "40:9")),  # between two iterations that have loops
        Round("caught", ("44:2",)),
        Round("caught", ("30:later2",)),
        Round("flag", ("30:later15",)),
        Round(
            "flag", ("59:15,62:9",)
        ),  # between the commit and the end of the outermost loop that a flag left
        Round("flag", ("69:15", "77:9,81:15", "46:2")),  # killed behind the loop that went on
        Round(
            "flag", ("9:15", "3:9,6:later2", "6:later9")
        ),  # killed before a resume of a complete run did anything
    ],
    ids=str,
)
def test_a_run_that_signals_end_is_the_uninterrupted_run_after_a_resume(
    this: Round, endings: Endings, tmp_path: Path
) -> None:
    assert not endings.problem(this, tmp_path / "store")


@pytest.mark.crash
def test_random_rounds_of_signals(endings: Endings, tmp_path: Path) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    for number in range(ROUNDS):
        this = drawn(chance)
        assert not endings.problem(this, tmp_path / f"{number}"), this


def test_a_complete_run_says_what_a_resume_would_go_on_with(
    nursery: Nursery, endings: Endings, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    nursery.run(store, endings.script, "flag", "30:later15")
    done = flor(store, "resume", endings.script, check=False)
    assert done.returncode != 0
    assert "a break or return left loop 'epoch' at index" in done.stderr
    assert "--extend" in done.stderr
    with florlog.open(store) as log:
        assert log.run().tree().status == "complete"
