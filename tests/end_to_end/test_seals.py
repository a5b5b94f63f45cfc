"""Images that somebody else made, or changed, are not restored without the user's word."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from florlog_wal import CheckpointEnd, PageTable, RunLog, decode_table, encode_table, encode_value

import florlog
from florlog.state.boundary_trees import HEAP
from tests.run_directories import run_directory

from .harness import flor, python
from .programs import write

pytestmark = pytest.mark.drawn_in_file(2)

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


TAMPERED = """
import os
import time
import torch
import florlog

w = torch.zeros(3)
rate = [0.7310585786]
with florlog.run("tampered", overhead=float("inf")) as run:
    run.track(w=w)
    for epoch in run.loop("epoch", range(5)):
        time.sleep(0.05)
        if epoch == 4 and "KILLED" in os.environ:
            os._exit(9)
        w += rate[0] if epoch == 4 else 1.0
        # ADD
        run.log(sum=w.sum())
"""
RATE, CHANGED_RATE, KILLED = 0.7310585786, 1000.0, 9

UNSEALED = """
import sys

from florlog.images import imager

imager.is_sealed = lambda hosts, found: True

from florlog.commands import main

sys.exit(main(sys.argv[1:]))
"""


def tampered(directory: Path, monkeypatch: pytest.MonkeyPatch, images: slice) -> tuple[Path, Path]:
    """The store of a killed run in which somebody changed ``images``, given in the order of the log; its script."""
    store, script = directory / "store", write(directory / "train.py", TAMPERED)
    monkeypatch.setenv("KILLED", "1")
    assert python(store, script, check=False).returncode == KILLED
    monkeypatch.delenv("KILLED")
    with RunLog.open(run_directory(store), mode="w") as log:
        ends = [entry for entry in log.scan() if isinstance(entry.record, CheckpointEnd)]
        assert len(ends) > 3
        for entry in ends[images]:
            assert isinstance(entry.record, CheckpointEnd)
            table = with_changed_rate(log, decode_table(log.get_page(entry.record.table)))
            (digest,) = log.put_pages([encode_table(table)]).digests
            log.append(replace(entry.record, table=digest), session=entry.session, prev=entry.record.begin)
    return store, script


def with_changed_rate(log: RunLog, table: PageTable) -> PageTable:
    """The same image with another ``rate``; its page is stored with the digest that it has."""
    entry = table[HEAP]
    (page,) = entry.pages
    held = log.get_page(page)
    assert held.count(encode_value(RATE)) == 1
    new = held.replace(encode_value(RATE), encode_value(CHANGED_RATE))
    return {**table, HEAP: replace(entry, pages=tuple(log.put_pages([new]).digests))}


def twins(store: Path) -> dict[str, tuple[Path, tuple[str | Path, ...]]]:
    """A copy of the store for each of two commands: florlog, and florlog with its check of seals switched off."""
    driver = write(store.with_name("unsealed.py"), UNSEALED)
    commands: dict[str, tuple[str | Path, ...]] = {"sealed": ("-m", "florlog"), "unsealed": (driver,)}
    return {
        name: (Path(shutil.copytree(store, store.with_name(name))), command)
        for name, command in commands.items()
    }


def test_a_replay_does_not_restore_an_image_that_somebody_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The newest image is as it was recorded: each image's own seal is checked."""
    store, script = tampered(tmp_path, monkeypatch, slice(-1))
    write(script, TAMPERED.replace("# ADD", "run.log(added=rate[0])"))
    found = {}
    for name, (copy, command) in twins(store).items():
        done = python(copy, *command, "replay", script, "--where", "epoch == 2", "--format", "json")
        (value,) = json.loads(done.stdout)["values"]
        found[name] = value["value"]
        assert ("cannot be restored" in done.stderr) is (name == "sealed")
    assert found == {"sealed": RATE, "unsealed": CHANGED_RATE}


def test_a_resume_does_not_restore_an_image_that_somebody_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The change shows in no recorded iteration, only in the one that the resumed run goes on with."""
    store, script = tampered(tmp_path, monkeypatch, slice(None))
    last = {}
    for name, (copy, command) in twins(store).items():
        done = python(copy, *command, "resume", script, check=False)
        assert ("cannot be resumed" in done.stderr) is (name == "sealed"), done.stderr
        with florlog.open(copy) as log:
            last[name] = [value.value for value in log.run().logged()][-1]
    assert last == {"sealed": 12.0, "unsealed": 3 * (4 + CHANGED_RATE)}
