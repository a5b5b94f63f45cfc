"""Changed code is named with what it may invalidate, stops a replay, and forced gives no value that is PROVEN."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.end_to_end.harness import Nursery
from tests.end_to_end.programs import NESTED, PLACES, add, write
from tests.end_to_end.test_hindsight import ask

UNUSED = NESTED + "\n\ndef unused():\n    return 1\n"


@pytest.fixture(scope="module")
def recorded(nursery: Nursery, tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = tmp_path_factory.mktemp("force") / "store"
    nursery.run(store, write(store.parent / "train.py", UNUSED))
    return store


def changed(recorded: Path, old: str, new: str, place: str = "IN FUNCTION") -> Path:
    assert UNUSED.count(old) == 1
    return write(recorded.parent / "train.py", add(UNUSED, {place: PLACES[place]}).replace(old, new))


def output(nursery: Nursery) -> str:
    return (nursery.directory / "output.txt").read_text()


def test_every_change_is_named_with_its_line_and_its_reach_and_nothing_runs(
    recorded: Path, nursery: Nursery
) -> None:
    script = changed(recorded, "lr=1e-2", "lr=2e-2")
    text = script.read_text()
    text = text.replace("scores.argmax(1) == y", "scores.argmax(1) != y")
    script.write_text(text.replace("return 1", "return 2"))
    lines = script.read_text().splitlines()
    for command in ("replay", "explain"):
        nursery.run(recorded, "florlog", command, script, code=2)
        said = output(nursery)
        number = next(i for i, line in enumerate(lines, 1) if "lr=2e-2" in line)
        assert f"train.py, line {number}: `optimizer" in said
        assert "it runs before the loops" in said
        assert "it may run in val: values of these iterations, from epoch=0 on" in said
        assert "`return 2`; it runs in no recorded iteration" in said
        assert "--force" in said


def test_removed_code_is_placed_by_the_recorded_program(recorded: Path, nursery: Nursery) -> None:
    script = changed(recorded, "    optimizer.zero_grad()\n", "")
    nursery.run(recorded, "florlog", "explain", script, code=2)
    assert "`optimizer.zero_grad()` was removed; it may run in step" in output(nursery)


@pytest.mark.parametrize(
    ("old", "new", "labels"),
    [
        ("return 1", "return 2", {"CONSISTENT"}),  # runs nowhere: the values came out equal
        ("(scores.argmax(1) == y)", "(y == scores.argmax(1))", {"CONSISTENT"}),  # in other iterations only
        ("lr=1e-2", "lr=1e-3", {"UNVERIFIED"}),  # the images have the recorded rate, but nothing says so
        ("    optimizer.zero_grad()\n", "    optimizer.zero_grad(set_to_none=False)\n", {"UNVERIFIED"}),
        ("cross_entropy(model(x), y)", "cross_entropy(model(x) * 2, y)", {"DIVERGED"}),
    ],
)
def test_a_forced_replay_labels_what_changed_code_may_have_computed(
    old: str, new: str, labels: set[str], recorded: Path, nursery: Nursery
) -> None:
    script = changed(recorded, old, new)
    code = 1 if labels == {"DIVERGED"} else 0
    nursery.run(recorded, "florlog", "replay", script, "--force", "--format", "json", code=code)
    said = output(nursery)
    assert "florlog: changed: train.py, line " in said
    for label in ("PROVEN", "CONSISTENT", "UNVERIFIED", "DIVERGED"):
        assert (f'"trust": "{label}"' in said) == (label in labels)


def test_values_of_a_forced_replay_answer_no_later_question(recorded: Path, nursery: Nursery) -> None:
    script = changed(recorded, "return 1", "return 2", "IN VALIDATION")
    nursery.run(recorded, "florlog", "replay", script, "--force")
    answer = ask(nursery, recorded, changed(recorded, "return 1", "return 1", "IN VALIDATION"))
    assert answer["plan"]["answered_from_log"] == 0
    assert {value["trust"] for value in answer["values"]} == {"PROVEN"}
