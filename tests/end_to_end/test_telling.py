"""A script that logs to other trackers is recorded as it is; a replay takes values and tells no tracker anything."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import florlog

from .harness import environment, flor

pytest.importorskip("tensorboard")
pytest.importorskip("mlflow")

SCRIPT = """
import os

import mlflow
import torch
from torch.utils.tensorboard import SummaryWriter

os.environ["MLFLOW_ALLOW_FILE_STORE"] = "true"
torch.manual_seed(0)


class Meter:
    def __init__(self):
        self.rate = 0.1
        self.told = []

    def log(self, name, value):  # a false friend: it trains
        self.told.append(value)
        self.rate = 0.1 / len(self.told)


def train(model, writer, meter):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for epoch in range(3):
        for step in range(6):
            loss = model(torch.randn(8, 4)).pow(2).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.param_groups[0]["lr"] = meter.rate
            optimizer.step()
            writer.add_scalar("train/loss", loss, epoch * 6 + step)
        for index, group in enumerate(optimizer.param_groups):
            writer.add_scalar(f"lr/{index}", group["lr"], epoch)
        found = {"last": loss.item(), "twice": 2 * loss.item()}
        mlflow.log_metrics(found, step=epoch)
        mlflow.log_metrics({f"again{index}": loss.item(), **{"fifth": 5 * loss.item()}})
        mlflow.log_metric(key="three", value=3 * loss.item())
        meter.log("own", loss.item())
        # ADD


mlflow.set_tracking_uri(f"file:{os.getcwd()}/mlruns")
mlflow.start_run()
mlflow.log_param("rate", 0.1)
train(torch.nn.Linear(4, 1), SummaryWriter("runs/one"), Meter())
mlflow.end_run()
"""
ADDED = """norm = model.weight.norm()
        mlflow.log_metric("norm", norm.item(), step=epoch)
        writer.add_scalar("bias", model.bias.norm(), epoch)
        mlflow.log_metrics({"both": norm + model.bias.norm()})"""


def files(directory: Path) -> dict[str, str]:
    """The files that the script has made, with their digests."""
    return {
        str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest()
        for name in ("runs", "mlruns")
        for path in sorted((directory / name).rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = tmp_path_factory.mktemp("telling") / "store"
    script = store.parent / "train.py"
    script.write_text(SCRIPT)
    flor(store, "record", script)
    return store


def asked(store: Path, added: str, *options: str, check: bool = True) -> dict[str, Any]:
    """What a replay answers for an added line."""
    script = store.parent / "train.py"
    script.write_text(SCRIPT.replace("# ADD", added))
    done = flor(store, "replay", script, "--format", "json", *options, check=check)
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def test_what_trackers_are_told_is_recorded_under_its_names(recorded: Path) -> None:
    with florlog.open(recorded) as log:
        run = log.run()
        names = ("last", "twice", "again0", "fifth", "three", "own", "lr/0")
        assert {name: len(run.values(name)) for name in names} == dict.fromkeys(names, 3)
        assert [len(run.values(name)) for name in ("train/loss", "rate")] == [18, 1]
    kept = files(recorded.parent)
    assert any("last" in name for name in kept)  # the trackers have it as well
    assert any("events.out" in name for name in kept)


def test_an_added_call_is_a_question_and_tells_the_tracker_nothing(recorded: Path) -> None:
    before = files(recorded.parent)
    answer = asked(recorded, ADDED)
    found = {(value["name"], value["trust"]) for value in answer["values"]}
    assert found == {("norm", "PROVEN"), ("bias", "PROVEN"), ("both", "PROVEN")}
    assert len(answer["values"]) == 9
    assert files(recorded.parent) == before


def test_a_function_of_the_program_is_code_whatever_it_is_called(recorded: Path) -> None:
    answer = asked(recorded, 'meter.log("again", loss.item())', check=False)
    found = {(value["path"]["epoch"], value["trust"]) for value in answer["values"]}
    # It ran, and changed the rate of what was trained afterwards.
    assert (0, "PROVEN") not in found
    assert {trust for epoch, trust in found if epoch} == {"DIVERGED"}


OTHERS = """
import torch
from loguru import logger as note
import structlog
torch.manual_seed(0)
out = structlog.get_logger()
model = torch.nn.Linear(2, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for epoch in range(3):
    loss = model(torch.ones(4, 2)).pow(2).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    note.info("loss {} in {e}", loss.item(), e=epoch)
    out.info("done", last=loss.item())
    # ADD
"""


def test_loguru_and_structlog_tell_values(tmp_path: Path) -> None:
    pytest.importorskip("loguru")
    pytest.importorskip("structlog")
    script, store = tmp_path / "train.py", tmp_path / "store"
    script.write_text(OTHERS)
    flor(store, "record", script)
    with florlog.open(store) as log:
        assert [len(log.run().values(name)) for name in ("loss", "e", "last")] == [3, 3, 3]
    script.write_text(
        OTHERS.replace("# ADD", 'out.warning("x", norm=model.weight.norm()); note.info("{b}", b=model.bias)')
    )
    done = subprocess.run(
        [sys.executable, "-m", "florlog", "replay", script, "--format", "json"],
        env=environment(store), cwd=tmp_path, capture_output=True, text=True, check=True,
    )  # fmt: skip
    values = json.loads(done.stdout)["values"]
    assert [value["name"] for value in values] == ["norm", "b"] * 3
    assert {value["trust"] for value in values} == {"PROVEN"}
    assert all(line.startswith(("florlog: ", "plan ", " ")) for line in done.stderr.splitlines()), done.stderr
