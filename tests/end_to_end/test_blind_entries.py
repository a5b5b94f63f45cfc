"""Iterations are entered blindly where their code up to the image is harmless, and only there; values are right anyway.

Each program here is a training whose epochs have statements before their steps, drawn from two lists: harmless ones,
which may run on any state, and others.  Its images are at the ends of the steps alone, as a run on a budget has them.
"""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from florlog_wal import LoopBegin, Note, RunLog, encode_value
from florlog_wal.stored_images import StoredImage, StoredImages

import florlog
from tests.run_directories import run_directory

from .harness import Nursery, environment, flor, logged

pytestmark = pytest.mark.drawn_in_file(5)

EPOCHS, STEPS = 6, 3
SHOWING_EPOCH = "print(f'epoch {epoch} of {6}')"  # which is a variable as any other in a while loop
HARMLESS = (
    "model.train()",
    "running = 0.0",
    "history.append(epoch)",
    "optimizer.param_groups[0]['lr'] = 0.1 / (1 + len(history))",
    "for group in optimizer.param_groups:\n    group['lr'] *= 0.9",
    "factor = 1.0 + float(model.weight.sum()) / 100",
    "if epoch == 2:\n    factor = 3.0",
    SHOWING_EPOCH,
    "started = time.time()",
    "noise = torch.randn(3)",
    "counts['epochs'] += 1",
    "with torch.no_grad():\n    model.weight.mul_(0.9)",
    "random.shuffle(order)",
    "meter.reset()",
    "setattr(meter, 'mark', epoch)",
    "LOG(lr=len(history))",
    "factor = scaled(factor)",
    "optimizer.zero_grad()",
)
OTHERS = (
    "print('sum', float(model.weight.sum()))",
    "open('epochs.txt', 'a').write(str(factor))",
    "torch.save(model.state_dict(), 'model.pt')",
    "subprocess.run(['true'])",
    "told(epoch)",
    "announce(factor)",
    "while factor > 1e9:\n    factor /= 2",
    "if epoch == 100:\n    break",
    "if factor > 1e9:\n    continue",
    "factor = model(torch.ones(3)).item()",
    "try:\n    factor += 0.5\nfinally:\n    pass",
    "import math",
    "os.environ['EPOCH'] = str(factor)",
    "setattr(torch.backends, 'mark', factor)",
    "table[announce(factor)] = 1.0",
    "meter.shown = factor",
)
FAILING = (
    "factor = table[epoch - 1] if epoch else 1.0",
    "assert epoch == 0 or table",
    "factor = 1.0 / (len(table) if epoch else 1)",
)
"""They fail on the state of another epoch: entered blindly they are found out, and the replay goes another way."""
PROGRAM = """
import os, random, signal, subprocess, time

import torch
from torch import nn
from torch.utils.data import DataLoader
from tqdm import tqdm

IMPORT
random.seed(1)
torch.manual_seed(1)
model = nn.Linear(3, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
history, counts, order, table, factor = [], {"epochs": 0}, [1, 2, 3, 4], {}, 1.0
told = [].append


class Meter:
    def __init__(self):
        self.values = []

    def reset(self):
        self.values = []

    @property
    def shown(self):
        return None

    @shown.setter
    def shown(self, number):
        announce(number)


class Items:  # with an order that is drawn when a pass begins
    def __iter__(self):
        return iter(self.drawn)

    @property
    def drawn(self):
        drawn = order[:3]
        random.shuffle(drawn)
        return drawn


def batches(numbers):
    for number in numbers[:3]:
        yield number + random.random()


def number_in(item):
    while isinstance(item, (tuple, list)):
        item = item[-1]
    return float(item)


Items.made = Items()
meter = Meter()
loaded = [1.0, 2.0, 3.0]
shuffled = DataLoader([1.0, 2.0, 3.0], batch_size=1, shuffle=True)
worked = DataLoader([1.0, 2.0, 3.0], batch_size=1, shuffle=True, num_workers=2)


def scaled(number):
    scale = 1.25
    return number * scale


def stop(epoch, step):
    if os.environ.get("STOP") == f"{epoch},{step}":
        os.kill(os.getpid(), signal.SIGKILL)


def announce(number):
    with open("announced.txt", "a") as file:
        file.write(str(number))


def ready(number):
    with open("asked.txt", "a") as file:
        file.write(str(number))
    return True


def one_step(step, factor):
    x = torch.randn(4, 3) * factor
    loss = (model(x) - x.sum(1, keepdim=True)).square().mean()
    optimizer.zero_grad()
    loss.backward()
    meter.values.append(loss.item())
    # ASKED
    optimizer.step()
    return loss.item()

"""
STEPS_LOOP = """
for step in STEPLOOP:
    loss = one_step(step, factor + epoch / 10 + number_in(step) / 10)
    LOG(loss=loss)
    stop(epoch, step)
"""
TAIL = """
table[epoch] = 1.0 + min(loss, 1.0)
history.append(loss)
"""
INLINE = """
for epoch in EPOCHLOOP:
    PROLOGUE
    STEPS_LOOP
    TAIL
"""
CALLED = """
def train(epoch, factor):
    PROLOGUE
    STEPS_LOOP
    return loss, factor


for epoch in EPOCHLOOP:
    loss, factor = train(epoch, factor)
    TAIL
"""
NESTED = """
for epoch in EPOCHLOOP:
    with torch.enable_grad():
        PROLOGUE
        if epoch >= 0:
            STEPS_LOOP
    TAIL
"""
WHILE = """
epoch = 0
while TEST:
    PROLOGUE
    STEPS_LOOP
    TAIL
    epoch += 1
"""
WHILE_STEPS = """
step = 0
while step < 3 and ready(f"{epoch},{step}"):
    loss = one_step(step, factor + epoch / 10 + number_in(step) / 10)
    LOG(loss=loss)
    stop(epoch, step)
    step += 1
"""
TESTS = (
    "epoch < 6",
    "len(table) < 6 and model.weight.isfinite().all()",
    "(ahead := epoch + 1) <= 6",
    "ready(epoch) and epoch < 6",  # writes a file
    "epoch < 6 and (factor > 0 or 1 / 0)",
    "True if epoch < 6 else print('ended', epoch)",
)
"""Of the epochs' while loop: none is evaluated where an epoch is entered blindly."""
FORMS = {"inline": INLINE, "called": CALLED, "nested": NESTED}
ITEMS = {
    f"range({STEPS})": 1,
    f"loaded[:{STEPS}]": 0,
    "shuffled": 1,
    "enumerate(shuffled)": 1,
    "enumerate(worked)": 1,
    "worked": 1,
    "batches(order)": 0,
    "zip(order, shuffled)": 1,
    "enumerate(Items())": 0,
    "Items()": 0,
    "Items.made": 1,
    "Items.made.drawn": 0,
    "iter(order[:3])": 0,
    "reversed(loaded)": 0,
    "tqdm(shuffled)": 1,
    "enumerate(tqdm(shuffled))": 1,
}
"""What the steps run over, and how many epochs are entered blindly for a question."""
ASKED = "LOG(grad=model.weight.grad.abs().sum().item() + sum(meter.values) + counts['epochs'])"


