"""Images leave out gradients that nothing reads again; what reads them nonetheless gets the right ones, or none.

Each program here is a training that reads its gradients in places drawn at random: where the analysis sees it, where it
does not (through a function in a dict), and where an exception would be caught.  It is killed, resumed and asked.
"""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
import textwrap
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from florlog_wal import RunLog, encode_value

from florlog.images.imager import SavedState
from florlog.program.stores import tree_of
from tests.run_directories import run_directory

from .harness import Nursery, environment, flor, logged

pytestmark = pytest.mark.drawn_in_file(4)

EPOCHS, STEPS = 5, 4
SLOTS = ("BEFORE", "TOP", "BOTTOM", "AFTER")
READERS = (
    "seen = seen / 2 + hidden['norm']()",
    "try:\n    seen = seen / 2 + hidden['norm']()\nexcept Exception:\n    seen = -1.0",
    "seen = seen / 2 + norm()",
    "seen = float(model.bias.grad[0]) if model.bias.grad is not None else 0.0",
    "kept = [p.grad for p in model.parameters()]\nseen = sum(float(g.sum()) for g in kept if g is not None)",
)
OTHERS = ("seen = seen / 2", "hidden['count'] = epoch", "model.train()", "scheduler.step()")
CLEARING = ("optimizer.zero_grad()", "model.zero_grad()", "for p in model.parameters():\n    p.grad = None")
PROGRAM = """
import os, signal

import torch
from torch import nn

import florlog

torch.manual_seed(1)
model = nn.Linear(5, 2)
idle = nn.Linear(3, 1)
optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 3, 0.9)
idle(torch.ones(3)).backward()
seen = 0.0


def norm():
    return sum(float(p.grad.norm()) for p in model.parameters() if p.grad is not None)


hidden = {"norm": lambda: float(model.weight.grad.abs().sum()) if model.weight.grad is not None else 0.0}


def stop(epoch, step):
    if os.environ.get("STOP") == f"{epoch},{step}":
        os.kill(os.getpid(), signal.SIGKILL)


with florlog.run("gradients", overhead=float("inf"), audit=False) as run:
    run.track(model=model, optimizer=optimizer, idle=idle)
    for epoch in run.loop("epoch", range(EPOCHS)):
        BEFORE
        for step in run.loop("step", range(STEPS)):
            TOP
            CLEAR
            loss = model(torch.randn(8, 5)).square().mean() * (1 + min(abs(seen), 1.0))
            loss.backward()
            optimizer.step()
            BOTTOM
            florlog.log(loss=loss, seen=seen)
            stop(epoch, step)
        AFTER
        florlog.log(total=seen)
"""


@dataclass(frozen=True)
class Program:
    """A training with statements in its slots; ``clear`` removes the gradients."""

    statements: dict[str, str] = field(default_factory=dict)
    clear: str = CLEARING[0]

    def text(self, asked: tuple[str, str] | None = None) -> str:
        """Its text; ``asked``: a slot, and the statement added there."""
        text = PROGRAM.replace("EPOCHS", str(EPOCHS)).replace("STEPS", str(STEPS))
        for slot in (*SLOTS, "CLEAR"):
            lines = [self.clear if slot == "CLEAR" else self.statements.get(slot, "pass")]
            if asked is not None and asked[0] == slot:
                lines.append(asked[1])
            column = next(line.index(slot) for line in text.splitlines() if line.strip() == slot)
            text = text.replace(
                " " * column + slot + "\n", textwrap.indent("\n".join(lines), " " * column) + "\n"
            )
        return text


def left_out(store: Path) -> tuple[int, int]:
    """How many images have left out gradients, and how many have not."""
    with RunLog.open(run_directory(store)) as log:
        images = [image for loop in tree_of(log).loops() for image in loop.images.values()]
        without = sum(bool(SavedState(log, image.table).gradients.get("model")) for image in images)
    return without, len(images) - without


def test_dense_images_leave_out_gradients(nursery: Nursery, tmp_path: Path) -> None:
    script, store = tmp_path / "train.py", tmp_path / "store"
    script.write_text(Program().text())
    nursery.run(store, script)
    without, complete = left_out(store)
    assert without > complete > 0  # the first ones, those before epochs, and every eighth
    with RunLog.open(run_directory(store)) as log:
        for loop in tree_of(log).loops():
            for image in loop.images.values():  # nothing adds to them, and nothing clears them either
                assert not SavedState(log, image.table).gradients.get("idle")


@pytest.mark.parametrize("clear", CLEARING[1:])
@pytest.mark.drawn(1)
def test_however_they_are_cleared(nursery: Nursery, tmp_path: Path, clear: str) -> None:
    script, store = tmp_path / "train.py", tmp_path / "store"
    script.write_text(Program(clear=clear).text())
    nursery.run(store, script)
    assert left_out(store)[0]


def drawn(number: int) -> tuple[random.Random, Program]:
    chance = random.Random(number)
    pool = [*READERS, *OTHERS, *OTHERS, "pass", "pass"]
    statements = {slot: chance.choice(pool) for slot in SLOTS}
    return chance, Program(statements, chance.choice(CLEARING))


def ask(nursery: Nursery, script: Path, store: Path, where: str) -> list[dict[str, Any]]:
    shutil.copytree(store, store.with_name("asked"))
    nursery.run(store.with_name("asked"), "florlog", "replay", script, "--format", "json", "--where", where)
    output = (nursery.directory / "output.txt").read_text()
    return list(json.loads(next(line for line in output.splitlines() if line.startswith("{")))["values"])


@pytest.mark.drawn(5)
@pytest.mark.parametrize("number", range(200))
def test_values_are_those_of_the_whole_run(nursery: Nursery, tmp_path: Path, number: int) -> None:
    chance, program = drawn(number)
    script, store = tmp_path / "train.py", tmp_path / "store"
    script.write_text(program.text())
    nursery.run(store, script)
    expression = chance.choice(["norm()", "hidden['norm']()", "float(model.weight.sum())", "seen"])
    slot = chance.choice(SLOTS)
    script.write_text(program.text((slot, f"florlog.log(asked={expression})")))
    values = ask(nursery, script, store, f"epoch == {chance.randrange(EPOCHS)}")
    nursery.run(tmp_path / "truth", script)
    expected: dict[Any, bytes] = {value.path: value.bits for value in logged(tmp_path / "truth", "asked")}
    assert values
    for value in values:
        assert encode_value(value["value"]) == expected[tuple(value["path"].items())], (program, value)
        assert value["trust"] in ("PROVEN", "CONSISTENT"), (program, value)


@pytest.mark.drawn(3)
@pytest.mark.parametrize("number", range(200))
def test_a_resume_equals_the_whole_run(nursery: Nursery, tmp_path: Path, number: int) -> None:
    chance, program = drawn(number)
    script, store, whole = tmp_path / "train.py", tmp_path / "store", tmp_path / "whole"
    script.write_text(program.text())
    nursery.run(whole, script)
    stop = f"{chance.randrange(1, EPOCHS)},{chance.randrange(STEPS)}"
    killed = {**environment(store), "STOP": stop}
    subprocess.run([sys.executable, script], env=killed, cwd=tmp_path, check=False, capture_output=True)
    flor(store, "resume", script)
    assert logged(store) == logged(whole), (program, stop)
