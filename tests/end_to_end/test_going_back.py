"""Where an image cannot be restored, or what follows it differs, an earlier one is used: in resumes and in replays."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from florlog_wal import verify

import florlog
from tests.run_directories import run_directory

from .harness import Logged, Nursery, flor, logged, python, replay, truth
from .programs import write

pytestmark = pytest.mark.drawn_in_file(2)

Killed = Callable[[str], tuple[Path, Path, list[Logged]]]
"""Makes, for a kind of training, its script, the store of a killed run, and what the uninterrupted one logs."""

TRAINING = """
import ctypes
import os
import signal
import sys
import time
from pathlib import Path

import torch

import florlog

KIND = sys.argv[1]
COUNT = ctypes.c_int(0)  # what C holds, no image has
torch.manual_seed(3)


class Counter:
    def __init__(self):
        self.count = 0

    def state_dict(self):
        return {"count": self.count}

    def load_state_dict(self, state):
        if KIND == "last" and state["count"] == 4:
            raise RuntimeError("4 is too much")
        if KIND == "all":
            raise TypeError("nothing can be counted")
        if KIND == "killed" and not Path("died").exists():
            Path("died").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if KIND == "killed":
            raise RuntimeError("not after that")
        self.count = state["count"]


model = torch.nn.Linear(4, 4)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
counter = Counter()
with florlog.run("going", overhead=float("inf"), resume=sys.argv[3]) as run:
    run.track(model=model, optimizer=optimizer, counter=counter)
    try:
        for epoch in run.loop("epoch", range(7)):
            COUNT.value += 1
            loss = model(torch.randn(8, 4)).square().mean()
            if KIND == "hidden":
                loss = loss * COUNT.value
            if KIND == "clock":
                loss = loss * (1 + time.time() % 1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            counter.count += 1
            run.log(loss=loss)
            # ADD
            time.sleep(0.1)  # until the image is in the log
            if sys.argv[2] == "dies" and epoch == 5:
                os.kill(os.getpid(), signal.SIGKILL)
    except Exception as error:
        raise ValueError("the training failed") from error
    run.log(norm=model.weight.norm())
"""


@pytest.fixture
def killed(nursery: Nursery, tmp_path: Path) -> Killed:
    def made(kind: str) -> tuple[Path, Path, list[Logged]]:
        script, store = write(tmp_path / "train.py", TRAINING), tmp_path / "store"
        nursery.run(tmp_path / "whole", script, kind, "lives", "never")
        assert nursery.run(store, script, kind, "dies", "never")[0]
        return script, store, logged(tmp_path / "whole")

    return made


def resumed(store: Path, script: Path, kind: str, *options: str, code: int = 0) -> list[str]:
    """What a resume says, a line each."""
    done = flor(store, "resume", script, *options, "--", kind, "lives", "never", check=False)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    lines = [line.removeprefix("florlog: ") for line in done.stderr.splitlines()]
    return [line for line in lines if not line.startswith("images may take")]


@pytest.mark.drawn(1)
@pytest.mark.parametrize("kind", ["plain", "last"])
def test_where_the_newest_image_cannot_be_restored_the_resume_starts_from_an_earlier_one(
    kind: str, killed: Killed
) -> None:
    script, store, expected = killed(kind)
    *back, at_last = resumed(store, script, kind)[1:]
    unusable = "the image at epoch=4 cannot be restored (counter: 4 is too much): an earlier one is used"
    assert back == ([unusable] if kind == "last" else [])
    found = re.fullmatch(
        r"resumed from epoch=(\d) after re-executing (\d) iterations?, all equal to the recording", at_last
    )
    assert found is not None, at_last
    assert int(found[1]) + int(found[2]) == 5
    assert int(found[1]) < (4 if kind == "last" else 5)
    assert logged(store) == expected
    assert verify(run_directory(store)).ok


@pytest.mark.long
def test_where_no_image_can_be_restored_all_is_redone_after_a_few_attempts(killed: Killed) -> None:
    script, store, expected = killed("all")
    *back, at_last = resumed(store, script, "all")[1:]
    assert 2 <= len(back) <= 4
    assert all("cannot be restored (counter: nothing can be counted)" in line for line in back)
    assert back[-1].endswith("all is redone from the run's start, without an image")
    assert at_last == "resumed from its beginning after re-executing 5 iterations, all equal to the recording"
    assert logged(store) == expected


def test_state_that_no_image_has_is_noticed_before_anything_is_recorded(killed: Killed) -> None:
    script, store, expected = killed("hidden")
    *back, at_last = resumed(store, script, "hidden")[1:]
    assert back
    assert all("the run differs (" in line for line in back)
    assert at_last == "resumed from epoch=0 after re-executing 5 iterations, all equal to the recording"
    assert logged(store) == expected


def test_a_run_that_differs_from_its_beginning_is_refused_and_goes_on_by_force_alone(killed: Killed) -> None:
    script, store, _ = killed("clock")
    before = logged(store)
    said = resumed(store, script, "clock", code=1)
    refused = "cannot be resumed: executed again from its beginning it differs from the recording (sampled parameters"
    assert refused in said[-1]
    assert "at epoch=0" in said[-1]
    assert logged(store) == before
    with florlog.open(store) as log:
        assert log.run().tree().status == "crashed"
        assert not log.run().tree().problems
    (row,) = json.loads(flor(store, "runs", "--format", "json").stdout)
    assert row["forced"] == ""

    said = resumed(store, script, "clock", "--force")
    assert "by force, though the run differs: sampled parameters" in said[-1]
    assert logged(store)[: len(before)] == before
    assert len(logged(store)) == 8
    (row,) = json.loads(flor(store, "runs", "--format", "json").stdout)
    assert row["status"] == "complete"
    assert row["forced"].startswith("sampled parameters")
    assert "forced" in flor(store, "runs").stdout
    assert "resumed by force" in flor(store, "inspect", "tree", row["run"]).stdout


@pytest.mark.long
@pytest.mark.parametrize(("kind", "runs"), [("last", 1), ("clock", 2)])
def test_with_auto_a_script_goes_back_by_itself_and_begins_a_new_run_where_it_cannot_be_resumed(
    kind: str, runs: int, killed: Killed
) -> None:
    script, store, expected = killed(kind)
    before = logged(store)
    done = python(store, script, kind, "lives", "auto")
    with florlog.open(store) as log:
        assert len(log.runs) == runs
        assert log.run().tree().status == "complete"
        assert log.runs[0].tree().status == ("complete" if runs == 1 else "crashed")
        assert len(list(log.runs[0].logged())) == (8 if runs == 1 else len(before))
    if kind == "last":
        assert logged(store) == expected
    else:
        assert done.stderr.count("the training begins as a new run") == 1
        assert len(logged(store)) == 8


@pytest.mark.long
def test_a_resume_that_is_killed_while_it_goes_back_can_be_resumed(killed: Killed) -> None:
    script, store, expected = killed("killed")
    assert flor(store, "resume", script, "--", "killed", "lives", "never", check=False).returncode == -9
    said = resumed(store, script, "killed")
    assert "cannot be restored (counter: not after that)" in said[1]
    assert logged(store) == expected
    with florlog.open(store) as log:
        assert len(log.run().tree().sessions) == len(said) + 1  # and no problem is found in them
        assert not log.run().tree().problems


@pytest.mark.drawn(1)
@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_replay_goes_back_and_does_not_blame_the_script(workers: str, tmp_path: Path) -> None:
    script, store = write(tmp_path / "train.py", TRAINING), tmp_path / "store"
    python(store, script, "last", "lives", "never")
    text = TRAINING.replace("# ADD", "run.log(bias=model.bias.sum())")
    write(script, text)
    answer = replay(store, script, "--workers", workers, "--where", "epoch == 4 or epoch == 6")
    expected = truth(write(tmp_path / "full.py", text), tmp_path, "last", "lives", "never")
    assert [(v["path"], v["value"]) for v in answer["values"]] == [
        ({"epoch": epoch}, expected["bias", (("epoch", epoch),)][0]) for epoch in (4, 6)
    ]
    assert {v["trust"] for v in answer["values"]} <= {"PROVEN", "CONSISTENT"}  # the script reads os.environ


@pytest.mark.long
def test_the_state_at_a_boundary_is_found_without_an_image_that_cannot_be_restored(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    script, store = write(tmp_path / "train.py", TRAINING.replace('float("inf")', "0.0")), tmp_path / "store"
    python(store, script, "all", "lives", "never")
    with florlog.open(store) as log:
        assert sorted(log.run().tree().root.loops[0].images) == [0]
        assert log.run().state_at(epoch=3)["counter"] == {"count": 3}
    assert (
        "the image at epoch=0 cannot be restored (counter: nothing can be counted)" in capfd.readouterr().err
    )


TIMED = """
import os
import signal
import sys
import time

import florlog

with florlog.run("timed", overhead=0.0) as run:
    total = 0.0
    for epoch in run.loop("epoch", range(4)):
        before = time.time()
        time.sleep(0.01)
        spent = time.time() - before
        total += spent
        run.log(spent=spent, total=total, rate=epoch / spent)
        if sys.argv[1] == "dies" and epoch == 2:
            time.sleep(0.5)  # until brief iterations are in the log
            os.kill(os.getpid(), signal.SIGKILL)

"""


def test_times_that_decide_nothing_do_not_keep_a_run_from_being_resumed(tmp_path: Path) -> None:
    script, store = write(tmp_path / "train.py", TIMED), tmp_path / "store"
    python(store, script, "dies", check=False)
    said = flor(store, "resume", script, "--", "lives").stderr
    assert "after re-executing 2 iterations" in said
    assert "all equal to the recording, what it reads from outside aside" in said
