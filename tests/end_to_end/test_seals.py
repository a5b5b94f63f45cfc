"""Images that somebody else made, or changed, are not restored without the user's word."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from .harness import flor, python
from .programs import write

TRAINING = """
import time
import torch
import florlog

w = torch.zeros(3)
with florlog.run("sealed", overhead=float("inf")) as run:
    run.track(w=w)
    for epoch in run.loop("epoch", range(4)):
        time.sleep(0.05)
        w += epoch
        # ADD
        run.log(sum=w.sum())
"""


@pytest.fixture
def asked(tmp_path: Path) -> tuple[Path, Path]:
    """The store of a recorded run, and its script with a statement that was added afterwards."""
    store = tmp_path / "store"
    script = write(tmp_path / "train.py", TRAINING)
    python(store, script)
    return store, write(script, TRAINING.replace("# ADD", "run.log(largest=w.max())"))


def replayed(store: Path, script: Path, *options: str) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(
        flor(store, "replay", script, "--where", "epoch == 3", "--format", "json", *options).stdout
    )
    assert [value["value"] for value in answer["values"]] == [6.0]
    return answer


def test_the_images_of_somebody_else_are_not_restored_without_trust(
    asked: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    store, script = asked
    explained = json.loads(flor(store, "explain", script, "--where", "epoch == 3", "--format", "json").stdout)
    assert explained["iterations_redone"] == 1
    run = explained["run"]
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "of-another-user"))
    assert replayed(store, script)["plan"]["iterations_redone"] == 4
    trusting = flor(store, "explain", script, "--where", "epoch == 3", check=False)
    assert f"--trust {run}" in trusting.stdout + trusting.stderr


def test_the_images_of_a_run_that_is_trusted_are_restored(
    asked: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    store, script = asked
    run = json.loads(flor(store, "runs", "--format", "json").stdout)[-1]["run"]
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "of-another-user"))
    assert replayed(store, script, "--trust", run)["plan"]["iterations_redone"] == 1
