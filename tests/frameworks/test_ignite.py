"""pytorch-ignite: its engines' loops are recorded, killed runs go on bit-exactly, statements are asked afterwards."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.harness import Nursery
from tests.frameworks.programs import IGNITE
from tests.frameworks.recorded import Training, left_in, of_another_version, rows

pytest.importorskip("torch")
pytest.importorskip("ignite")

ADDED = {
    "step": (
        "        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)",
        'loss.item(), engine.state.iteration, optimizer.param_groups[0]["lr"]',
    ),
    "handler": (
        "        state = engine.state",
        'engine.state.epoch, engine.state.metrics["running"], len(log)',
    ),
    "forward": (
        "        hidden = self.drop(torch.relu(self.first(x)))",
        "hidden.sum().item(), self.training",
    ),
}
"""Where a statement is added: after a line of the program, and what it prints."""


def ended(directory: Path) -> Any:
    """What a training has left: what its handlers noted, the engine's state, and its weights, bit for bit."""
    return left_in(directory)


@pytest.fixture(scope="module")
def training(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Training]:
    nursery = Nursery(
        tmp_path_factory.mktemp("nursery"), "ignite.engine", "ignite.handlers", "ignite.metrics"
    )
    made = Training(nursery, IGNITE, tmp_path_factory.mktemp("recorded"), ended)
    made.record()
    yield made
    nursery.close()


@pytest.mark.long
def test_its_loops_are_named_and_the_training_is_not_changed(training: Training) -> None:
    assert training.is_as_python_left_it(training.directory / "recorded")
    assert re.search(r"loops: epoch \(engine.py:\d+\), step \(engine.py:\d+\)$", training.said[2])
    assert "tracked: model, optimizer" in training.said[3]


@pytest.mark.long
@pytest.mark.crash
@pytest.mark.parametrize("case", range(20))
def test_killed_at_any_instant_it_goes_on_bit_exactly(training: Training, tmp_path: Path, case: int) -> None:
    out = training.kill_and_resume(tmp_path, case, seconds=(0.5, 1.2), dense=(0.7, 3.0))
    assert training.is_as_python_left_it(out)


@pytest.mark.long
@pytest.mark.crash
@pytest.mark.parametrize("forgotten", [None, "iteration", "best_score", "event_index", "_num_examples"])
def test_a_number_that_images_forget_is_noticed(
    training: Training, tmp_path: Path, forgotten: str | None
) -> None:
    died = "        state = engine.state", "engine.state.iteration == 15"
    assert training.notices_forgotten(tmp_path, died, forgotten) is (forgotten is not None)


@pytest.mark.long
@pytest.mark.parametrize("place", ADDED)
def test_a_statement_is_asked_afterwards(training: Training, tmp_path: Path, place: str) -> None:
    one, every, printed = training.ask(tmp_path, ADDED[place], "epoch == 2 and step == 3")
    assert one["plan"]["iterations_redone"] == 1
    assert {value["trust"] for value in [*one["values"], *every["values"]]} == {"PROVEN"}
    assert rows(every["values"]) == printed
    at = [value for value in every["values"] if (value["path"]["epoch"], value["path"].get("step")) == (2, 3)]
    assert rows(one["values"]) == rows(at)


def test_in_an_unknown_version_a_line_says_how_its_loops_are_recorded(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from florlog.programs import adoption

    assert [adopted.module for adopted in adoption.adoptions([IGNITE]).modules.values()] == [
        "ignite.engine.engine"
    ]
    assert adoption.adoptions(["from ignite.metrics import Accuracy"]) == adoption.Adoptions({}, {})
    monkeypatch.setattr(adoption, "MANIFESTS", of_another_version())
    assert not adoption.adoptions([IGNITE]).modules
    assert "is not known (known: 9.9.9): its loops are recorded by its hooks" in capsys.readouterr().err


def test_a_framework_that_cannot_be_recorded_is_refused_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    from florlog.programs import adoption

    assert adoption.adoptions(
        ["from fastai.basics import *\n\nLearner(dls, model).fit(1)"]
    ) == adoption.Adoptions({}, {})
    assert "the loops of fastai are not recorded: its Learner holds" in capsys.readouterr().err


def test_a_class_that_a_call_makes_in_another_class_is_found_again() -> None:
    from florlog.state.heap.names import constant, constant_name

    item = pytest.importorskip("ignite.handlers").Checkpoint.Item
    assert constant(constant_name(item)) is item
