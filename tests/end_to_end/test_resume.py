"""A killed and resumed run equals an uninterrupted one bit for bit, whenever it was killed."""

from __future__ import annotations

import itertools
import json
import random
from pathlib import Path

import pytest
from florlog_recovery.costs import KIND
from florlog_wal import Note, RunEnd, RunLog
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

import florlog
from florlog.program.measured_costs import costs_of
from tests.run_directories import run_directory

from .harness import EXAMPLES, Logged, Nursery, flor, logged
from .programs import write

pytestmark = pytest.mark.drawn_in_file(2)

INSTANTS = 4
DIGITS = ("--epochs", "2", "--batch-size", "64")
CHARLM = ("--epochs", "2", "--steps", "12", "--width", "32", "--context", "32")


@pytest.mark.wheel
@pytest.mark.crash
@pytest.mark.parametrize(("example", "options"), [("digits.py", DIGITS), ("charlm.py", CHARLM)])
def test_a_run_killed_at_any_instant_and_resumed_equals_an_uninterrupted_run(
    example: str, options: tuple[str, ...], nursery: Nursery, tmp_path: Path
) -> None:
    script = EXAMPLES / example
    reference = tmp_path / "reference"
    nursery.run(reference, script, *options, "--out", tmp_path / "reference.json")
    nursery.run(tmp_path / "again", script, *options, "--out", tmp_path / "again.json")
    seconds = recorded_seconds(tmp_path / "again")
    expected = logged(reference)
    final = json.loads((tmp_path / "reference.json").read_text())
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    instants = random.Random(seed)
    killed = 0
    iterations = []
    for number in range(3 * INSTANTS):
        if killed == INSTANTS:
            break
        store, out = tmp_path / f"store{number}", tmp_path / f"{number}.json"
        command = [script, *options, "--out", out]
        was_killed, _ = nursery.run(store, *command, kill=instants.uniform(0.0, seconds))
        if not was_killed:  # other load had slowed the run by which instants were chosen
            seconds = recorded_seconds(store)
        elif not has_run(store):
            nursery.run(store, *command)
        else:
            killed += 1
            iterations.append(committed(store)[0])
            while instants.random() < 0.4 and not committed(store)[1]:  # crashes while resuming
                before, _ = committed(store)
                nursery.run(store, "florlog", "resume", *command, kill=instants.uniform(0.0, seconds))
                assert committed(store)[0] >= before
            if not committed(store)[1]:
                nursery.run(store, "florlog", "resume", *command)
        assert json.loads(out.read_text()) == final
        assert logged(store) == expected
        with florlog.open(store) as log:
            assert len(log.runs) == 1
    print(f"killed {killed} times, after {sorted(iterations)} iterations")
    assert killed == INSTANTS


def recorded_seconds(store: Path) -> float:
    """How long the newest run took."""
    with florlog.open(store) as log:
        return next(entry.record.seconds for entry in log.records() if isinstance(entry.record, RunEnd))


def committed(store: Path) -> tuple[int, bool]:
    """How many innermost iterations the log has, and whether the run is complete."""
    with florlog.open(store) as log:
        tree = log.run().tree()
        return tree.innermost_iterations(), tree.status == "complete"


def has_run(store: Path) -> bool:
    try:
        with florlog.open(store) as log:
            return bool(log.runs)
    except florlog.FlorlogError:
        return False


DYING = """
import os
import signal
import sys
import time

import torch
from florlog_wal import CheckpointBegin, LoopEnd, RunLog

import florlog

append = RunLog.append
os.environ["_LEFT"] = sys.argv[1]  # images do not carry variables of such names


def dying(self, record, **place):
    os.environ["_LEFT"] = str(int(os.environ["_LEFT"]) - 1)
    if os.environ["_LEFT"] == "0":
        os.kill(os.getpid(), signal.SIGKILL)
    lsn = append(self, record, **place)
    if sys.argv[2] == "end" and isinstance(record, LoopEnd):
        os.kill(os.getpid(), signal.SIGKILL)
    if sys.argv[2] == "image" and isinstance(record, CheckpointBegin) and record.index == 5:
        os.kill(os.getpid(), signal.SIGKILL)
    return lsn


RunLog.append = dying
torch.manual_seed(3)
model = torch.nn.Linear(4, 4)
optimizer = torch.optim.Adam(model.parameters(), lr=0.1)


def train(loops):
    for epoch in run.loop("epoch", range(5)):
        total = 0.0
        for step in run.loop("step", range(4)) if loops == 2 else range(4):
            loss = model(torch.randn(8, 4)).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item()
            time.sleep(0.004)  # a step costs more than restoring this small model
            run.log(loss=loss)
        run.log(total=total)


with florlog.run("dying", overhead=float(sys.argv[3])) as run:
    run.track(model=model, optimizer=optimizer)
    train(2 if sys.argv[2] != "end" else 1)
    run.log(final=model.weight.sum())
"""


@pytest.mark.crash
@pytest.mark.parametrize("instant", ["end", "image"])
def test_a_run_killed_between_its_last_iteration_and_the_image_there_takes_that_image_when_resumed(
    instant: str, nursery: Nursery, tmp_path: Path
) -> None:
    script = write(tmp_path / "train.py", DYING)
    store = tmp_path / "store"
    killed, _ = nursery.run(store, script, "0", instant, "inf")
    assert killed
    with florlog.open(store) as log:
        (loop,) = log.run().tree().root.loops
        assert loop.ended
        assert loop.count == 5
        assert 5 not in loop.images
    nursery.run(store, "florlog", "resume", script, "--", "0", "none", "inf")
    with florlog.open(store) as log:
        (loop,) = log.run().tree().root.loops
        assert 5 in loop.images
    assert flor(store, "verify").returncode == 0


