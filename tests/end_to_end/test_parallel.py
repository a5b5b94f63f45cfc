"""A replay by several processes answers as one process does, also when workers are killed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from .harness import Nursery, environment
from .programs import NESTED, PLACES, add, write
from .test_hindsight import ask
from .test_scripts import NAMES, Recorded, check, recorded, recordings, with_statements
from .test_scripts import ask as ask_script

pytestmark = pytest.mark.drawn_in_file(2)

__all__ = ["recorded", "recordings"]  # fixtures


@pytest.fixture(scope="module")
def nested(nursery: Nursery, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, dict[str, Any]]:
    """A store, the script with a statement in every place, and what one process answers."""
    directory = tmp_path_factory.mktemp("nested")
    script, store = directory / "train.py", directory / "store"
    nursery.run(store, write(script, NESTED))
    write(script, add(NESTED, PLACES))
    return store, script, ask(nursery, copied(store, directory / "alone"), script)


def copied(store: Path, to: Path) -> Path:
    """A copy of a store: what one replay found, the next would answer from the log."""
    shutil.copytree(store, to)
    return to


@pytest.mark.drawn(1)
@pytest.mark.wheel
@pytest.mark.parametrize("workers", ["2", "3"])
def test_several_workers_answer_as_one(
    workers: str, nested: tuple[Path, Path, dict[str, Any]], nursery: Nursery, tmp_path: Path
) -> None:
    store, script, alone = nested
    assert ask(nursery, copied(store, tmp_path / "store"), script, "--workers", workers) == alone


@pytest.mark.crash
def test_the_part_of_a_killed_worker_is_redone_by_another(
    nested: tuple[Path, Path, dict[str, Any]], tmp_path: Path
) -> None:
    store, script, alone = nested
    store = copied(store, tmp_path / "store")
    command = ["-m", "florlog", "replay", str(script), "--format", "json", "--workers", "2"]
    with subprocess.Popen(
        [sys.executable, *command],
        env=environment(store),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as running:
        seen: dict[int, float] = {}
        killed = 0
        while running.poll() is None and killed < 2:
            for pid in workers_of(running.pid):
                born = seen.setdefault(pid, time.monotonic())
                if time.monotonic() - born > 0.3 + killed:  # one while it starts, one that may be redoing
                    os.kill(pid, signal.SIGKILL)
                    del seen[pid]
                    killed += 1
                    break
            time.sleep(0.01)
        output, errors = running.communicate(timeout=120)
    assert killed == 2
    assert running.returncode == 0, errors
    assert json.loads(output) == alone
    assert errors.count("another redoes its part") == 2


def workers_of(parent: int) -> list[int]:
    """The worker processes of a replay."""
    try:
        children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
        children += [
            child
            for task in Path(f"/proc/{parent}/task").iterdir()
            if task.name != str(parent)
            for child in (task / "children").read_text().split()
        ]
        return [
            int(child)
            for child in children
            if "florlog.redo.worker" in Path(f"/proc/{child}/cmdline").read_text()
        ]
    except OSError:
        return []


@pytest.mark.drawn(2)
@pytest.mark.parametrize("name", [name for name in NAMES if name in ("gan", "kfold", "trainer")])
def test_two_workers_answer_every_statement_as_a_full_run(
    name: str, recorded: Recorded, nursery: Nursery
) -> None:
    answer = ask_script(nursery, recorded, with_statements(recorded.text), "--workers", "2")
    check(answer, recorded.truth, "two workers")