@dataclass(frozen=True)
class Program:
    """A training: ``form`` of its loops, statements before the steps of an epoch, whether florlog is in it.

    ``items``: what the steps run over, "while" for a while loop; ``test``: of the epochs' while loop, if they are one.
    """

    form: str
    prologue: tuple[str, ...]
    hands_free: bool = False
    items: str = f"range({STEPS})"
    test: str = ""
    asked: str = ASKED

    def text(self, *, asked: bool = False) -> str:
        """Its text, with the statement that is added afterwards."""
        body = WHILE.replace("TEST", self.test) if self.test else FORMS[self.form]
        for name, lines in (
            ("PROLOGUE", "\n".join(self.prologue) or "pass"),
            ("STEPS_LOOP", WHILE_STEPS if self.items == "while" else STEPS_LOOP),
            ("TAIL", TAIL),
        ):
            column = next(line.index(name) for line in body.splitlines() if name in line)
            body = body.replace(name, textwrap.indent(lines.strip(), " " * column).strip())
        head = PROGRAM.replace("# ASKED", self.asked if asked else "# ASKED")
        if self.hands_free:
            text = (head + body).replace("IMPORT", "")
            for name in ("lr", "loss", "grad"):
                text = text.replace(f"LOG({name}=", f"print('{name}', ")
            return text.replace("EPOCHLOOP", f"range({EPOCHS})").replace("STEPLOOP", self.items)
        run = "with florlog.run('blind', overhead=float('inf')) as run:\n    run.track(model=model)\n"
        text = head.replace("IMPORT", "import florlog") + run + textwrap.indent(body, "    ")
        text = text.replace("LOG(", "florlog.log(")
        text = text.replace("EPOCHLOOP", f"run.loop('epoch', range({EPOCHS}))")
        return text.replace("STEPLOOP", f"run.loop('step', {self.items})")


def drop_outer_images(store: Path) -> None:
    """Leave the images before the first epoch and at the ends of the steps."""
    with RunLog.open(run_directory(store), mode="w") as log:
        held = StoredImages(log)

        def left(image: StoredImage) -> bool:
            begin = log.record(image.loop).record
            assert isinstance(begin, LoopBegin)
            return image.index == (STEPS if begin.path else 0)

        held.drop([image for image in held.images if not held.stays(image) and not left(image)])


