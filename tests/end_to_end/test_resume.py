"""A killed and resumed run equals an uninterrupted one bit for bit, whenever it was killed."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

import florlog

from .harness import EXAMPLES, Nursery, logged

INSTANTS = 22
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
    _, seconds = nursery.run(tmp_path / "again", script, *options, "--out", tmp_path / "again.json")
    expected = logged(reference)
    final = json.loads((tmp_path / "reference.json").read_text())
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    instants = random.Random(seed)
    killed = 0
    iterations = []
    for number in range(INSTANTS):
        store, out = tmp_path / f"store{number}", tmp_path / f"{number}.json"
        command = [script, *options, "--out", out]
        was_killed, _ = nursery.run(store, *command, kill=instants.uniform(0.0, seconds))
        if not was_killed:
            pass
        elif not has_run(store):
            nursery.run(store, *command)
        else:
            killed += 1
            while instants.random() < 0.3:  # several crashes in a row
                nursery.run(store, "florlog", "resume", *command, kill=instants.uniform(0.0, seconds))
            with florlog.open(store) as log:
                iterations.append(log.run().tree().innermost_iterations())
                complete = log.run().tree().status == "complete"
            if not complete:
                nursery.run(store, "florlog", "resume", *command)
        assert json.loads(out.read_text()) == final
        assert logged(store) == expected
        with florlog.open(store) as log:
            assert len(log.runs) == 1
    print(f"killed {killed} times, after {sorted(iterations)} iterations")
    assert killed >= INSTANTS // 2


def has_run(store: Path) -> bool:
    try:
        with florlog.open(store) as log:
            return bool(log.runs)
    except florlog.FlorlogError:
        return False
