"""Loaders with worker processes: replays and resumes take from them what the recording took."""

from __future__ import annotations

from pathlib import Path

import pytest

import florlog

from .harness import Nursery
from .programs import write
from .test_hindsight import answers, ask, instrumented

pytestmark = pytest.mark.drawn_in_file(2)

TRAINING = """
import os

import torch
from torch.utils.data import DataLoader, TensorDataset

import florlog


class Noisy(TensorDataset):
    def __getitem__(self, index):
        x, y = super().__getitem__(index)
        return x + 0.1 * torch.DRAW(8), y


def main():
    torch.manual_seed(0)
    inputs, model = torch.randn(48, 8), torch.nn.Linear(8, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    data = Noisy(inputs, inputs.sum(1))
    loader = DataLoader(data, batch_size=8, shuffle=True, num_workers=2, persistent_workers=PERSISTENT)
    with florlog.run("workers", resume="auto", overhead=float("inf")) as run:
        run.track(model=model, optimizer=optimizer)
        for epoch in run.loop("epoch", range(3)):
            for step, (x, y) in LOOP:
                loss = (model(x).squeeze(1) - y).square().mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                run.log(loss=loss.item())
                # ADD
                if os.environ.get("FLORLOG_TEST_KILL") == f"{epoch} {step}":
                    os.kill(os.getpid(), 9)


if __name__ == "__main__":
    main()
"""
ADDED = "run.log(norm=model.weight.grad.norm())"


def training(*, persistent: bool, random: bool, inside: bool) -> str:
    loop = 'run.loop("step", enumerate(loader))' if inside else 'enumerate(run.loop("step", loader))'
    text = TRAINING.replace("LOOP", loop).replace("PERSISTENT", str(persistent))
    return text.replace("DRAW", "randn" if random else "zeros")


@pytest.mark.drawn(2)
@pytest.mark.parametrize(
    ("persistent", "random", "inside"),
    [(False, True, True), (True, False, True), (True, False, False), (True, True, False)],
)
def test_a_replay_takes_the_recorded_batches(
    persistent: bool, random: bool, inside: bool, nursery: Nursery, tmp_path: Path
) -> None:
    text = training(persistent=persistent, random=random, inside=inside)
    script, store = write(tmp_path / "train.py", text), tmp_path / "store"
    nursery.run(store, script)
    write(script, text.replace("# ADD", ADDED))
    truth = instrumented(nursery, tmp_path / "truth", script)
    for where in ("epoch == 1 and step == 4", "epoch == 2 and step == 1"):
        answer = ask(nursery, store, script, "--where", where)
        assert {value["trust"] for value in answer["values"]} == {"PROVEN"}
        assert all(truth[key] == values for key, values in answers(answer).items())
        assert answer["plan"]["iterations_redone"] <= 2


@pytest.mark.drawn(2)
@pytest.mark.parametrize("inside", [True, False])
@pytest.mark.parametrize("persistent", [True, False])
def test_a_resume_goes_on_with_the_batches_that_were_due(
    persistent: bool, inside: bool, nursery: Nursery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = training(persistent=persistent, random=not persistent, inside=inside)
    script, whole = write(tmp_path / "train.py", text), tmp_path / "whole"
    nursery.run(whole, script)
    with florlog.open(whole) as log:
        expected = log.values("loss")["loss"].tolist()
    for place in ("0 5", "1 2"):
        killed, store = tmp_path / "killed.py", tmp_path / place
        write(
            killed, text.replace('os.environ.get("FLORLOG_TEST_KILL")', f'os.environ.get("ALIVE", {place!r})')
        )
        assert nursery.run(store, killed)[0]
        write(killed, text)
        nursery.run(store, killed)
        with florlog.open(store) as log:
            assert log.values("loss")["loss"].tolist() == expected


def test_workers_that_stay_are_brought_to_where_they_were_in_later_passes(
    nursery: Nursery, tmp_path: Path
) -> None:
    text = training(persistent=True, random=True, inside=False)
    script, store = tmp_path / "train.py", tmp_path / "store"
    write(script, text.replace('os.environ.get("FLORLOG_TEST_KILL")', '"2 4"'))
    assert nursery.run(store, script)[0]
    write(script, text)
    nursery.run(store, script)
    said = (nursery.directory / "output.txt").read_text()
    assert "resumed from epoch=1" in said or "resumed from epoch=2" in said
    assert "all equal to the recording" in said
