"""Keras on torch: its loops are recorded, killed runs go on bit-exactly, statements are asked afterwards."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.harness import Nursery
from tests.frameworks.programs import KERAS
from tests.frameworks.recorded import Training, left_in, of_another_version, rows

pytest.importorskip("torch")
if importlib.util.find_spec("keras") is None:  # it is not imported here, before its backend is chosen
    pytest.skip("Keras is not installed", allow_module_level=True)

ADDED = {
    "train_step": (
        "        logs = super().train_step(data)",
        'float(logs["loss"]), float(self.optimizer.learning_rate), int(self.optimizer.iterations.value)',
    ),
    "callback": (
        "        self.batches += 1",
        'self.batches, float(logs["accuracy"])',
    ),
    "call": (
        "        hidden = self.drop(self.norm(self.first(x), training=training), training=training)",
        "hidden.sum().item(), training, self.norm.moving_mean.value.sum().item()",
    ),
}
"""Where a statement is added: after a line of the program, and what it prints."""


def ended(directory: Path) -> Any:
    """What a training has left: its history, and its weights, bit for bit."""
    return left_in(directory)


@pytest.fixture(scope="module")
def training(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Training]:
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("KERAS_BACKEND", "torch")  # the nursery imports it before the program says so
        nursery = Nursery(tmp_path_factory.mktemp("nursery"), "keras")
    made = Training(nursery, KERAS, tmp_path_factory.mktemp("recorded"), ended)
    made.record()
    yield made
    nursery.close()


@pytest.mark.long
def test_its_loops_are_named_and_the_training_is_not_changed(training: Training) -> None:
    assert training.is_as_python_left_it(training.directory / "recorded")
    assert re.search(
        r"loops: epoch \(trainer.py:\d+\), step \(trainer.py:\d+\), val \(trainer.py:\d+\)$", training.said[2]
    )
    assert "tracked: model" in training.said[3]


@pytest.mark.long
@pytest.mark.crash
@pytest.mark.parametrize("case", range(20))
def test_killed_at_any_instant_it_goes_on_bit_exactly(training: Training, tmp_path: Path, case: int) -> None:
    out = training.kill_and_resume(tmp_path, case, seconds=(0.5, 1.2), dense=(0.7, 3.0))
    assert training.is_as_python_left_it(out)


@pytest.mark.long
@pytest.mark.crash
@pytest.mark.parametrize("forgotten", [None, "batches"])
def test_a_number_that_images_forget_is_noticed(
    training: Training, tmp_path: Path, forgotten: str | None
) -> None:
    died = "        self.batches += 1", "self.batches == 14"
    assert training.notices_forgotten(tmp_path, died, forgotten) is (forgotten is not None)


@pytest.mark.long
@pytest.mark.parametrize("place", ADDED)
def test_a_statement_is_asked_afterwards(training: Training, tmp_path: Path, place: str) -> None:
    one, every, printed = training.ask(tmp_path, ADDED[place], "epoch == 2 and step == 3")
    assert one["plan"]["iterations_redone"] == 1
    # A subclassed model is called before the first loop, to be built, with memory that may hold anything.
    in_loops = [value for value in every["values"] if value["path"]]
    assert {value["trust"] for value in [*one["values"], *in_loops]} == {"PROVEN"}
    assert rows(in_loops) == printed[-len(rows(in_loops)) :]
    at = [
        value
        for value in every["values"]
        if (value["path"].get("epoch"), value["path"].get("step")) == (2, 3)
    ]
    assert rows(one["values"]) == rows(at)


def test_in_an_unknown_version_a_line_says_how_its_loops_are_recorded(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from florlog.programs import adoption

    assert [adopted.module for adopted in adoption.adoptions([KERAS]).modules.values()] == [
        "keras.src.backend.torch.trainer"
    ]
    assert adoption.adoptions(["from keras import ops"]) == adoption.Adoptions({}, {})
    monkeypatch.setattr(adoption, "MANIFESTS", of_another_version())
    assert not adoption.adoptions([KERAS]).modules
    assert "is not known (known: 9.9.9): its loops are recorded by its hooks" in capsys.readouterr().err
