"""TRL's SFTTrainer, on the Trainer: with LoRA or without, killed runs go on bit-exactly, statements are asked."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.harness import Nursery
from tests.frameworks.programs import SFT
from tests.frameworks.test_transformers import asked, rows

torch = pytest.importorskip("torch")
for _needed in ("datasets", "peft", "trl"):
    pytest.importorskip(_needed)
pytestmark = pytest.mark.long

TIMES = ("_runtime", "_per_second")
LINE = "        return (loss, outputs)"
PROGRAMS = {"LoRA": SFT, "all weights": SFT.replace("peft_config=lora,", "peft_config=None,")}


@pytest.fixture(scope="module")
def nursery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nursery]:
    """Processes that have imported what an SFTTrainer needs, and find no hub."""
    place = tmp_path_factory.mktemp("sft")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HOME", str(place / "home"))
        patch.setenv("HF_HUB_OFFLINE", "1")
        made = Nursery(place, "peft", "trl.trainer.sft_trainer", "transformers.models.gpt2")
        yield made
        made.close()


@pytest.fixture(scope="module", params=PROGRAMS)
def recorded(
    nursery: Nursery, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A directory with the script, ``plain`` as python left it, and a store with a run that has all images."""
    place = tmp_path_factory.mktemp("recorded")
    script = place / "train.py"
    script.write_text(PROGRAMS[request.param])
    nursery.run(place / "unused", script, place / "plain")
    nursery.run(place / "store", "florlog", "record", "--no-audit", script, place / "recorded", dense=True)
    return place


def ended(directory: Path) -> Any:
    """What a training has left: its history without times, and its weights, bit for bit."""
    history = json.loads((directory / "history.json").read_text())
    left = torch.load(directory / "end.pt")
    weights = {name: weight.numpy().tobytes() for name, weight in left["weights"].items()}
    lines = [{key: value for key, value in line.items() if not key.endswith(TIMES)} for line in history]
    return lines, weights, left["steps"]


def test_the_training_is_not_changed(recorded: Path) -> None:
    assert ended(recorded / "recorded") == ended(recorded / "plain")


@pytest.mark.crash
@pytest.mark.parametrize("case", range(6))
def test_killed_at_any_instant_it_goes_on_bit_exactly(
    nursery: Nursery, recorded: Path, tmp_path: Path, case: int
) -> None:
    chance = random.Random(case)
    script, store, out = recorded / "train.py", tmp_path / "store", tmp_path / "out"
    dense = chance.random() < 0.7
    seconds = chance.random() * (5.0 if dense else 2.0)
    killed, _ = nursery.run(store, "florlog", "record", "--no-audit", script, out, kill=seconds, dense=dense)
    if killed:
        nursery.run(store, "florlog", "resume", script, out, dense=dense, code=None)
        assert "the run differs" not in nursery.output.read_text()
        if "florlog: no run in" in nursery.output.read_text():
            nursery.run(store, "florlog", "record", "--no-audit", script, out, dense=dense)
    assert ended(out) == ended(recorded / "plain"), f"killed after {seconds} s"


def test_a_statement_in_compute_loss_is_asked_afterwards(
    nursery: Nursery, recorded: Path, tmp_path: Path
) -> None:
    script = recorded / "train.py"
    text = script.read_text()
    added = '        print("asked", self.state.global_step, loss.item())\n'
    try:
        script.write_text(text.replace(LINE, added + LINE))
        nursery.run(tmp_path / "unused", script, tmp_path / "full")
        # Not a word's start: a bar's escape sequence may stand before it.  A number, as TRL tells of "masked examples".
        printed = re.findall(r"asked (\d.*)", nursery.output.read_text())
        one = asked(nursery, recorded / "store", script, "--where", "epoch == 1 and step == 2 and micro == 1")
        evaluated = asked(
            nursery, recorded / "store", script, "--where", "epoch == 0 and step == 3 and eval == 0"
        )
        every = asked(nursery, recorded / "store", script)
    finally:
        script.write_text(text)
    assert rows(every["values"]) == printed
    assert {value["trust"] for value in every["values"]} == {"PROVEN"}
    for some, last in (
        (one, {"epoch": 1, "step": 2, "micro": 1}),
        (evaluated, {"epoch": 0, "step": 3, "eval": 0}),
    ):
        assert some["plan"]["iterations_redone"] <= 2
        there = [value for value in every["values"] if last.items() <= value["path"].items()]
        assert rows(some["values"]) == rows(there) != []
