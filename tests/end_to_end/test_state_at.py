"""The state at any boundary is the one that the training had there, wherever images stand and whatever became of the
script since."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

import florlog
from florlog.state.tree import flatten

from .harness import Nursery, flor
from .programs import write

pytestmark = pytest.mark.drawn_in_file(2)

NOTING = """
import os
import random
import time

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import florlog

noted = {}  # what the program itself says that its states are


def note(place, **tracked):
    if "NOTES" in os.environ:
        kept = {
            name: dict(thing.state_dict()) if hasattr(thing, "state_dict") else thing
            for name, thing in tracked.items()
        }
        noted[place] = __import__("copy").deepcopy(kept)
"""

PROGRAM = (
    NOTING
    + """

def main():
    torch.manual_seed(5)
    random.seed(6)
    x = torch.randn(40, 4)
    loader = DataLoader(TensorDataset(x, x.sum(1)), batch_size=8, shuffle=True)
    model = nn.Sequential(nn.Linear(4, 6), nn.Dropout(0.3), nn.Linear(6, 1))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    average = torch.zeros(6, 4)
    state = {"model": model, "optimizer": optimizer, "average": average}
    with florlog.run("noting", overhead=float("inf")) as run:
        run.track(**state)
        for epoch in run.loop("epoch", range(4)):
            run._states.policy.overhead = float("inf") if epoch == 2 else 0.0  # where images are
            run._states.policy.restored(0.0)  # it decides anew
            note(("epoch", epoch), **state)
            average.mul_(0.5)
            for step, (bx, by) in enumerate(run.loop("step", loader)):
                note(("epoch", epoch, "step", step), **state)
                if epoch == 3 and step == 3:
                    break
                loss = (model(bx).squeeze(1) - by).square().mean()
                optimizer.zero_grad()
                loss.backward()
                for part in run.loop("part", range(2)):
                    note(("epoch", epoch, "step", step, "part", part), **state)
                    average += model[0].weight.detach() / 8
                    note(("epoch", epoch, "step", step, "part", part, "end"), **state)
                optimizer.step()
                average += random.random()
                time.sleep(0.004)
                run.log(loss=loss)
                note(("epoch", epoch, "step", step, "end"), **state)
            if epoch == 3:
                note(("epoch", 3, "step", 3, "end"), **state)
            tries = 0
            while tries < 2 + epoch % 2:
                with run.iteration("try", tries):
                    note(("epoch", epoch, "try", tries), **state)
                    if tries:
                        note(("epoch", epoch, "try", tries - 1, "end"), **state)
                    average += torch.rand(6, 4)
                    tries += 1
                    last = ("epoch", epoch, "try", tries - 1, "end")
                    note(last, **state)
                average *= 0.9  # behind the iteration, before the next
            optimizer.param_groups[0]["lr"] *= 0.9
            note(("epoch", epoch, "end"), **state)
    if "NOTES" in os.environ:
        torch.save(noted, os.environ["NOTES"])


main()
"""
)

HANDS_FREE = (
    NOTING.replace("import florlog\n", "")
    + """
