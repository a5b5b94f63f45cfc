"""Validation code without florlog's loops is passed over if no requested value depends on it.

If that was wrong, everything is redone in full.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from .harness import Nursery, flor, newest
from .programs import write
from .test_hindsight import answers, ask, instrumented

pytestmark = pytest.mark.drawn_in_file(4)

PROGRAM = """
import sys
import time

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import florlog


@torch.no_grad()
def evaluate(model, batches):
    model.eval()
    right, seen = 0, 0
    for x, y in batches:
        right += (model(x).argmax(1) == y).sum().item()
        seen += len(y)
        # INSIDE
    time.sleep(0.04)  # a real one takes longer than a restore
    print("VALIDATED", file=sys.stderr)
    model.train()
    return right / seen


def main():
    torch.manual_seed(3)
    digits = load_digits()
    x, y = torch.tensor(digits.data / 16, dtype=torch.float32), torch.tensor(digits.target)
    train = DataLoader(TensorDataset(x[:256], y[:256]), batch_size=64, shuffle=True)
    val = DataLoader(TensorDataset(x[256:512], y[256:512]), batch_size=64, SHUFFLE)
    parts = list(zip(x[256:512].split(64), y[256:512].split(64)))
    model = nn.Sequential(nn.Linear(64, 32), nn.BatchNorm1d(32), nn.Dropout(0.2), nn.Linear(32, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    ticks = __import__('itertools').pairwise(range(99))
    with florlog.run("passing", overhead=float("inf")) as run:
        run.track(model=model, optimizer=optimizer)
        for epoch in run.loop("epoch", range(3)):
            next(ticks)
            for bx, by in run.loop("step", train):
                loss = nn.functional.cross_entropy(model(bx), by)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                # STEP
                run.log(loss=loss)
            accuracy = evaluate(model, val)
            run.log(accuracy=accuracy)
            # EPOCH


main()
"""
CALL = "accuracy = evaluate(model, val)"
LOGS = "run.log(accuracy=accuracy)"
SUM = "model[1].running_mean.sum()"


@dataclass
class Asked:
    """What a replay answered and said."""

    answer: dict[str, Any]
    said: str
    unheard: str  # what the replayed program said

    @property
    def validated(self) -> int:
        """How often the validation was run."""
        return self.unheard.count("VALIDATED")

    @property
    def skips(self) -> list[tuple[str, int]]:
        return [(skip["code"], skip["times"]) for skip in self.answer["plan"]["skips"]]

    @property
    def labels(self) -> set[str]:
        return {value["trust"] for value in self.answer["values"]}


@dataclass
class Laboratory:
    """Records the program and asks for values of it."""

    nursery: Nursery
    directory: Path

    def ask(
        self,
        *changes: tuple[str, str],
        place: str = "# STEP",
        added: str = SUM,
        where: str = "epoch == 2",
        images: bool = False,
        shuffle: bool = False,
        workers: int = 1,
    ) -> Asked:
        """Make ``changes`` to the program, record it and ask for a value; each answer must be a full run's value.

        ``images``: at every boundary; else only at the start, because a variable of the loop cannot be captured.
        """
        text = PROGRAM.replace("SHUFFLE", f"shuffle={shuffle}")
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        if images:
            text = text.replace("ticks = __import__('itertools').pairwise(range(99))", "").replace(
                "next(ticks)", "pass"
            )
        script, store = write(self.directory / "train.py", text), self.directory / "store"
        self.nursery.run(store, script)
        write(script, text.replace(place, f"florlog.log(added={added})"))
        truth = instrumented(self.nursery, self.directory / "truth", script)
        answer = ask(
            self.nursery,
            store,
            script,
            "--run",
            newest(store),
            "--where",
            where,
            "--analyze",
            "--workers",
            str(workers),
        )
        assert answer["values"]
        for key, values in answers(answer).items():
            assert truth[key] == values
        output = self.nursery.directory / "output.txt"
        return Asked(answer, output.read_text(), output.with_name("output.txt.unheard").read_text())


@pytest.fixture
def laboratory(nursery: Nursery, tmp_path: Path) -> Laboratory:
    return Laboratory(nursery, tmp_path)


@pytest.mark.drawn(1)
@pytest.mark.parametrize("call", [CALL, "accuracy = evaluate(model, parts)"])
def test_a_validation_function_is_passed_over(call: str, laboratory: Laboratory) -> None:
    asked = laboratory.ask((CALL, call))
    assert asked.skips == [(call, 2)]
    assert asked.validated == 0
    assert asked.labels == {"CONSISTENT"}  # no image confirms
    assert "florlog:" not in asked.said


def test_what_a_shuffled_loader_draws_is_drawn(laboratory: Laboratory) -> None:
    asked = laboratory.ask(shuffle=True)
    assert (asked.skips, asked.validated) == ([(CALL, 2)], 0)
    assert "florlog:" not in asked.said


def test_an_image_confirms_what_is_passed_over(laboratory: Laboratory) -> None:
    asked = laboratory.ask(place="# EPOCH", where="epoch >= 0", images=True)
    assert asked.skips == [(CALL, 3)]
    assert asked.validated == 0
    # No image comes after the last value.
    assert [value["trust"] for value in asked.answer["values"]] == ["PROVEN", "PROVEN", "CONSISTENT"]


def test_explain_names_what_is_passed_over(laboratory: Laboratory) -> None:
    laboratory.ask(where="epoch == 1")
    store, script = laboratory.directory / "store", laboratory.directory / "train.py"
    line = 1 + next(number for number, code in enumerate(script.read_text().splitlines()) if CALL in code)
    for where, named in (("epoch == 2", True), ("epoch == 0", False)):
        said = flor(store, "explain", script, "--run", newest(store), "--where", where).stdout
        assert (f"  skips {CALL} (train.py:{line}): nothing asked for depends on it\n" in said) is named


def test_several_processes_pass_over_as_one_does(laboratory: Laboratory) -> None:
    asked = laboratory.ask(where="epoch >= 1")
    store, script = laboratory.directory / "store", laboratory.directory / "train.py"
    write(script, script.read_text().replace("log(added=", "log(again="))
    answer = ask(
        laboratory.nursery, store, script, "--run", newest(store), "--where", "epoch >= 1", "--workers", "2"
    )
    assert [skip["code"] for skip in answer["plan"]["skips"]] == [CALL]
    assert [value["value"] for value in answer["values"]] == [
        value["value"] for value in asked.answer["values"]
    ]
    assert "VALIDATED" not in (laboratory.nursery.directory / "output.txt.unheard").read_text()


def test_what_a_validation_logged_itself_is_not_missed(laboratory: Laboratory) -> None:
    asked = laboratory.ask(("# INSIDE", "florlog.log(right=right)"))
    assert (asked.skips, asked.validated) == ([(CALL, 2)], 0)
    assert "florlog:" not in asked.said


LOOP = """right = 0
            model.eval()
            for vx, vy in BATCHES:
                right += (model(vx).argmax(1) == vy).sum().item()
                time.sleep(0.01)
                print("VALIDATED", file=sys.stderr)
            model.train()
            accuracy = right / 256"""


@pytest.mark.drawn(2)
@pytest.mark.parametrize("batches", ["parts", "val", "enumerate(val)"])
def test_a_plain_loop_is_passed_over(batches: str, laboratory: Laboratory) -> None:
    target = "_, (vx, vy)" if "enumerate" in batches else "vx, vy"
    asked = laboratory.ask((CALL, LOOP.replace("vx, vy", target).replace("BATCHES", batches)))
    assert asked.skips == [(f"for {target} in {batches}:", 2)]
    assert asked.validated == 0
    assert "florlog:" not in asked.said


def test_a_model_that_is_left_in_evaluation_mode_is_left_so(laboratory: Laboratory) -> None:
    asked = laboratory.ask(("    model.train()\n", ""))
    assert (asked.skips, asked.validated) == ([(CALL, 2)], 0)
    assert "florlog:" not in asked.said


@pytest.mark.drawn(2)
@pytest.mark.parametrize(
    "changes",
    [
        [("# EPOCH", "if accuracy > 2: break")],
        [("# INSIDE", "torch.multinomial(torch.ones(3), 1)")],
        [("# INSIDE", "np.random.rand()")],
        [("# EPOCH", "optimizer.param_groups[0]['lr'] *= accuracy")],
    ],
)
def test_a_validation_that_something_depends_on_is_run(
    changes: list[tuple[str, str]], laboratory: Laboratory
) -> None:
    asked = laboratory.ask(*changes)
    assert (asked.skips, asked.validated) == ([], 2)
    assert "florlog:" not in asked.said


def test_what_is_asked_for_inside_is_run(laboratory: Laboratory) -> None:
    asked = laboratory.ask(place="# INSIDE", added="right", where="epoch == 1")
    assert (asked.skips, asked.validated) == ([], 2)


def test_a_validation_in_training_mode_is_run_after_all(laboratory: Laboratory) -> None:
    asked = laboratory.ask(("    model.eval()\n", ""))
    assert (asked.skips, asked.validated) == ([(CALL, 0)], 2)
    assert (
        "was run, not skipped: a model that training changes is in training mode (and 1 more)" in asked.said
    )


def test_several_workers_count_together_how_often_they_passed_over_it(laboratory: Laboratory) -> None:
    asked = laboratory.ask(place="# EPOCH", where="epoch >= 0", images=True, workers=2)
    assert asked.skips == [(CALL, 3)]


@pytest.mark.drawn(1)
@pytest.mark.parametrize("place", ["# STEP", "# EPOCH"])
def test_random_numbers_that_analysis_does_not_see_are_found_by_fingerprints(
    place: str, laboratory: Laboratory
) -> None:
    draws = "nn.functional.dropout(x, 0.5)"
    asked = laboratory.ask(
        ("# INSIDE", draws), place=place, added="torch.initial_seed() + model[0].bias[0].item()"
    )
    assert asked.skips == [(CALL, 0)]  # nothing was skipped in the end
    assert asked.validated >= 2
    assert "random numbers differ at epoch=0" in asked.said
    assert "had been skipped: from there on all is redone in full" in asked.said
    assert asked.labels <= {"PROVEN", "CONSISTENT"}


def test_an_iteration_is_not_left_before_its_fingerprint_shows_random_numbers(
    laboratory: Laboratory,
) -> None:
    noise = "noise = torch.rand(1).item()\n            # EPOCH\n            print(noise)"
    draws = "nn.functional.dropout(x, 0.5)"
    asked = laboratory.ask(
        ("# INSIDE", draws), ("# EPOCH", noise), place="# EPOCH", added="noise", where="epoch == 0"
    )
    assert asked.skips == [(CALL, 0)]
    assert "random numbers differ at epoch=0" in asked.said
    assert asked.validated == 1


SECRET = "np.copyto(model[1].running_mean.numpy(), float(right))"  # no fingerprint of an iteration holds it


def test_what_was_changed_in_secret_is_found_by_the_next_image(laboratory: Laboratory) -> None:
    asked = laboratory.ask(("# INSIDE", SECRET), place="# EPOCH", where="epoch >= 0", images=True)
    assert asked.skips == [(CALL, 0)]
    assert "had been skipped: from there on all is redone in full" in asked.said
    assert asked.labels == {"PROVEN"}
