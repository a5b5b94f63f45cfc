"""A program that keeps state_dicts in variables: they share their tensors with what is tracked, before and after."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from florlog_wal import encode_value

from .harness import Nursery, environment, flor, logged

pytestmark = pytest.mark.drawn_in_file(2)

KEEPING = {
    "in a mapping": "checkpoint = {'model': model.state_dict(), 'optimizer': optimizer.state_dict(), 'epoch': epoch}",
    "alone": "checkpoint = optimizer.state_dict()",
    "of the model": "checkpoint = model.state_dict()",
    "in a list": "checkpoint = [*(checkpoint or [])[-1:], optimizer.state_dict()]",
    "in an object": "keeper.best = optimizer.state_dict()",
    "a tensor": "checkpoint = next(iter(optimizer.state.values()), {}).get('exp_avg')",
    "another optimizer's groups": "checkpoint = optimizer.param_groups",
    "copied": "import copy; checkpoint = copy.deepcopy(optimizer.state_dict())",
}
PROGRAM = """
import os, signal

import torch
from torch import nn

import florlog


class Keeper:
    best = None


torch.manual_seed(3)
model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
optimizer = torch.optim.AdamW(model.parameters(), lr=0.05)
keeper, checkpoint = Keeper(), None
with florlog.run("kept", overhead=float("inf"), audit=False) as run:
    run.track(model=model, optimizer=optimizer)
    for epoch in run.loop("epoch", range(5)):
        for step in run.loop("step", range(4)):
            loss = model(torch.randn(8, 4)).square().mean()
            optimizer.zero_grad()
            loss.backward()
            # ASKED
            optimizer.step()
            florlog.log(loss=loss)
            if os.environ.get("STOP") == f"{epoch},{step}":
                os.kill(os.getpid(), signal.SIGKILL)
        if epoch in (1, 2):
            KEEP
"""


def program(keep: str, *, asked: bool = False) -> str:
    text = PROGRAM.replace("KEEP\n", textwrap.indent(keep, "").strip() + "\n")
    return text.replace(
        "# ASKED", "florlog.log(grad=float(model[0].weight.grad.norm()))" if asked else "# ASKED"
    )


@pytest.mark.drawn(2)
@pytest.mark.parametrize("keep", KEEPING)
def test_a_step_after_it_was_kept_is_answered_and_proven(nursery: Nursery, tmp_path: Path, keep: str) -> None:
    script, store = tmp_path / "train.py", tmp_path / "store"
    script.write_text(program(KEEPING[keep]))
    nursery.run(store, script)
    script.write_text(program(KEEPING[keep], asked=True))
    nursery.run(store, "florlog", "replay", script, "--format", "json", "--where", "epoch == 3 and step > 0")
    output = (nursery.directory / "output.txt").read_text()
    assert "cannot be restored" not in output
    values = json.loads(next(line for line in output.splitlines() if line.startswith("{")))["values"]
    nursery.run(tmp_path / "truth", script)
    expected = {value.path: value.bits for value in logged(tmp_path / "truth", "grad")}
    assert [value["trust"] for value in values] == ["PROVEN"] * 3
    for value in values:
        assert encode_value(value["value"]) == expected[tuple(value["path"].items())]


@pytest.mark.drawn(2)
@pytest.mark.parametrize("keep", KEEPING)
def test_a_resume_after_it_was_kept_goes_on_from_the_newest_images(
    nursery: Nursery, tmp_path: Path, keep: str
) -> None:
    script, store, whole = tmp_path / "train.py", tmp_path / "store", tmp_path / "whole"
    script.write_text(program(KEEPING[keep]))
    nursery.run(whole, script)
    killed = {**environment(store), "STOP": "3,2"}
    subprocess.run([sys.executable, script], env=killed, cwd=tmp_path, check=False, capture_output=True)
    said = flor(store, "resume", script).stderr
    assert "an earlier one" not in said, said
    assert "differs" not in said, said
    assert logged(store) == logged(whole)
