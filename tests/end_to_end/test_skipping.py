"""Loops on which nothing asked for depends are skipped; one that was skipped wrongly is found out and redone."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from .harness import Nursery, newest
from .programs import write
from .test_hindsight import instrumented

pytestmark = pytest.mark.drawn_in_file(4)

PROGRAM = """
import time

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import florlog


def evaluate(run, model, loader):
    MODE
    right, seen, shown = 0, 0, []
    with torch.no_grad():
        for x, y in run.loop("val", loader):
            scores = model(x)
            right += (scores.argmax(1) == y).sum().item()
            seen += len(y)
            shown.append(scores[0])
            SECRET
            time.sleep(0.01)
    model.train()
    FAIL
    return right / seen, torch.stack(shown)


def main():
    torch.manual_seed(3)
    x = torch.randn(64, 5)
    y = (x[:, 0] > 0).long()
    train = DataLoader(TensorDataset(x, y), batch_size=16, shuffle=True)
    val = DataLoader(TensorDataset(x, y), batch_size=16)
    model = nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.Linear(8, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    best = 0.0
    # BEFORE
    with florlog.run("skip", overhead=float("inf")) as run:
        run.track(model=model, optimizer=optimizer)
        for epoch in run.loop("epoch", range(3)):
            # TICK
            for bx, by in run.loop("step", train):
                loss = nn.functional.cross_entropy(model(bx), by)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                # STEP
                run.log(loss=loss)
            accuracy, shown = evaluate(run, model, val)
            largest = shown.max().item()
            best = max(best, accuracy)
            run.log(accuracy=accuracy, best=best, largest=largest)
            # EPOCH


main()
"""

MEAN = "model[1].running_mean.sum()"


@dataclass
class Asked:
    """What a replay answered, what it said, and what a full run gives."""

    answer: dict[str, Any]
    said: str
    truth: dict[Any, list[Any]]

    @property
    def skipped(self) -> int:
        """Loops that the plan skips."""
        redo = [item for segment in self.answer["plan"]["segments"] for item in segment["redo"]]
        return sum(item["part"] == "skipped" for item in redo)

    @property
    def labels(self) -> set[str]:
        """The values' labels, if all values are right."""
        for value in self.answer["values"]:
            assert self.truth[value["name"], tuple(value["path"].items())] == [value["value"]]
        return {value["trust"] for value in self.answer["values"]}


def ask(
    nursery: Nursery,
    directory: Path,
    added: str,
    *options: str,
    place: str = "STEP",
    mode: str = "model.eval()",
    secret: str = "pass",
    fail: str = "pass",
    images: bool = True,
    replay: Sequence[str | Path] = ("florlog", "replay"),
) -> Asked:
    """Record the program, and ask for a value by a ``replay`` command.

    ``images``: at every boundary, or at the start alone.
    """
    text = PROGRAM.replace("MODE", mode).replace("SECRET", secret).replace("FAIL", fail)
    if not images:  # none can be taken while what cannot be captured is carried
        text = text.replace("# BEFORE", "ticks = __import__('itertools').pairwise(range(99))").replace(
            "# TICK", "next(ticks)"
        )
    script = write(directory / "train.py", text)
    nursery.run(directory / "store", script)
    write(script, text.replace(f"# {place}", f"run.log(added={added})"))
    truth = instrumented(nursery, directory / "truth", script)
    command = (*replay, script, "--run", newest(directory / "store"), "--format", "json", *options)
    nursery.run(directory / "store", *command)
    output = (nursery.directory / "output.txt").read_text()
    answer = next(line for line in output.splitlines() if line.startswith("{"))
    return Asked(json.loads(answer), output.replace(answer, ""), truth)


def test_a_validation_loop_is_skipped_and_the_image_behind_it_confirms_that(
    nursery: Nursery, tmp_path: Path
) -> None:
    asked = ask(nursery, tmp_path, "model[0].weight.sum()", place="EPOCH")
    assert asked.skipped > 0
    assert asked.labels == {"PROVEN"}
    assert "skipped" not in asked.said


def test_what_fails_as_a_loop_was_skipped_is_redone_in_full(nursery: Nursery, tmp_path: Path) -> None:
    secret = "np.copyto(model[1].num_batches_tracked.numpy(), 99)"
    fail = "assert model[1].num_batches_tracked == 99"
    asked = ask(nursery, tmp_path, MEAN, "--where", "epoch == 2", secret=secret, fail=fail, images=False)
    assert asked.skipped == 2
    assert "the replayed script raised AssertionError" in asked.said
    assert "had been skipped: from there on all is redone in full" in asked.said
    assert asked.labels <= {"PROVEN", "CONSISTENT"}


def test_values_behind_a_skipped_loop_that_nothing_confirms_are_not_proven(
    nursery: Nursery, tmp_path: Path
) -> None:
    asked = ask(nursery, tmp_path, MEAN, "--where", "epoch == 2", images=False)
    assert asked.skipped == 2
    assert asked.labels == {"CONSISTENT"}


@pytest.mark.parametrize("place", ["accuracy", "best"])
def test_a_loop_that_makes_what_is_asked_for_is_not_skipped(
    place: str, nursery: Nursery, tmp_path: Path
) -> None:
    asked = ask(nursery, tmp_path, place, "--where", "epoch == 1", place="EPOCH", images=False)
    assert asked.skipped == 0
    assert asked.labels <= {"PROVEN", "CONSISTENT"}


@pytest.mark.parametrize(
    ("mode", "secret", "why"),
    [
        ("model.eval()", "torch.rand(1)", "it draws random numbers"),
        ("pass", "pass", "a model with buffers is in training mode"),
    ],
)
def test_a_loop_that_leaves_something_behind_is_run_after_all(
    mode: str, secret: str, why: str, nursery: Nursery, tmp_path: Path
) -> None:
    asked = ask(nursery, tmp_path, MEAN, "--where", "epoch == 2", mode=mode, secret=secret, images=False)
    assert asked.skipped == 2
    assert f"was run, not skipped: {why} (and 1 more)" in asked.said
    assert asked.labels <= {"PROVEN", "CONSISTENT"}


SECRET = "np.copyto(model[1].running_mean.numpy(), float(right))"  # no fingerprint of an iteration holds it


def test_what_a_skipped_loop_changed_in_secret_is_found_by_the_next_image_and_redone_in_full(
    nursery: Nursery, tmp_path: Path
) -> None:
    # Asked for behind the loop: no plan saves the code there by a restore, whatever that was measured to cost.
    asked = ask(nursery, tmp_path, MEAN, secret=SECRET, place="EPOCH")
    assert asked.skipped > 0
    assert "had been skipped: from there on all is redone in full" in asked.said
    assert asked.labels == {"PROVEN"}


def test_a_parameter_that_a_skipped_loop_changed_in_secret_is_found_by_fingerprints(
    nursery: Nursery, tmp_path: Path
) -> None:
    secret = "np.copyto(model[0].bias.detach().numpy()[:1], float(right))"
    asked = ask(nursery, tmp_path, MEAN, secret=secret, images=False)
    assert asked.skipped == 2
    assert "all is redone in full" in asked.said or "not skipped: it changes parameters" in asked.said
    assert asked.labels <= {"PROVEN", "CONSISTENT"}


def test_a_value_that_a_skipped_loop_changed_in_secret_is_never_proven(
    nursery: Nursery, tmp_path: Path
) -> None:
    asked = ask(nursery, tmp_path, MEAN, "--where", "epoch == 2", secret=SECRET, images=False)
    assert asked.skipped == 2
    assert {value["trust"] for value in asked.answer["values"]} == {"CONSISTENT"}
