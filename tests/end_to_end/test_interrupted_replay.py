"""A signal ends a replay at once: no process is left, and the recording is what it was."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from florlog_wal import verify

from tests.run_directories import run_directory

from .harness import Nursery, environment, logged
from .programs import NESTED, PLACES, add, write
from .test_parallel import copied

pytestmark = pytest.mark.drawn_in_file(2)

_SECONDS_TO_END = 20.0


@pytest.fixture(scope="module")
def recording(nursery: Nursery, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A store, and the script with statements added."""
    directory = tmp_path_factory.mktemp("interrupted")
    script, store = directory / "train.py", directory / "store"
    nursery.run(store, write(script, NESTED))
    write(script, add(NESTED, PLACES))
    return store, script


def processes_of(store: Path) -> set[int]:
    """The processes that work on a store, by the environment that they inherited."""
    found = set()
    for directory in Path("/proc").iterdir():
        try:
            variables = (directory / "environ").read_bytes().split(b"\0") if directory.name.isdigit() else []
            state = (directory / "stat").read_text().rpartition(")")[2].split()[0] if variables else "Z"
        except OSError:
            continue
        if f"FLORLOG_STORE={store}".encode() in variables and state != "Z":
            found.add(int(directory.name))
    return found


@pytest.mark.drawn(4)
@pytest.mark.crash
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda sent: sent.name)
@pytest.mark.parametrize(("workers", "wait"), [(1, 0.0), (2, 0.0), (2, 1.0)])
def test_a_signal_ends_a_replay_and_its_workers_and_leaves_the_recording(
    sent: signal.Signals, workers: int, wait: float, recording: tuple[Path, Path], tmp_path: Path
) -> None:
    store, script = copied(recording[0], tmp_path / "store"), recording[1]
    before = logged(store)
    with subprocess.Popen(
        [sys.executable, "-m", "florlog", "replay", str(script), "--workers", str(workers)],
        env=environment(store),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as running:
        # By then Python has started, and a second process only where there are several.
        deadline = time.monotonic() + _SECONDS_TO_END
        while (
            running.poll() is None and time.monotonic() < deadline and not _began(running.pid, store, workers)
        ):
            time.sleep(0.01)
        time.sleep(wait)
        running.send_signal(sent)
        _, said = running.communicate(timeout=_SECONDS_TO_END)
    deadline = time.monotonic() + _SECONDS_TO_END
    while (left := processes_of(store)) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not left
    if running.returncode != 0:  # it was not done already
        assert running.returncode == (130 if sent == signal.SIGINT else -sent), said
        assert "Traceback" not in said
        assert sent != signal.SIGINT or said.strip().splitlines()[-1].endswith("interrupted")
    assert verify(run_directory(store)).ok
    assert logged(store) == before


def _began(pid: int, store: Path, workers: int) -> bool:
    if workers > 1:
        return len(processes_of(store)) > 1
    return "libtorch_cpu.so" in Path(f"/proc/{pid}/maps").read_text()
