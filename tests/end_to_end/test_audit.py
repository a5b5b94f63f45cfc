"""An audit finds what the images of a run lack, and nothing where they lack nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from .harness import Nursery, flor
from .programs import write

pytestmark = pytest.mark.drawn_in_file(1)

TRAINING = """
import ctypes
import torch
import florlog

class Meter:
    seen = 0

outside = ctypes.c_int(0)
torch.manual_seed(1)
model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Dropout(0.5))
optimizer = torch.optim.Adam(model.parameters(), 0.01)
with florlog.run("audited", overhead=float("inf")) as run:
    run.track(model=model, optimizer=optimizer)
    for epoch in run.loop("epoch", range(3)):
        for _ in range(4):
            loss = model(torch.randn(8, 4)).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            Meter.seen += 1
            HIDDEN
        run.log(loss=loss.item())
"""


def audited(nursery: Nursery, store: Path, hidden: str, code: int) -> dict[str, Any]:
    """The answer of an audit of the training, which ends with an exit code."""
    nursery.run(store, write(store.parent / "train.py", TRAINING.replace("HIDDEN", hidden)))
    done = flor(store, "audit", "--format", "json", check=False)
    assert done.returncode == code, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def test_a_run_whose_state_is_in_its_images_passes(nursery: Nursery, tmp_path: Path) -> None:
    answer = audited(nursery, tmp_path / "store", "pass", 0)
    assert answer["passed"]
    assert sum(stretch["iterations"] for stretch in answer["stretches"]) == 3
    assert answer["stretches"][0]["from"] == {"epoch": 0}


@pytest.mark.drawn(1)
@pytest.mark.parametrize(
    ("hidden", "named"),
    [
        ("outside.value += 1; model[1].p = 0.5 / (1 + outside.value)", "model"),
        ("outside.value += 1; Meter.last = outside.value", "Meter.last"),
    ],
)
def test_what_lies_outside_of_python_is_found_and_named(
    hidden: str, named: str, nursery: Nursery, tmp_path: Path
) -> None:
    answer = audited(nursery, tmp_path / "store", hidden, 1)
    assert not answer["passed"]
    assert any(named in stretch["difference"] for stretch in answer["stretches"])


def test_a_run_with_a_single_image_cannot_be_audited(nursery: Nursery, tmp_path: Path) -> None:
    text = TRAINING.replace("HIDDEN", "pass").replace("range(3)", "range(0)")
    nursery.run(
        tmp_path / "store", write(tmp_path / "train.py", text.replace("        run.log", "        pass  #"))
    )
    done = flor(tmp_path / "store", "audit", check=False)
    assert done.returncode == 2
    assert "images, and an audit goes from one to the next" in done.stderr