def record(nursery: Nursery, folder: Path, program: Program) -> tuple[Path, Path]:
    """Record a program; its script, and its store."""
    script, store = folder / "train.py", folder / "store"
    script.write_text(program.text())
    command = ["florlog", "record"] if program.hands_free else []
    nursery.run(store, *command, script, dense=program.hands_free)
    drop_outer_images(store)
    return script, store


def ask(nursery: Nursery, script: Path, store: Path, program: Program, where: str) -> dict[str, Any]:
    """The answer of a replay, from a copy of the store."""
    script.write_text(program.text(asked=True))
    shutil.copytree(store, store.with_name("asked"))
    nursery.run(store.with_name("asked"), "florlog", "replay", script, "--format", "json", "--where", where)
    shutil.rmtree(store.with_name("asked"))
    output = (nursery.directory / "output.txt").read_text()
    answer = dict(json.loads(next(line for line in output.splitlines() if line.startswith("{"))))
    return answer | {"astray": "cannot be entered on another state" in output}


def entries(answer: dict[str, Any]) -> int:
    """How many iterations the plan of an answer enters blindly."""
    return sum(redo["part"] == "entry" for segment in answer["plan"]["segments"] for redo in segment["redo"])


def truth(nursery: Nursery, folder: Path, program: Program) -> dict[Any, bytes]:
    """What a run of the program with the added statement logs."""
    script = folder / "truth.py"
    script.write_text(program.text(asked=True))
    command = ["florlog", "record"] if program.hands_free else []
    nursery.run(folder / "truth", *command, script)
    return {value.path: value.bits for value in logged(folder / "truth", "grad")}


def restores(store: Path) -> int:
    """How many images the newest resume restored."""
    with RunLog.open(run_directory(store)) as log:
        notes = [entry.record for entry in log.scan(types=[Note])]
    return int(next(note.data["restored"] for note in reversed(notes) if note.kind == "resume"))


def check(nursery: Nursery, folder: Path, program: Program, epoch: int) -> dict[str, Any]:
    """Ask for a step of an epoch: the value is right, and PROVEN or CONSISTENT; the answer."""
    script, store = record(nursery, folder, program)
    answer = ask(nursery, script, store, program, f"epoch == {epoch} and step == 1")
    expected = truth(nursery, folder, program)
    (value,) = answer["values"]
    place = (("epoch", epoch), ("step", 1))
    assert encode_value(value["value"]) == expected[place]
    assert value["trust"] in ("PROVEN", "CONSISTENT"), value
    return answer


@pytest.mark.drawn(5)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("statement", HARMLESS)
def test_an_epoch_whose_beginning_is_harmless_is_entered_blindly(
    nursery: Nursery, tmp_path: Path, form: str, statement: str
) -> None:
    answer = check(nursery, tmp_path, Program(form, (statement,)), 4)
    assert entries(answer) == 1
    assert not answer["astray"]
    assert sum(bool(segment["restore"]) for segment in answer["plan"]["segments"]) == 1


@pytest.mark.drawn(4)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("statement", OTHERS)
def test_an_epoch_that_begins_with_anything_else_is_not(
    nursery: Nursery, tmp_path: Path, form: str, statement: str
) -> None:
    if form == "called" and ("break" in statement or "continue" in statement):
        statement = "if epoch == 100:\n    return 0.0, factor"
    assert entries(check(nursery, tmp_path, Program(form, (statement,)), 4)) == 0


@pytest.mark.drawn(3)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("items", ITEMS)
def test_what_the_steps_run_over_is_as_it_was(
    nursery: Nursery, tmp_path: Path, form: str, items: str
) -> None:
    answer = check(nursery, tmp_path, Program(form, ("model.train()",), items=items), 4)
    assert entries(answer) == ITEMS[items]
    assert answer["astray"] == (items == "enumerate(worked)")  # whose workers have begun


@pytest.mark.drawn(3)
@pytest.mark.parametrize("test", TESTS)
@pytest.mark.parametrize("statement", [*HARMLESS, *OTHERS])
def test_a_pass_of_a_while_loop_is_entered_blindly_whatever_its_test_is(
    nursery: Nursery, tmp_path: Path, statement: str, test: str
) -> None:
    answer = check(nursery, tmp_path, Program("while", (statement,), hands_free=True, test=test), 4)
    harmless = statement in HARMLESS and statement != SHOWING_EPOCH
    assert entries(answer) == harmless
    assert not answer["astray"]


