"""Brief iterations are committed together: when, and what of them a kill leaves."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import time
from collections import deque
from pathlib import Path

import pytest
from florlog_wal import CheckpointBegin, CheckpointEnd, Commit, LoopEnd, Record, RunEnd, Statement

import florlog
from florlog.recording.journal import LOOK_INTERVAL_SECONDS


def records(store: Path) -> list[Record]:
    with florlog.open(store) as log:
        return [entry.record for entry in log.records()]


def committed(store: Path) -> list[int]:
    return [record.index for record in records(store) if isinstance(record, Commit)]


def test_commits_are_in_the_log_before_any_other_record(tmp_path: Path) -> None:
    with florlog.run("held", store=tmp_path, overhead=0) as run:
        for outer in run.loop("outer", range(3)):
            for index in run.loop("inner", range(10)):
                run.log(first=index)
                if outer == 1 and index == 4:
                    run.log(late=index)  # a statement of which there is no record yet
            assert committed(tmp_path)[-10:] == list(range(10))
    found = records(tmp_path)
    (late,) = (
        n for n, record in enumerate(found) if isinstance(record, Statement) and "late" in record.names
    )
    before = [record for record in found[:late] if isinstance(record, Commit)]
    assert [record.index for record in before] == [*range(10), 0, 0, 1, 2, 3]
    ends = [n for n, record in enumerate(found) if isinstance(record, LoopEnd)]
    assert all(isinstance(found[end - 1], Commit) for end in ends)


def test_an_image_is_of_what_the_log_has(tmp_path: Path) -> None:
    with florlog.run("held", store=tmp_path, overhead=math.inf) as run:
        run._journal.brief_seconds = math.inf  # type: ignore[union-attr]
        for _ in run.loop("step", range(50)):
            time.sleep(0.001)
    last = -1
    for record in records(tmp_path):
        if isinstance(record, Commit):
            last = record.index
        elif isinstance(record, CheckpointBegin):
            assert record.index == last + 1


@pytest.mark.parametrize(
    ("seconds", "overhead", "late"), [(0.001, 0.02, True), (0.03, 0.02, False), (0.03, 0.01, True)]
)
def test_only_steps_that_are_brief_for_the_overhead_wait(
    tmp_path: Path, seconds: float, overhead: float, late: bool
) -> None:
    """A commit by itself takes 100 µs, and commits may take a quarter of the overhead: 20 ms at 2 %."""
    held = []
    with florlog.run("held", store=tmp_path, overhead=overhead) as run:
        for _ in run.loop("epoch", range(1)):  # inside of which images are seconds apart
            for _ in run.loop("step", range(12)):
                held.append(len(run._journal.held))  # type: ignore[union-attr]
                time.sleep(seconds)
    assert any(held) == late
    assert committed(tmp_path) == [*range(12), 0]


def test_each_step_is_durable_when_that_was_asked_for(tmp_path: Path) -> None:
    with florlog.run("held", store=tmp_path, durability="sync") as run:
        for index in run.loop("step", range(20)):
            last = max((e.lsn for e in run._journal.log.scan(1, types=(Commit,))), default=0)  # type: ignore[union-attr]
            assert run._journal.log.durable_lsn >= last  # type: ignore[union-attr]
            assert committed(tmp_path) == list(range(index))


KILLED = """
import sys, time
import florlog

with florlog.run("killed") as run:
    for index in run.loop("step", range(1_000_000)):
        run.log(index=index)
        time.sleep(0.0005)
        print(index, time.monotonic(), flush=True)
"""


def test_a_kill_leaves_what_is_older_than_a_moment(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(KILLED)
    for number in range(3):
        store = tmp_path / str(number)
        with subprocess.Popen(
            [sys.executable, str(script)],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "FLORLOG_STORE": str(store)},
        ) as process:
            assert process.stdout is not None
            steps = []
            for line in process.stdout:
                steps.append(float(line.split()[1]))
                if len(steps) > 200 + 37 * number:
                    process.send_signal(signal.SIGKILL)
                    break
            steps += [float(line.split()[1]) for line in process.stdout if line.endswith("\n")]
        kept = committed(store)
        assert kept == list(range(len(kept)))
        # The first step that is lost had not ended so long before the last one did.
        assert len(steps) - len(kept) < 2 or steps[-1] - steps[len(kept)] < 2 * LOOK_INTERVAL_SECONDS + 0.02
        with florlog.open(store) as log:
            assert list(log.values("index")["index"]) == kept


def test_a_loop_that_comes_to_rest_is_in_the_log(tmp_path: Path) -> None:
    with florlog.run("held", store=tmp_path) as run:
        for _ in run.loop("epoch", range(1)):
            for index in run.loop("step", range(21)):
                if index == 20:
                    deadline = time.monotonic() + 60
                    while committed(tmp_path) != list(range(20)):
                        assert time.monotonic() < deadline
                        time.sleep(0.01)
    assert committed(tmp_path) == [*range(21), 0]


LEFT_OPEN = """
import florlog, torch
run = florlog.run('open', overhead=float('inf')).__enter__()
weights = torch.rand(20_000_000)
steps = run.loop('step', range(9))
for _ in range(5):
    next(steps)
    weights += 1
print('through')
"""


def test_a_run_that_is_left_open_is_let_go_of(tmp_path: Path) -> None:
    """Its image is being persisted when the interpreter ends."""
    script = tmp_path / "open.py"
    script.write_text(LEFT_OPEN)
    environment = {**os.environ, "FLORLOG_STORE": str(tmp_path / "store")}
    done = subprocess.run([sys.executable, str(script)], env=environment, capture_output=True, text=True)
    assert (done.stdout, done.returncode) == ("through\n", 0)
    assert "Fatal" not in done.stderr
    assert "stopped recording" not in done.stderr
    found = records(tmp_path / "store")
    assert [record.index for record in found if isinstance(record, Commit)] == list(range(4))
    begun = [record for record in found if isinstance(record, CheckpointBegin)]
    assert begun
    assert len(begun) == sum(isinstance(record, CheckpointEnd) for record in found)
    assert not any(isinstance(record, RunEnd) for record in found)


def test_a_value_is_logged_as_it_was(tmp_path: Path) -> None:
    with florlog.run("held", store=tmp_path, overhead=0) as run:
        scores: list[float] = []
        window: deque[float] = deque(maxlen=3)
        for index in run.loop("step", range(5)):
            run.log(scores=scores, window=window, both={"scores": (scores, window)})
            scores.append(index)
            window.append(index)
    with florlog.open(tmp_path) as log:
        values = log.values("scores", "window", "both")
        assert list(values["scores"]) == [list(range(index)) for index in range(5)]
        assert [list(window) for window in values["window"]] == [
            list(range(index))[-3:] for index in range(5)
        ]
        assert [both["scores"][0] for both in values["both"]] == list(values["scores"])