torch.manual_seed(1)
model = nn.Linear(3, 2)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
epoch = 0
while epoch < 3:
    for step in range(5):
        note(("epoch", epoch, "step", step), model=model, optimizer=optimizer)
        loss = model(torch.randn(6, 3)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        print("loss", loss.item())
        note(("epoch", epoch, "step", step, "end"), model=model, optimizer=optimizer)
        time.sleep(0.004)
    epoch += 1
if "NOTES" in os.environ:
    torch.save(noted, os.environ["NOTES"])
"""
)

Place = tuple[Any, ...]


@dataclass
class Kept:
    """A recording whose script is gone, and the states that an instrumented run of it wrote out."""

    store: Path
    notes: dict[Place, dict[str, Any]] = field(repr=False)


@pytest.fixture(scope="module")
def kept(nursery: Nursery, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Kept]:
    made = {}
    for name, text, record in (
        ("program", PROGRAM, ()),
        ("hands free", HANDS_FREE, ("florlog", "record")),
    ):
        directory = tmp_path_factory.mktemp("kept")
        script = write(directory / "train.py", text)
        nursery.run(directory / "store", *record, script)
        noting = f"import os\nos.environ['NOTES'] = {str(directory / 'notes.pt')!r}\n"
        script.write_text(noting + text)
        nursery.run(directory / "noted", *record, script)
        script.write_text("raise SystemExit('this is not the script that was recorded')\n")
        made[name] = Kept(directory / "store", torch.load(directory / "notes.pt", weights_only=True))
    return made


def same(found: Any, expected: Any) -> bool:
    """Whether two states are equal bit for bit."""
    found, expected = dict(sorted(found.items())), dict(sorted(expected.items()))
    (mine, tensors), (theirs, others) = flatten(found, ""), flatten(expected, "")
    return mine == theirs and all(
        name == other and torch.equal(a.view(torch.uint8), b.view(torch.uint8))
        for (name, a), (other, b) in zip(
            [(n, t.reshape(-1)) for n, t in tensors], [(n, t.reshape(-1)) for n, t in others], strict=True
        )
    )


def asked(place: Place) -> dict[str, Any]:
    """A noted place as `state_at` takes it."""
    at = {"at": "end"} if place[-1] == "end" else {}
    names = place[: len(place) // 2 * 2]
    return {**dict(zip(names[::2], names[1::2], strict=True)), **at}


@settings(
    max_examples=4,
    deadline=None,
    phases=(Phase.explicit, Phase.generate),  # an example is a process
    suppress_health_check=list(HealthCheck),
)
@given(st.randoms(use_true_random=True))
@example(("epoch", 3, "step", 3, "end"))  # left by break
@example(("epoch", 0, "step", 4, "part", 1, "end"))
@example(("epoch", 3, "try", 2, "end"))  # behind the last pass of a while-loop
@example(("epoch", 3, "end"))
def test_the_state_at_any_place_is_what_the_program_itself_says(kept: dict[str, Kept], choice: Any) -> None:
    notes = kept["program"].notes
    place = choice if isinstance(choice, tuple) else choice.choice(sorted(notes, key=repr))
    with florlog.open(kept["program"].store) as log:
        state = log.state_at(**asked(place))
    assert same(state, notes[place]), place
    # The program looks into its environment: behind its last commit nothing tells that this was as it had been.
    behind_a_commit = place[-1] != 0 or len(place) == 2
    assert state.trust in ("PROVEN", "RECORDED") or not behind_a_commit, (place, state.detail)


def test_a_hands_free_recording_whose_script_is_gone_gives_its_states(kept: dict[str, Kept]) -> None:
    with florlog.open(kept["hands free"].store) as log:
        place = ("epoch", 1, "step", 4, "end")
        state = log.state_at(**asked(place))
        assert same(state, kept["hands free"].notes[place])
        assert state.trust in ("PROVEN", "RECORDED")


def test_redo_starts_at_the_nearest_image_and_ends_at_the_boundary(kept: dict[str, Kept]) -> None:
    with florlog.open(kept["program"].store) as log:
        tree = log.run().tree()
        assert set(tree.root.loops[0].images) >= {0, 3}
        assert log.state_at(epoch=2, step=1).trust == "RECORDED"
        # From the image before epoch 3: two steps of two parts each, and no step behind them.
        state = log.state_at(epoch=3, step=2)
        assert state.trust == "PROVEN"
        assert state.redone == 4


STOPPING = """
import os
import subprocess
import sys

import torch

import florlog

torch.manual_seed(0)
model = torch.nn.Linear(2, 2)


def tell(what):  # by another program: those are not kept from the file system
    subprocess.run(["touch", what], check=True)


try:
    with florlog.run("stopping", overhead=0) as run:
        run.track(model=model)
        for step in run.loop("step", range(6)):
            tell(f"at{step}")
            with torch.no_grad():
                model.weight += float(open("data.txt").read())
            run.log(norm=model.weight.norm())
            if step == 4:
                raise ValueError("so it goes")
finally:
    tell("finally")
"""


@pytest.fixture
def stopping(nursery: Nursery, tmp_path: Path) -> Path:
    """A store beside which lies what the script did last."""
    (tmp_path / "data.txt").write_text("1.5")
    nursery.run(tmp_path / "store", write(tmp_path / "train.py", STOPPING), code=1)
    for told in [*tmp_path.glob("at*"), tmp_path / "finally"]:
        told.unlink()
    return tmp_path


def test_nothing_behind_the_boundary_is_executed(stopping: Path) -> None:
    with florlog.open(stopping / "store") as log:
        state = log.state_at(step=3)
        assert state.redone == 3
        assert sorted(path.name for path in stopping.glob("at*")) == ["at0", "at1", "at2"]
        assert not (stopping / "finally").exists()
        # Without overhead, only a loop's ends have fingerprints.
        assert state.trust == "CONSISTENT"
        assert "sampled parameters" in state.detail
        # The iteration that raised has a start, and no end.
        failed = log.state_at(step=4)["model"]["weight"]
        assert torch.equal(failed, state["model"]["weight"] + 1.5)
        with pytest.raises(florlog.FlorlogError, match="no iteration step=4; loop step has 4 there"):
            log.state_at(step=4, at="end")


def test_a_state_that_is_not_the_recorded_one_is_never_given(stopping: Path) -> None:
    (stopping / "data.txt").write_text("2.5")
    file = stopping / "state.safetensors"
    done = flor(stopping / "store", "export", "state", "--at", "step=3", "-o", file, check=False)
    assert done.returncode == 1
    assert re.search(
        r"^florlog: norm \(line 24\) was .* at step=0, and is .* now$", done.stderr, re.MULTILINE
    )
    assert not file.exists()
    # The first difference ends it.
    assert [path.name for path in stopping.glob("at*")] == ["at0"]
    with florlog.open(stopping / "store") as log, pytest.raises(florlog.DivergedError, match="at step=0"):
        log.state_at(step=1)


def test_a_place_that_the_run_does_not_have_is_answered_in_one_line(kept: dict[str, Kept]) -> None:
    with florlog.open(kept["program"].store) as log:
        for path, text in (
            ({"epoch": 4}, "no iteration epoch=4; loop epoch has 4 there"),
            ({"epoch": -1}, "no iteration epoch=-1"),
            ({"step": 0}, "no iteration step=0"),
            ({"epoch": 1, "step": 0, "step2": 1}, "no iteration epoch=1, step=0, step2=1"),
            ({}, "state_at needs an iteration"),
        ):
            with pytest.raises(florlog.FlorlogError, match=text):
                log.state_at(**path)
        with pytest.raises(florlog.FlorlogError, match='at is "start" or "end"'):
            log.state_at(at="middle", epoch=1)  # type: ignore[arg-type]
