"""Values of statements added afterwards equal those of a full run of the instrumented script."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import florlog

from .harness import Nursery, flor
from .programs import NESTED, PLACES, add, write


def ask(nursery: Nursery, store: Path, script: Path, *options: str) -> dict[str, Any]:
    """The JSON answer of a replay."""
    nursery.run(store, "florlog", "replay", script, "--format", "json", *options)
    answer: dict[str, Any] = json.loads(
        [line for line in (nursery.directory / "output.txt").read_text().splitlines() if line.startswith("{")][-1]
    )
    return answer


def answers(answer: dict[str, Any]) -> dict[tuple[str, tuple[Any, ...]], list[Any]]:
    found: dict[tuple[str, tuple[Any, ...]], list[Any]] = {}
    for value in answer["values"]:
        found.setdefault((value["name"], tuple(value["path"].items())), []).append(value["value"])
    return found


def instrumented(nursery: Nursery, store: Path, script: Path) -> dict[tuple[str, tuple[Any, ...]], list[Any]]:
    """What a full run of the script logs."""
    nursery.run(store, script)
    found: dict[tuple[str, tuple[Any, ...]], list[Any]] = {}
    with florlog.open(store) as log:
        for value in log.run().logged():
            held = value.value.tolist() if isinstance(value.value, np.ndarray) else value.value
            found.setdefault((value.name, value.path), []).append(held)
    return found


@pytest.fixture
def recorded(nursery: Nursery, tmp_path: Path) -> Path:
    """The store of a recorded run of NESTED, whose script is train.py beside it."""
    store = tmp_path / "store"
    nursery.run(store, write(tmp_path / "train.py", NESTED))
    return store


@pytest.mark.wheel
@pytest.mark.parametrize("place", PLACES)
def test_a_statement_in_any_place_has_its_value_of_a_full_run(
    place: str, recorded: Path, nursery: Nursery, tmp_path: Path
) -> None:
    script = write(tmp_path / "train.py", add(NESTED, {place: PLACES[place]}))
    answer = ask(nursery, recorded, script)
    truth = instrumented(nursery, tmp_path / "truth", script)
    names = {name for name, _ in answers(answer)}
    assert names
    assert answers(answer) == {key: values for key, values in truth.items() if key[0] in names}
    assert {value["trust"] for value in answer["values"]} == {"PROVEN"}
    with florlog.open(recorded) as log:
        found = {value.name for value in log.run().logged()}
        assert names <= found


def test_statements_in_every_place_at_once_have_their_values(
    recorded: Path, nursery: Nursery, tmp_path: Path
) -> None:
    script = write(tmp_path / "train.py", add(NESTED, PLACES))
    answer = ask(nursery, recorded, script)
    truth = instrumented(nursery, tmp_path / "truth", script)
    logged_before = {"loss", "right", "best", "total"}
    assert answers(answer) == {key: values for key, values in truth.items() if key[0] not in logged_before}


def test_reading_state_between_inner_loops_runs_no_inner_iteration(
    recorded: Path, nursery: Nursery, tmp_path: Path
) -> None:
    statement = {"AFTER INNER": "run.log(after=model.second.weight.norm())"}
    script = write(tmp_path / "train.py", add(NESTED, statement))
    answer = ask(nursery, recorded, script)
    redo = [item for segment in answer["plan"]["segments"] for item in segment["redo"]]
    assert not any("step" in item["from"] for item in redo)
    assert answer["plan"]["answered_from_state"] == 4
    assert len(answer["values"]) == 4


def test_a_question_about_one_epoch_re_executes_that_epoch_only(
    recorded: Path, nursery: Nursery, tmp_path: Path
) -> None:
    script = write(tmp_path / "train.py", add(NESTED, {"INSIDE INNER": PLACES["INSIDE INNER"]}))
    plan = json.loads(
        flor(recorded, "explain", script, "--where", "epoch == 2", "--format", "json").stdout
    )
    redo = [item for segment in plan["segments"] for item in segment["redo"]]
    assert {item["from"]["epoch"] for item in redo} == {item["to"]["epoch"] for item in redo} == {2}
    answer = ask(nursery, recorded, script, "--where", "epoch == 2")
    assert answer["plan"]["iterations_redone"] == plan["iterations_redone"] == 8
    assert {value["path"]["epoch"] for value in answer["values"]} == {2}
    truth = instrumented(nursery, tmp_path / "truth", script)
    assert answers(answer) == {
        (name, path): values
        for (name, path), values in truth.items()
        if name in ("running", "w") and dict(path)["epoch"] == 2
    }
