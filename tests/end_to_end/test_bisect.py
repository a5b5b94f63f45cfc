"""The first place at which a condition holds: the same wherever images stand, with no more redo than is needed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from florlog_recovery import Condition, WhereError

import florlog
from florlog.commands import main

from .harness import Nursery
from .programs import write

pytestmark = pytest.mark.drawn_in_file(3)

PROGRAM = """
import sys
import time

import torch

import florlog

torch.manual_seed(2)
model = torch.nn.Linear(3, 3)
extra = torch.zeros(2)
with florlog.run("growing", overhead=float("inf")) as run:
    run.track(model=model, extra=extra)
    for epoch in run.loop("epoch", range(5)):
        run._states.policy.overhead = float("inf") if sys.argv[1] == "all" else 0.0  # where images are
        run._states.policy.restored(0.0)
        for step in run.loop("step", range(4)):
            if sys.argv[1] == "few" and step == 3 and epoch in (0, 2):
                run._states.policy.overhead = float("inf")  # one at the loop's end and before the next epoch
                run._states.policy.restored(0.0)
            with torch.no_grad():
                model.weight.mul_(1.3)
                model.bias[0] = float("nan") if (epoch, step) >= (3, 2) else 1.0
            extra[0] = 7.0 if (epoch, step) == (1, 1) else 0.0
            time.sleep(0.004)
            run.log(loss=float("inf") if (epoch, step) == (2, 1) else 1.0 / (1 + step))
        extra[1] = epoch
        run.log(accuracy=epoch / 10)
"""


@pytest.fixture(scope="module")
def stores(nursery: Nursery, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same training, with images at every boundary and at a few."""
    directory = tmp_path_factory.mktemp("bisect")
    script = write(directory / "train.py", PROGRAM)
    for images in ("all", "few"):
        nursery.run(directory / images, script, images)
    return {images: directory / images for images in ("all", "few")}


def bisect(store: Path, condition: str, *options: str, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """What the command prints."""
    script = store.parent / "train.py"
    words = ["bisect", "--store", str(store), str(script), "--first", condition, "--format", "json", *options]
    capsys.readouterr()
    code = main(words)
    printed = capsys.readouterr()
    assert code == 0, printed.err
    found: dict[str, Any] = json.loads(printed.out)
    return found


def place(epoch: int, step: int | None = None, at: str = "end") -> dict[str, Any]:
    path = {"epoch": epoch} if step is None else {"epoch": epoch, "step": step}
    return {"path": path, "at": at}


@pytest.mark.parametrize(
    ("condition", "expected", "options"),
    [
        ("not isfinite(state['model'])", place(3, 2), ("--monotone",)),
        ("not isfinite(state['model'])", place(3, 2), ()),
        ("state['extra'] > 5", None, ()),  # more than one number
        ("max(state['extra']) > 5", place(1, 1), ()),  # for one step only
        ("max(state['extra']) >= 2 and epoch > 1", place(2), ("--monotone",)),
        ("norm(state['model.weight']) < 0", {}, ()),
    ],
)
def test_a_condition_on_the_state_has_its_first_place_wherever_images_stand(
    stores: dict[str, Path],
    condition: str,
    expected: dict[str, Any] | None,
    options: tuple[str, ...],
    capsys: pytest.CaptureFixture[str],
) -> None:
    if expected is None:
        with pytest.raises(AssertionError, match="more than one number"):
            bisect(stores["few"], condition, capsys=capsys)
        return
    everywhere = bisect(stores["all"], condition, *options, capsys=capsys)
    few = bisect(stores["few"], condition, *options, capsys=capsys)
    assert everywhere["found"] == few["found"] == (expected or None)
    assert everywhere["values"] == few["values"]
    assert everywhere["iterations_redone"] == 0
    assert few["trust"] in ("PROVEN", "RECORDED")
    assert few["assumed_monotone"] == bool(options)
    if not expected:
        assert 18 <= few["iterations_redone"] <= 20  # two of which have an image at their end
    elif options:
        assert few["iterations_redone"] <= 4  # from the image before its epoch, and no further


def test_a_condition_on_values_is_answered_from_the_log(
    stores: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    for condition, expected in (
        ("not isfinite(loss)", place(2, 1)),
        ("epoch == 3 and loss < 0.3", place(3, 3)),
        ("accuracy > 0.15", place(2)),
        ("loss < 0", None),
    ):
        found = bisect(stores["few"], condition, capsys=capsys)
        assert found["found"] == expected
        assert (found["answered_from"], found["trust"], found["iterations_redone"]) == ("log", "RECORDED", 0)
        assert not expected or found["values"]


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        (
            "norm(state['model.weights']) > 1",
            "the state has no numbers under 'model.weights': it has model.weight",
        ),
        ("norm(state['modl']) > 1", "nothing is tracked as 'modl'"),
        ("isnan(state['model']) and loss > 1", "leave out loss"),
        ("lss > 1", "no loop or logged value is called 'lss'"),
        ("epoch > 1", "names no value"),
        ("norm(loss) > 1", "is not allowed in a condition"),
        ("state[epoch] > 1", "is not allowed in a condition"),
        ("__import__('os').system('true')", "is not allowed in a condition"),
    ],
)
def test_a_condition_that_cannot_be_used_is_answered_in_one_line(
    stores: dict[str, Path], condition: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    store = stores["all"]
    assert main(["bisect", "--store", str(store), str(store.parent / "train.py"), "--first", condition]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1


def test_states_are_no_names_where_a_condition_has_none() -> None:
    with pytest.raises(WhereError, match="no loop or logged value is called 'state'"):
        Condition("norm(state['model']) > 1", {"epoch"})


def test_the_text_tells_what_was_assumed(stores: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    script = str(stores["all"].parent / "train.py")
    words = ["bisect", "--store", str(stores["all"]), script, "--first", "isnan(state['model.bias'])"]
    assert main([*words, "--monotone"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("end of epoch=3, step=2: RECORDED (0 iterations redone, ")
    assert "assumed to go on holding, as --monotone says" in text
    assert "isnan(state['model.bias']) = True" in text
    with florlog.open(stores["all"]) as log:
        images = sum(len(loop.images) for loop in log.run().tree().loops())
    assert int(text.split(", ")[2].split()[0]) <= images.bit_length()