@pytest.fixture(scope="module")
def uninterrupted(nursery: Nursery, tmp_path_factory: pytest.TempPathFactory) -> list[Logged]:
    directory = tmp_path_factory.mktemp("uninterrupted")
    nursery.run(directory / "store", write(directory / "train.py", DYING), "0", "none", "0.02")
    return logged(directory / "store")


@pytest.mark.crash
@settings(
    max_examples=10,
    deadline=None,
    phases=(Phase.explicit, Phase.generate),  # an example takes a second: shrinking would take minutes
    suppress_health_check=list(HealthCheck),
)
@given(st.lists(st.integers(1, 90), min_size=1, max_size=5), st.sampled_from(["0", "0.02", "inf"]))
@example([42, 45, 25, 25, 46], "inf")
@example([59], "0.02")
@example([53], "0")  # between the run's last values and its end
@example([1], "0.02")
@example([60, 1, 2, 3, 4], "0.02")
def test_a_run_killed_again_and_again_redoes_no_more_than_what_lies_behind_its_last_image_but_one(
    uninterrupted: list[Logged],
    nursery: Nursery,
    tmp_path_factory: pytest.TempPathFactory,
    kills: list[int],
    overhead: str,
) -> None:
    """Each process dies before its n-th record: the first, and every resume but the last."""
    directory = tmp_path_factory.mktemp("kills")
    script = write(directory / "train.py", DYING)
    store = directory / "store"
    began = False
    for instant in [*kills, 0]:
        arguments = (str(instant), "none", overhead)
        if not began:
            nursery.run(store, script, *arguments)
            began = has_run(store)
            continue
        before, complete = committed(store)
        if complete:
            break
        bound, newest = behind_last_image_but_one(store), session(store)
        cheaper = redone_for_less_than_a_restore(store)
        nursery.run(store, "florlog", "resume", script, "--", *arguments)
        assert committed(store)[0] >= before
        if session(store) > newest and (redone := redone_by_resume(store)) is not None:
            assert redone <= bound + cheaper
    assert logged(store) == uninterrupted


def innermost(store: Path) -> list[tuple[int, float]]:
    """LSN and seconds of each committed iteration without loops of its own."""
    with florlog.open(store) as log:
        return [
            (loop.commits[index], loop.seconds[index])
            for loop in log.run().tree().loops()
            for index in range(loop.count)
            if index not in loop.nodes or not loop.nodes[index].loops
        ]


def behind_last_image_but_one(store: RunLog) -> int:
    """Innermost iterations that were committed after the state of the outermost loop's newest image but one.

    A resume starts before the newest image of all, to compare its state with that.  An image inside is used where it
    helps, but is reached through one of the loop around it, and a kill may have taken the one on its way there.
    """
    with florlog.open(store) as log:
        # Not by the images' LSNs: a resume takes an image that was missing when the log is already further.
        places = {
            loop.commits[index - 1] if index else 0
            for loop in log.run().tree().root.loops
            for index in loop.images
        }
    place = sorted(places)[-2] if len(places) > 1 else 0
    return sum(lsn > place for lsn, _ in innermost(store))


def redone_for_less_than_a_restore(store: Path) -> int:
    """How many iterations at most cost less than the restores that a plan may spare by redoing them."""
    seconds = sorted(seconds for _, seconds in innermost(store))
    with florlog.open(store) as log:
        tree = log.run().tree()
        costs = costs_of(log.run().log, tree)
        images = [image for loop in tree.loops() for image in loop.images.values()]
        dearest = max((costs.restore(image) for image in images), default=costs.fixed)
    return sum(total < 2 * dearest for total in itertools.accumulate(seconds))


@pytest.mark.crash
def test_a_resume_plans_with_the_restores_that_the_run_measured(nursery: Nursery, tmp_path: Path) -> None:
    script, store = write(tmp_path / "train.py", DYING), tmp_path / "store"
    nursery.run(store, script, "36", "none", "inf")
    with RunLog.open(
        run_directory(store), mode="w"
    ) as opened:  # what a session says that took a second to restore
        first = opened.sessions()[0].lsn
        data = {"restores": [1.0, 1000.0, 1.0, 1e6, 1000.0]}
        opened.append(Note(KIND, "", data), session=first, prev=first)
    with florlog.open(store) as log:
        assert costs_of(log.run().log, log.run().tree()).fixed > 0.9
        tree = log.run().tree()
        epoch = tree.root.loops[0]
        (inner,) = epoch.nodes[epoch.count].loops
        assert inner.count >= 2
    nursery.run(store, "florlog", "resume", script, "--", "0", "none", "0")
    # One restore there must be; steps of milliseconds are run rather than spared by another of a second.
    with florlog.open(store) as log:
        (note,) = [
            entry.record.data
            for entry in log.run().records()
            if isinstance(entry.record, Note) and entry.record.kind == "resume"
        ]
    assert note["restored"] == 1
    assert note["redone"] >= inner.count


def session(store: Path) -> int:
    """The newest session of the run."""
    with florlog.open(store) as log:
        return log.run().tree().sessions[-1]


def redone_by_resume(store: Path) -> int | None:
    """What the newest session says that it has redone."""
    with florlog.open(store) as log:
        run = log.run()
        newest = run.tree().sessions[-1]
        notes = [
            entry.record.data["redone"]
            for entry in run.records()
            if entry.session == newest and isinstance(entry.record, Note) and entry.record.kind == "resume"
        ]
        return notes[0] if notes else None
