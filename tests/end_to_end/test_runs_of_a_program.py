"""A script that opens several runs: each is resumed, asked and audited at its own place.

`programs_of_runs` draws the scripts: 2 to 4 runs, in a loop, in a function or with the model carried over, with models of equal or
different shapes, with many images, few or none, with parameters or without.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from pathlib import Path

import pytest

import florlog
from florlog.following.trust import DIVERGED, PROVEN
from florlog.reading.columns import RECORDED

from .harness import flor, shared_nursery
from .programs_of_runs import ProgramOfRuns, drawn

pytestmark = pytest.mark.drawn_in_file(14)

SEEDS = range(40)


@dataclass
class Place:
    """A directory in which a program is executed, with its store."""

    directory: Path

    def __post_init__(self) -> None:
        self.directory.mkdir()
        self.store = self.directory / "store"
        self.script = self.directory / "script.py"

    def execute(self, text: str = "", *, command: bool = False, code: int = 0) -> str:
        """The program's last line; ``command``: its newest run is resumed."""
        if text:
            self.script.write_text(text)
        argv = ("florlog", "resume", self.script) if command else (self.script,)
        shared_nursery().run(self.store, *argv, code=code)
        said = shared_nursery().output.read_text()
        return next((line for line in said.splitlines() if line.startswith("RESULTS")), said)

    def executed(self) -> list[int]:
        """The run of each innermost iteration that was executed, since this was asked last."""
        file = self.directory / "executed"
        found = [int(line) for line in file.read_text().split()] if file.exists() else []
        file.unlink(missing_ok=True)
        return found

    def runs(self) -> list[str]:
        """Ids, oldest first; all are complete."""
        listed = json.loads(flor(self.store, "runs", "--format", "json").stdout)
        assert {run["status"] for run in listed} == {"complete"}
        return [run["run"] for run in listed]

    def logged(self) -> list[object]:
        """What each run recorded, in order."""
        with florlog.open(self.store) as log:
            return [
                [(value.name, value.path, value.value) for value in run.logged() if value.trust == RECORDED]
                for run in log.runs
            ]


def killed(place: Place, program: ProgramOfRuns, draw: random.Random) -> tuple[int, bool]:
    """Execute a program and kill it in a random iteration of a random run; the run's number, and if it has images."""
    number, at = draw.randrange(program.runs), draw.randrange(program.ticks)
    (place.directory / "kill").write_text(f"{number} {at}")
    place.execute(program.text)
    assert not (place.directory / "kill").exists()
    place.executed()
    with florlog.open(place.store) as log:
        return number, any(loop.images for loop in log.run().tree().loops())


@pytest.mark.parametrize("how", ["command", "auto"])
@pytest.mark.parametrize("seed", SEEDS)
def test_killed_in_any_run_the_program_goes_on_as_if_nothing_had_happened(
    seed: int, how: str, tmp_path: Path
) -> None:
    program = drawn(seed, resume="auto" if how == "auto" else "never")
    whole, place = Place(tmp_path / "whole"), Place(tmp_path / "killed")
    expected = whole.execute(program.text)
    number, images = killed(place, program, random.Random(f"killed {seed} {how}"))
    assert place.execute(command=how == "command") == expected, program.shape
    executed = place.executed()
    assert len(place.runs()) == program.runs
    assert place.logged() == whole.logged()
    if program.dense and images:
        assert min(executed) == number
    if number and not images:
        assert executed.count(0) == program.first


QUESTIONS = {
    "STEP": "run.log(asked=sum(p.grad.abs().sum() for p in model.parameters()).item())",
    "AFTER": "run.log(asked=model[0](X).sum().item())",
}


@pytest.mark.parametrize("what", QUESTIONS)
@pytest.mark.parametrize("seed", SEEDS)
def test_a_question_about_any_run_gets_the_value_of_a_full_rerun(
    seed: int, what: str, tmp_path: Path
) -> None:
    program = drawn(seed)
    draw = random.Random(f"asked {seed} {what}")
    place, full = Place(tmp_path / "place"), Place(tmp_path / "full")
    place.execute(program.text)
    asking = program.asking(what, QUESTIONS[what])
    full.execute(asking)
    number = draw.randrange(program.runs)
    place.script.write_text(asking)
    removed = number and draw.random() < 0.3
    if removed:
        flor(place.store, "rm", place_run(place, 0))
    run = place_run(place, number - bool(removed))
    done = flor(place.store, "replay", place.script, "--run", run, "--format", "json")
    answer = json.loads(done.stdout)
    expected = [
        (list(map(list, path)), value) for name, path, value in full.logged()[number] if name == "asked"
    ]
    assert [(list(map(list, v["path"].items())), v["value"]) for v in answer["values"]] == expected, (
        program.shape
    )
    labels = {value["trust"] for value in answer["values"]}
    assert DIVERGED not in labels
    if program.dense:
        assert labels == {PROVEN}, answer
    assert "passed over" not in done.stderr
    before = answer["plan"]["runs_before"]
    assert [entry["part"] for entry in before] == ["full"] * bool(removed) + ["end"] * (
        number - bool(removed)
    )
    if program.dense:
        assert all(entry["redone"] == 0 for entry in before if entry["part"] == "end")


def place_run(place: Place, number: int) -> str:
    """The id of a run."""
    return place.runs()[number]
