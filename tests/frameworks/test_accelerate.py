"""Accelerate in a loop of the user's own: its loader reads ahead, its optimizer steps once in a group of batches."""

from __future__ import annotations

import json
import random
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.harness import Nursery
from tests.frameworks.programs import ACCELERATE

pytestmark = pytest.mark.drawn_in_file(3)

torch = pytest.importorskip("torch")
pytest.importorskip("accelerate")

LINE = "            history.append(loss.item())\n"
ADDED = LINE + '            print("asked", len(history), model.inner.weight.norm().item(), x.sum().item())\n'
OVER = {
    "the loader": "x, y in train:",
    "enumerate": "_, (x, y) in enumerate(train):",
    "a progress bar": "x, y in tqdm(train):",
}
"""What the loop runs over, and how that is written."""


def ended(directory: Path) -> Any:
    """What a training has left: its losses and its weights, bit for bit."""
    weights = torch.load(directory / "end.pt")["weights"]
    left = {name: weight.numpy().tobytes() for name, weight in weights.items()}
    return json.loads((directory / "history.json").read_text()), left


def program(over: str) -> str:
    """The program whose loop runs over the loader, or over what is around it."""
    text = ACCELERATE.replace("x, y in train:", OVER[over])
    return text.replace("import torch\n", "import torch\nfrom tqdm import tqdm\n", 1)


@pytest.fixture(scope="module")
def nursery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nursery]:
    """Processes that have imported Accelerate."""
    made = Nursery(tmp_path_factory.mktemp("accelerate"), "accelerate", "tqdm")
    yield made
    made.close()


