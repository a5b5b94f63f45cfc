"""Helpers that make a model, an optimizer or both in each iteration of a loop outside, recorded hands-free.

What they made is tracked while they run, and afterwards too.  A process that restores an image has not run them.
"""

from __future__ import annotations

import itertools
import json
import textwrap
from pathlib import Path

import pytest
from florlog_wal import encode_value

from .harness import Nursery, logged

pytestmark = pytest.mark.drawn_in_file(6)

MADE = {
    "both": "model = copy.deepcopy(start)\noptimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.5)",
    "an optimizer": "model = start\noptimizer = torch.optim.Adam(model.parameters(), lr=0.01)",
    "a model": "model = copy.deepcopy(start)\noptimizer = Descent(model)",
}
GIVEN = {
    "the model": ("model", "found[-1].state_dict()"),
    "its state_dict": ("model.state_dict()", "found[-1]"),
    "a metric": ("float(loss)", "{key: part * 0.9 for key, part in base.state_dict().items()}"),
}
HELPERS = {
    "a function": ("def train(start, client):\n    BODY", "train(base, client)"),
    "a method": (
        "class Client:\n    def train(self, start, client):\n        BODY",
        "Client().train(base, client)",
    ),
    "a nested function": (
        "def trainer(client):\n    def train(start):\n        BODY\n    return train",
        "trainer(client)(base)",
    ),
}
KEPT = {
    "averaged": "weights = average([WEIGHTS, base.state_dict()])\nbase.load_state_dict(weights)",
    "shared": "weights = WEIGHTS\nkept.append(found)\nbase.load_state_dict(average([weights, weights]))",
}
BODY = """\
MADE
for step in range(3):
    batch = data[torch.randperm(24)[:8]]
    loss = (model(batch) - batch.sum(1, keepdim=True)).square().mean()
    model.zero_grad()
    loss.backward()
    # ASKED
    optimizer.step()
    print("loss", loss.item())
    if os.path.exists("stop") and open("stop").read() == f"{round},{client},{step}":
        os.kill(os.getpid(), signal.SIGKILL)
return GIVEN
"""
PROGRAM = """\
import copy, os, signal

import torch
from torch import nn


class Descent:
    def __init__(self, model):
        self.parameters, self.rate = list(model.parameters()), 0.05

    @torch.no_grad()
    def step(self):
        for parameter in self.parameters:
            parameter -= self.rate * parameter.grad


def average(states):
    mean = copy.deepcopy(states[0])
    for key in mean:
        for other in states[1:]:
            mean[key] += other[key]
        mean[key] = torch.div(mean[key], len(states))
    return mean


HELPER

torch.manual_seed(3)
data = torch.randn(24, 4)
base = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 1))
weights, kept = base.state_dict(), []
for round in range(4):
    found = []
    for client in range(2):
        found.append(CALL)
    KEPT
    print("weights", weights["0.weight"].sum().item(), weights["0.weight"].data_ptr() == base[0].weight.data_ptr())
"""
CASES = list(itertools.product(MADE, GIVEN, HELPERS, KEPT))


def program(made: str, given: str, helper: str, kept: str, *, asked: bool = False) -> str:
    result, weights = GIVEN[given]
    body = _put(BODY, "MADE", MADE[made]).replace("GIVEN", result)
    function, call = HELPERS[helper]
    text = _put(PROGRAM, "KEPT", KEPT[kept].replace("WEIGHTS", weights)).replace("CALL", call)
    text = _put(text, "HELPER", _put(function, "BODY", body))
    return text.replace(
        "# ASKED", 'print("asked", model[0].weight.grad.norm().item())' if asked else "# ASKED"
    )


def _put(text: str, place: str, lines: str) -> str:
    """The text with lines in the place of the one that says no more than ``place``, as deep as that."""
    (line,) = (line for line in text.splitlines(keepends=True) if line.strip() == place)
    return text.replace(line, textwrap.indent(lines.strip() + "\n", line[: line.index(place)]))


@pytest.mark.parametrize(("made", "given", "helper", "kept"), CASES)
def test_a_late_question_is_answered_from_the_nearest_image_and_proven(
    nursery: Nursery, tmp_path: Path, made: str, given: str, helper: str, kept: str
) -> None:
    script, store = tmp_path / "train.py", tmp_path / "store"
    script.write_text(program(made, given, helper, kept))
    nursery.run(store, "florlog", "record", script, dense=True)
    script.write_text(program(made, given, helper, kept, asked=True))
    nursery.run(tmp_path / "truth", "florlog", "record", script)
    expected = {value.path: value.bits for value in logged(tmp_path / "truth", "asked")}
    for where in ("round == 3 and client == 0 and step == 1", "round == 2 and client == 1 and step == 0"):
        nursery.run(store, "florlog", "replay", script, "--format", "json", "--where", where)
        output = (nursery.directory / "output.txt").read_text()
        assert "cannot be restored" not in output, output
        answer = json.loads(next(line for line in output.splitlines() if line.startswith("{")))
        (value,) = answer["values"]
        assert encode_value(value["value"]) == expected[tuple(value["path"].items())]
        assert value["trust"] == "PROVEN", output
        assert answer["plan"]["iterations_redone"] <= 3


@pytest.mark.parametrize(("made", "given", "helper", "kept"), CASES)
def test_a_killed_run_is_resumed_from_the_newest_image(
    nursery: Nursery, tmp_path: Path, made: str, given: str, helper: str, kept: str
) -> None:
    script, store, whole = tmp_path / "train.py", tmp_path / "store", tmp_path / "whole"
    script.write_text(program(made, given, helper, kept))
    nursery.run(whole, "florlog", "record", script)
    for command, stop in (("record", "2,1,0"), ("resume", "3,0,1")):
        (tmp_path / "stop").write_text(stop)
        assert nursery.run(store, "florlog", command, script, dense=True)[0]
    (tmp_path / "stop").unlink()
    nursery.run(store, "florlog", "resume", script, dense=True)
    output = (nursery.directory / "output.txt").read_text()
    assert "cannot be restored" not in output, output
    assert "differs" not in output, output
    assert logged(store) == logged(whole)


@pytest.mark.parametrize("helper", HELPERS)
def test_a_run_whose_images_do_not_have_all_goes_on_differently(
    nursery: Nursery, tmp_path: Path, helper: str
) -> None:
    script, whole = tmp_path / "train.py", tmp_path / "whole"
    script.write_text(program("a model", "the model", helper, "averaged"))
    nursery.run(whole, "florlog", "record", script)
    resumed = []
    for number in range(
        3
    ):  # an image may be skipped while two are written, and the way to another one be long
        store = tmp_path / f"store{number}"
        (tmp_path / "stop").write_text("3,1,1")
        assert nursery.run(store, "florlog", "record", script, dense=True, forget="rate")[0]
        (tmp_path / "stop").unlink()
        nursery.run(store, "florlog", "resume", script, dense=True, forget="rate", code=None)
        resumed.append(logged(store))
    assert any(values != logged(whole) for values in resumed)
