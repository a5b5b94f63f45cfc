"""A script that opens several runs: each is resumed, asked and audited at its own place.

`programs_of_runs` draws the scripts: 2 to 4 runs, in a loop, in a function, one after the other or with the model
carried over, with models of equal or different shapes, with many images, few or none, with parameters or without.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
    "step": ("STEP", "run.log(asked=sum(p.grad.abs().sum() for p in model.parameters()).item())"),
    "after": ("AFTER", "run.log(asked=model[0](X).sum().item())"),
    "earlier": (
        "STEP",
        "run.log(asked=[p.sum().item() for m in MODELS.values() for p in m.parameters()] + [r[1] for r in RESULTS])",
    ),
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
    asking = program.asking(*QUESTIONS[what])
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


FOLDS = """
import os
import signal
import sys
import time

import torch
from torch import nn

import florlog

torch.manual_seed(5)
KEPT = []
X = torch.randn(40, 4)


class Fragile:
    def __init__(self, number):
        self.number = number

    def state_dict(self):
        return {"number": self.number}

    def load_state_dict(self, state):
        if os.path.exists(f"fragile{self.number}"):
            raise ValueError("fragile")


def tick(number, epoch):
    with open("executed", "a") as file:
        file.write(f"{number}\\n")
    if number == 2 and epoch == 2 and os.path.exists("kill"):
        os.remove("kill")
        time.sleep(0.3)
        os.kill(os.getpid(), signal.SIGKILL)


def main():
    for number in range(3):
        model = nn.Linear(4, 1)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        with florlog.run("fold", overhead=float("inf"), resume=RESUME) as run:
            run.track(model=model, optimizer=optimizer, fragile=Fragile(number))
            for epoch in run.loop("epoch", range(4)):
                optimizer.zero_grad()
                loss = (model(X[torch.randperm(40)[:8]]) + epoch).pow(2).mean()
                loss.backward()
                optimizer.step()
                # STEP
                run.log(loss=loss.item())
                torch.save(model.state_dict(), "best.pt")
                tick(number, epoch)
        KEPT.append(torch.load("best.pt")["weight"].sum().item())
    print("RESULTS", KEPT, torch.rand(1).item())