@pytest.fixture(scope="module")
def recorded(nursery: Nursery, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the script, ``plain`` as python left it, and a store with a run that has all images."""
    place = tmp_path_factory.mktemp("recorded")
    script = place / "train.py"
    script.write_text(ACCELERATE)
    nursery.run(place / "unused", script, place / "plain")
    nursery.run(place / "store", "florlog", "record", "--no-audit", script, place / "recorded", dense=True)
    (place / "said.txt").write_text(nursery.output.read_text())
    return place


def test_its_objects_are_understood_and_the_training_is_not_changed(recorded: Path) -> None:
    assert ended(recorded / "recorded") == ended(recorded / "plain")
    said = (recorded / "said.txt").read_text()
    assert "tracked: model, optimizer, scheduler; and what the loops carry" in said
    assert "not understood: nothing" in said
    assert "Warning" not in said


@pytest.mark.crash
@pytest.mark.drawn(2)
@pytest.mark.parametrize("case", range(20))
def test_killed_at_any_instant_it_goes_on_bit_exactly(
    nursery: Nursery, recorded: Path, tmp_path: Path, case: int
) -> None:
    chance = random.Random(case)
    script, store, out = tmp_path / "train.py", tmp_path / "store", tmp_path / "out"
    script.write_text(program(chance.choice(list(OVER))))
    dense = chance.random() < 0.5
    seconds = chance.random() * (2.5 if dense else 0.8)
    killed, _ = nursery.run(store, "florlog", "record", "--no-audit", script, out, kill=seconds, dense=dense)
    if killed:
        nursery.run(store, "florlog", "resume", script, out, dense=dense, code=None)
        said = nursery.output.read_text()
        assert "the run differs" not in said
        if "florlog: no run in" in said:  # it was killed before the run began
            nursery.run(store, "florlog", "record", "--no-audit", script, out, dense=dense)
    assert ended(out) == ended(recorded / "plain"), f"killed after {seconds} s"


@pytest.mark.crash
@pytest.mark.drawn(2)
@pytest.mark.parametrize(
    ("over", "forgotten"),
    [*((over, None) for over in OVER), pytest.param("the loader", "step", marks=pytest.mark.long)],
)
def test_it_goes_on_in_the_middle_of_a_group_and_a_number_that_images_forget_is_noticed(
    nursery: Nursery, recorded: Path, tmp_path: Path, over: str, forgotten: str | None
) -> None:
    script, store, out = tmp_path / "train.py", tmp_path / "store", tmp_path / "out"
    died = '            if len(history) == 18 and os.path.exists("kill"):\n                os.kill(os.getpid(), 9)\n'
    script.write_text(program(over).replace(LINE, LINE + died))
    (tmp_path / "kill").touch()
    command = "florlog", "record", "--no-audit", script, out
    nursery.run(store, *command, dense=True, forget=forgotten, code=-9)
    (tmp_path / "kill").unlink()
    nursery.run(store, "florlog", "resume", script, out, dense=True, forget=forgotten, code=None)
    said = nursery.output.read_text()
    if forgotten is None:
        assert re.search(r"resumed from epoch=1, \w+=\d after", said)
        assert ended(out) == ended(recorded / "plain")
    assert ("the run differs" in said) is (forgotten is not None)


def test_a_statement_is_asked_afterwards(nursery: Nursery, recorded: Path, tmp_path: Path) -> None:
    script = recorded / "train.py"
    store = shutil.copytree(recorded / "store", tmp_path / "store")
    try:
        script.write_text(ACCELERATE.replace(LINE, ADDED))
        nursery.run(tmp_path / "unused", script, tmp_path / "full")
        printed = re.findall(r"asked (.*)", nursery.output.read_text())
        one = asked(nursery, store, script, "--where", "epoch == 2 and step == 7")
        every = asked(nursery, store, script)
    finally:
        script.write_text(ACCELERATE)
    assert one["plan"]["iterations_redone"] == 1
    assert {value["trust"] for value in [*one["values"], *every["values"]]} == {"PROVEN"}
    assert rows(every["values"]) == printed
    assert rows(one["values"]) == [printed[2 * 13 + 7]]


def asked(nursery: Nursery, store: Path, script: Path, *options: str) -> Any:
    """What a replay answers."""
    nursery.run(store, "florlog", "replay", script, "--format", "json", *options)
    return json.loads(next(line for line in nursery.output.read_text().splitlines() if line.startswith("{")))


def rows(values: list[dict[str, Any]]) -> list[str]:
    """The values of each execution of the statement, as print shows them."""
    names = list(dict.fromkeys(value["name"] for value in values))
    columns = [[str(value["value"]) for value in values if value["name"] == name] for name in names]
    return [" ".join(row) for row in zip(*columns, strict=True)]


OWN_RUN = """\
import os

import torch
from accelerate import Accelerator
from torch.utils.data import DataLoader, TensorDataset

import florlog

torch.manual_seed(0)
accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2)
model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.Dropout(0.1), torch.nn.Linear(16, 1))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda n: 1 / (1 + n))
loader = DataLoader(TensorDataset(torch.randn(90, 8)), batch_size=10, shuffle=True)
model, optimizer, loader, scheduler = accelerator.prepare(model, optimizer, loader, scheduler)
with florlog.run("acc", overhead=float("inf"), audit=False) as run:
    run.track(model=model, optimizer=optimizer, loader=loader, scheduler=scheduler)
    for epoch in run.loop("epoch", range(3)):
        for i, (x,) in enumerate(run.loop("step", loader)):
            with accelerator.accumulate(model):
                optimizer.zero_grad()
                loss = model(x).pow(2).mean()
                accelerator.backward(loss)
                optimizer.step()
                scheduler.step()
            run.log(loss=loss, lr=scheduler.get_last_lr()[0])
            if os.path.exists("kill") and (epoch, i) == (1, 4):
                os.kill(os.getpid(), 9)
print("end", model[0].weight.sum().item())
"""


def test_a_run_that_the_script_opens_goes_on_in_the_middle_of_a_group(
    nursery: Nursery, tmp_path: Path
) -> None:
    script, kill = tmp_path / "train.py", tmp_path / "kill"
    script.write_text(OWN_RUN)
    nursery.run(tmp_path / "whole", script)
    end = nursery.output.read_text().splitlines()[-1]
    kill.touch()
    assert nursery.run(tmp_path / "cut", script, code=None)
    kill.unlink()
    nursery.run(tmp_path / "cut", "florlog", "resume", script)
    said = nursery.output.read_text()
    assert "resumed from epoch=1, step=" in said
    assert said.splitlines()[-1] == end
