"""A killed and resumed run equals an uninterrupted one bit for bit, whenever it was killed."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from florlog_wal import RunEnd

import florlog

from .harness import EXAMPLES, Nursery, logged

INSTANTS = 20
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
        if not was_killed:
            pass
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