main()
"""
STEP = "run.log(norm=model.weight.grad.norm().item(), sum=sum(KEPT))"


def folds(tmp_path: Path, *, kill: bool, resume: str = "'never'") -> tuple[Place, str]:
    """A place in which the script was executed, and perhaps killed; and its last line when nothing kills it."""
    text = FOLDS.replace("RESUME", resume)
    place, whole = Place(tmp_path / "place"), Place(tmp_path / "whole")
    expected = whole.execute(text)
    if kill:
        (place.directory / "kill").touch()
    place.execute(text)
    place.executed()
    return place, expected


def truth(tmp_path: Path) -> list[list[float]]:
    """What the script logs with `STEP`, the norms and the sums of the third run."""
    full = Place(tmp_path / "full")
    full.execute(FOLDS.replace("RESUME", "'never'").replace("# STEP", STEP))
    third = full.logged()[2]
    return [[value for name, _, value in third if name == wanted] for wanted in ("norm", "sum")]


def asked(place: Place, run: str, *options: str) -> tuple[dict[str, Any], str]:
    """What a replay with `STEP` answers and says."""
    place.script.write_text(FOLDS.replace("RESUME", "'never'").replace("# STEP", STEP))
    done = flor(place.store, "replay", place.script, "--run", run, "--format", "json", *options)
    return json.loads(done.stdout), done.stderr


def named(answer: dict[str, Any], name: str) -> list[float]:
    return [value["value"] for value in answer["values"] if value["name"] == name]


@pytest.mark.parametrize("workers", ["1", "2"])
def test_what_a_later_run_wrote_over_does_not_come_into_a_value(tmp_path: Path, workers: str) -> None:
    """Each fold reads a file after its loop, which the last one has written since."""
    place, _ = folds(tmp_path, kill=False)
    answer, _ = asked(place, place.runs()[2], "--workers", workers)
    norms, sums = truth(tmp_path)
    assert named(answer, "norm") == norms
    assert named(answer, "sum") == sums
    assert {value["trust"] for value in answer["values"]} == {PROVEN}


@pytest.mark.parametrize("how", ["command", "auto", "id"])
def test_what_a_later_run_wrote_over_does_not_come_into_a_resumed_program(tmp_path: Path, how: str) -> None:
    argument = {"command": "'never'", "auto": "'auto'", "id": "(sys.argv[1:] or ['never'])[0]"}[how]
    place, expected = folds(tmp_path, kill=True, resume=argument)
    if how == "id":
        with florlog.open(place.store) as log:
            run = log.run().id
        shared_nursery().run(place.store, place.script, run)
        found = shared_nursery().output.read_text()
        assert expected in found
    else:
        assert place.execute(command=how == "command") == expected
    assert 0 not in place.executed()
    assert len(place.runs()) == 3


@pytest.mark.parametrize("how", ["command", "auto"])
def test_an_earlier_run_whose_image_fails_is_executed_whole_by_a_resume(tmp_path: Path, how: str) -> None:
    place, expected = folds(tmp_path, kill=True, resume=repr("auto" if how == "auto" else "never"))
    (place.directory / "fragile1").touch()
    assert place.execute(command=how == "command") == expected
    assert shared_nursery().output.read_text().count("executed again and not recorded") == 2
    assert place.executed().count(1) == 4
    assert len(place.runs()) == 3


def test_an_earlier_run_whose_image_fails_is_executed_whole_by_a_replay(tmp_path: Path) -> None:
    place, _ = folds(tmp_path, kill=False)
    (place.directory / "fragile0").touch()
    answer, said = asked(place, place.runs()[2])
    norms, sums = truth(tmp_path)
    assert named(answer, "norm") == norms
    assert named(answer, "sum") == sums
    assert "passed over, are executed" in said


def test_another_name_at_a_place_and_a_run_that_is_not_reached_are_said(tmp_path: Path) -> None:
    place, _ = folds(tmp_path, kill=True)
    text = place.script.read_text()
    place.script.write_text(text.replace('florlog.run("fold"', 'florlog.run(f"fold{number}"'))
    done = flor(place.store, "resume", place.script, check=False)
    assert done.returncode != 0
    assert "run number 1 of the program is called 'fold0', and was 'fold'" in done.stderr
    place.script.write_text(text.replace("range(3)", "range(2)"))
    done = flor(place.store, "resume", place.script, check=False)
    assert done.returncode != 0
    assert "did not open its run number 3, 'fold'" in done.stderr


def test_the_third_run_is_audited_and_gives_its_states_at_its_own_place(tmp_path: Path) -> None:
    place, _ = folds(tmp_path, kill=False)
    run = place.runs()[2]
    assert "the whole state was equal" in (flor(place.store, "audit", run).stderr)
    with florlog.open(place.store) as log:
        recorded = log.run(run).state_at(epoch=3)
        for loop in (tree := log.run(run).tree()).loops():
            assert len(loop.images) == 5
        assert [name for name, _ in tree.begin.earlier] == ["fold", "fold"]
    assert recorded["model"]["weight"].shape == (1, 4)


QUEUE = """
import os
import sys

import torch

import florlog

for name in sys.argv[1:]:
    weight = torch.zeros(2)
    with florlog.run(name, overhead=float("inf"), resume="auto") as run:
        run.track(weight=weight)
        for step in run.loop("step", range(6)):
            weight += torch.ones(2)
            run.log(weight=weight.sum().item())
            if name == "b" and step == 4 and os.path.exists("kill"):
                os.remove("kill")
                __import__("time").sleep(0.3)
                os._exit(0)
print("RESULTS", run.resumed)
"""


def test_auto_goes_on_with_a_run_that_its_name_alone_tells_wherever_it_stands(tmp_path: Path) -> None:
    place = Place(tmp_path / "place")
    place.script.write_text(QUEUE)
    (place.directory / "kill").touch()
    for names, resumed in (("ab", False), ("b", True), ("cb", False)):
        shared_nursery().run(place.store, place.script, *names)
        said = shared_nursery().output.read_text()
        assert f"RESULTS {resumed}" in said or names == "ab"
    assert len(place.runs()) == 4
