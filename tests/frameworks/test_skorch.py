"""skorch: its epochs and batches are recorded, killed runs go on bit-exactly, statements are asked afterwards."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.harness import Nursery
from tests.frameworks.programs import SKORCH
from tests.frameworks.recorded import Training, left_in, of_another_version, rows

pytest.importorskip("torch")
pytest.importorskip("skorch")

ADDED = {
    "get_loss": (
        "        loss = super().get_loss(y_pred, y_true, X=X, training=training)",
        "loss.item(), len(self.history), training",
    ),
    "callback": (
        "        self.batches += training",
        'self.batches, net.optimizer_.param_groups[0]["lr"], net.history[-1]["epoch"]',
    ),
    "forward": (
        "        hidden = self.drop(torch.relu(self.first(X)))",
        "hidden.sum().item(), self.training",
    ),
}
"""Where a statement is added: after a line of the program, and what it prints."""


def ended(directory: Path) -> Any:
    """What a training has left: its history without times, and its weights, bit for bit."""
    history, weights, rest = left_in(directory)
    return [{**row, "dur": 0} for row in history], weights, rest


@pytest.fixture(scope="module")
def training(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Training]:
    nursery = Nursery(tmp_path_factory.mktemp("nursery"), "skorch")
    made = Training(nursery, SKORCH, tmp_path_factory.mktemp("recorded"), ended)
    made.record()
    yield made
    nursery.close()


def test_its_loops_are_named_and_the_training_is_not_changed(training: Training) -> None:
    assert training.is_as_python_left_it(training.directory / "recorded")
    assert re.search(r"loops: epoch \(net.py:\d+\), batch \(net.py:\d+\)$", training.said[2])
    assert "tracked: module_, optimizer_" in training.said[3]


@pytest.mark.crash
@pytest.mark.drawn(1)
@pytest.mark.parametrize("case", range(20))
def test_killed_at_any_instant_it_goes_on_bit_exactly(training: Training, tmp_path: Path, case: int) -> None:
    out = training.kill_and_resume(tmp_path, case, seconds=(0.5, 1.2), dense=(0.7, 3.0))
    assert training.is_as_python_left_it(out)


@pytest.mark.long
@pytest.mark.crash
@pytest.mark.parametrize("forgotten", [None, "batches", "last_epoch"])
def test_a_number_that_images_forget_is_noticed(
    training: Training, tmp_path: Path, forgotten: str | None
) -> None:
    died = "        self.batches += training", "self.batches == 15"
    assert training.notices_forgotten(tmp_path, died, forgotten) is (forgotten is not None)


@pytest.mark.long
@pytest.mark.parametrize("place", ADDED)
def test_a_statement_is_asked_afterwards(training: Training, tmp_path: Path, place: str) -> None:
    one, every, printed = training.ask(tmp_path, ADDED[place], "epoch == 2 and batch == 3")
    assert one["plan"]["iterations_redone"] == 1
    assert {value["trust"] for value in [*one["values"], *every["values"]]} == {"PROVEN"}
    assert rows(every["values"]) == printed
    at = [
        value for value in every["values"] if (value["path"]["epoch"], value["path"].get("batch")) == (2, 3)
    ]
    assert rows(one["values"]) == rows(at)


def test_in_an_unknown_version_a_line_says_how_its_loops_are_recorded(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from florlog.programs import adoption

    assert [adopted.module for adopted in adoption.adoptions([SKORCH]).modules.values()] == ["skorch.net"]
    assert adoption.adoptions(["from skorch.helper import predefined_split"]) == adoption.Adoptions({}, {})
    monkeypatch.setattr(adoption, "MANIFESTS", of_another_version())
    file = adoption._file_of("skorch.net")
    assert file is not None
    assert adoption.adoptions([SKORCH], [file]) == adoption.Adoptions({}, {})
    assert capsys.readouterr().err == ""
    assert not adoption.adoptions([SKORCH]).modules
    assert "is not known (known: 9.9.9): its loops are recorded by its hooks" in capsys.readouterr().err