@pytest.mark.parametrize(
    "test", ["epoch < 6 and (epoch == 0 or step == 2)", "epoch < 6 and (epoch == 0 or 1 / (step == 2))"]
)
def test_its_test_is_not_evaluated_on_the_state_of_a_step_that_was_left(
    nursery: Nursery, tmp_path: Path, test: str
) -> None:
    program = Program("while", ("model.train()",), hands_free=True, test=test)
    script, store = record(nursery, tmp_path, program)
    answer = ask(nursery, script, store, program, "epoch in (1, 4) and step == 1")
    expected = truth(nursery, tmp_path, program)
    assert [encode_value(value["value"]) for value in answer["values"]] == [
        expected[("epoch", epoch), ("step", 1)] for epoch in (1, 4)
    ]
    assert entries(answer) == 2
    assert not answer["astray"]


@pytest.mark.drawn(1)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("test", ["", *TESTS])
def test_a_while_loop_with_an_image_may_be_on_the_way(
    nursery: Nursery, tmp_path: Path, form: str, test: str
) -> None:
    program = Program(form, ("model.train()",), hands_free=True, items="while", test=test)
    answer = check(nursery, tmp_path, program, 4)
    assert entries(answer) == 1
    assert not answer["astray"]


def test_a_pass_is_not_entered_blindly_for_what_its_test_would_have_bound(
    nursery: Nursery, tmp_path: Path
) -> None:
    asked = ASKED.replace("LOG(grad=", "LOG(grad=ahead + ")
    program = Program("while", ("model.train()",), hands_free=True, test=TESTS[2], asked=asked)
    assert entries(check(nursery, tmp_path, program, 4)) == 0


@pytest.mark.parametrize("statement", FAILING)
def test_what_fails_on_another_state_is_found_out(nursery: Nursery, tmp_path: Path, statement: str) -> None:
    answer = check(nursery, tmp_path, Program("inline", (statement,)), 4)
    assert entries(answer) == 1
    assert answer["astray"]


@pytest.mark.drawn(5)
@pytest.mark.parametrize("number", range(200))
def test_values_are_right_whatever_comes_before_the_steps(
    nursery: Nursery, tmp_path: Path, number: int
) -> None:
    chance = random.Random(number)
    pool = [*HARMLESS, *HARMLESS, *OTHERS, *FAILING]
    form = chance.choice(sorted(FORMS))
    if form == "called":
        pool = [statement for statement in pool if "break" not in statement and "continue" not in statement]
    chosen = tuple(chance.choice(pool) for _ in range(chance.randint(1, 5)))
    items = chance.choice([f"range({STEPS})", *ITEMS])
    program = Program(form, chosen, hands_free=chance.random() < 0.4, items=items)
    answer = check(nursery, tmp_path, program, chance.randrange(1, EPOCHS))
    assert not (entries(answer) and set(chosen) & set(OTHERS))


@pytest.mark.drawn(3)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("hands_free", [False, True])
@pytest.mark.parametrize("statement", [*HARMLESS, *FAILING])
def test_a_resume_enters_blindly_and_equals_the_whole_run(
    nursery: Nursery, tmp_path: Path, form: str, hands_free: bool, statement: str
) -> None:
    program = Program(form, (statement,), hands_free)
    script, store, whole = tmp_path / "train.py", tmp_path / "store", tmp_path / "whole"
    script.write_text(program.text())
    command = ["florlog", "record"] if hands_free else []
    nursery.run(whole, *command, script)
    killed = {**environment(store), "STOP": "4,1"}
    command = [sys.executable, *(["-m", *command] if command else []), str(script)]
    subprocess.run(command, env=killed, cwd=tmp_path, check=False, capture_output=True)
    drop_outer_images(store)
    flor(store, "resume", script)
    assert logged(store) == logged(whole)
    if not hands_free:  # which has images as the machine's load allows, and shows what it logs
        assert restores(store) == 1 or statement in FAILING


@pytest.mark.drawn(1)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("statement", HARMLESS)
def test_a_state_is_found_through_a_blind_entry(
    nursery: Nursery, tmp_path: Path, form: str, statement: str
) -> None:
    _, store = record(nursery, tmp_path, Program(form, (statement,)))
    nursery.run(tmp_path / "dense", tmp_path / "train.py")
    with florlog.open(store) as log, florlog.open(tmp_path / "dense") as dense:
        found, expected = log.state_at(epoch=4, step=1), dense.state_at(epoch=4, step=1)
        assert found.trust in ("PROVEN", "CONSISTENT")
        assert found.keys() == expected.keys()
        for name, tensor in expected["model"].items():
            assert torch.equal(found["model"][name], tensor)
