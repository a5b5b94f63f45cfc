"""A run is audited while it is recorded: it says what its images lack, and nothing else is different for that."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from florlog_recovery import AUDITED
from florlog_wal import Note, RunLog

from florlog.program.stores import tree_of
from tests.run_directories import run_directory

from .harness import environment, flor
from .programs import write

pytestmark = [pytest.mark.slow, pytest.mark.drawn_in_file(3)]


@pytest.fixture
def folder() -> Iterator[Path]:
    """A directory with a short name: below it lie sockets of loaders' workers, whose names are bounded."""
    with tempfile.TemporaryDirectory(prefix="fl-") as made:
        yield Path(made)


TRAINING = """
import ctypes, os, subprocess, sys, threading, time
import torch
import florlog
from florlog.recording import early_audit

early_audit.MIN_RECORDED_SECONDS = <seconds>
early_audit.MIN_IDLE_CORES = float("-inf")  # other tests use them
early_audit.MAX_MEMORY_SHARE = float("inf")

class Meter:
    seen = 0

AUDITED = "florlog-audit-" in os.environ.get("TMPDIR", "")

def under_way():
    return any(thread.name == "florlog-audit" for thread in threading.enumerate())

<setup>
outside = ctypes.c_int(0)
torch.manual_seed(1)
model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Dropout(0.5))
optimizer = torch.optim.Adam(model.parameters(), 0.01)
with florlog.run("audited", <arguments>) as run:
    run.track(model=model, optimizer=optimizer)
    for epoch in run.loop("epoch", range(10)):
        for _ in range(4):
            loss = model(torch.randn(8, 4)).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            Meter.seen += 1
            <body>
        print(epoch, loss.item(), flush=True)
        run.log(loss=loss.item())
        time.sleep(<pause>)
        if epoch == 8:
            print("waits", under_way(), file=sys.stderr, flush=True)
            <wait>
"""
WAIT = "while under_way(): time.sleep(0.05)"


def script(
    folder: Path,
    *,
    setup: str = "pass",
    body: str = "pass",
    wait: str = WAIT,
    arguments: str = "overhead=0.9",
    seconds: float = 0.0,
    pause: float = 0.05,
) -> Path:
    """The training, with a part of it replaced."""
    text = TRAINING
    parts = {"setup": setup, "body": body, "wait": wait, "arguments": arguments}
    for name, part in {**parts, "seconds": str(seconds), "pause": str(pause)}.items():
        text = text.replace(f"<{name}>", part)
    return write(folder / "train.py", text)


@dataclass(frozen=True)
class Trained:
    """What a training did."""

    printed: str
    said: list[str]
    """Its lines on stderr, without its own and the one that says what images may take."""
    started: bool
    outcome: str
    text: str


def train(folder: Path, path: Path, *command: str) -> Trained:
    """Train to the end, in a temporary directory of its own, which is empty afterwards."""
    store = folder / "store"
    done = subprocess.run(
        [sys.executable, *command, path],
        env=environment(store) | {"TMPDIR": temporary(folder)}, cwd=folder,
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = done.stderr.splitlines()
    assert not list(Path(temporary(folder)).glob("florlog-*"))
    audits = [note for note in notes(store) if note.kind == AUDITED]
    assert len(audits) <= 1
    return Trained(
        done.stdout,
        [line for line in lines if not line.startswith(("waits", "florlog: images may take"))],
        "waits True" in lines,
        audits[0].data["outcome"] if audits else "",
        audits[0].text if audits else "",
    )


def temporary(folder: Path) -> str:
    made = folder / "tmp"
    made.mkdir(exist_ok=True)
    return str(made)


def notes(store: Path) -> list[Note]:
    with RunLog.open(run_directory(store)) as opened:
        return [entry.record for entry in opened.scan(types=(Note,)) if isinstance(entry.record, Note)]


def without_audit(folder: Path) -> str:
    """What the training prints that is not audited."""
    alone = folder / "alone"
    alone.mkdir()
    found = train(alone, script(alone, arguments="overhead=0.9, audit=False"))
    assert not found.started
    assert found.outcome == ""
    return found.printed


def test_a_run_whose_state_is_in_its_images_is_audited_and_prints_what_it_would_print(folder: Path) -> None:
    found = train(folder, script(folder))
    assert found.outcome == "equal"
    assert found.said == []
    store = folder / "store"
    with RunLog.open(run_directory(store)) as opened:
        (audit,) = tree_of(opened).audits
    assert audit.reached[0][0] == "epoch"
    assert audit.reached[0][1] >= 2, "before it lies an iteration, and before that another"
    reached = f"to epoch={audit.reached[0][1]}"
    (row,) = json.loads(flor(store, "runs", "--format", "json").stdout)
    assert row["audited"].startswith(reached)
    assert f"audited {reached}" in flor(store, "inspect", "tree", "--format", "text").stdout
    assert found.printed == without_audit(folder)


@pytest.mark.drawn(1)
@pytest.mark.parametrize(
    ("body", "named"),
    [
        ("outside.value += 1; Meter.last = outside.value", "Meter.last"),
        ("os.environ['_N'] = n = os.environ.get('_N', '') + 'x'; model[1].p = 0.5 / (1 + len(n))", "model"),
    ],
)
def test_what_an_image_lacks_is_named_in_the_terminal_of_the_training(
    body: str, named: str, folder: Path
) -> None:
    found = train(folder, script(folder, body=body))
    assert found.outcome == "different"
    (line,) = found.said
    assert line.startswith("florlog: audit: redone from the image at epoch=")
    assert named in line


@pytest.fixture
def server() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as made:
        yield made


def test_connections_are_not_opened_again(server: socket.socket, folder: Path) -> None:
    setup = f"import socket; socket.create_connection(('127.0.0.1', {server.getsockname()[1]})).close()"
    found = train(folder, script(folder, setup=setup))
    assert found.outcome == "not possible"
    assert "network" in found.text
    assert found.said == []
    server.accept()
    server.settimeout(0.2)
    with pytest.raises(TimeoutError):
        server.accept()


DATABASE = """import sqlite3
with sqlite3.connect('FILE.db') as db:
    db.execute('CREATE TABLE IF NOT EXISTS t (x)')
    db.execute('INSERT INTO t VALUES (1)')
    open('FILE', 'w').write('\\n' * len(db.execute('SELECT * FROM t').fetchall()))
"""
C_LIBRARY = """
fd = ctypes.CDLL(None).open(b'FILE', os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
os.write(fd, b'\\n')
"""


@pytest.mark.drawn(2)
@pytest.mark.parametrize(
    ("setup", "why"),
    [
        ("subprocess.run(['sh', '-c', 'echo >> FILE'])", "other programs"),
        ("os.system('echo >> FILE')", "other programs"),
        ("os.wait() if os.fork() else os.execlp('sh', 'sh', '-c', 'echo >> FILE')", "other programs"),
        (DATABASE, "a database"),
        (C_LIBRARY, "OSError"),
    ],
)
def test_what_acts_on_the_world_is_not_done_again(setup: str, why: str, folder: Path) -> None:
    file = folder / "counted"
    found = train(folder, script(folder, setup=setup.replace("FILE", str(file))))
    assert found.started
    assert found.outcome == "not possible"
    assert why in found.text
    assert found.said == []
    assert file.read_text() == "\n"


def test_files_that_the_script_writes_are_written_once(folder: Path) -> None:
    file = folder / "counted"
    found = train(folder, script(folder, setup=f"open({str(file)!r}, 'a').write('.')"))
    assert found.outcome == "equal"
    assert file.read_text() == "."


def test_the_workers_of_a_loader_start_in_the_audit_too(folder: Path) -> None:
    setup = "data = torch.utils.data.DataLoader(torch.arange(8.0), batch_size=4, num_workers=1)"
    found = train(folder, script(folder, setup=setup, body="loss = loss + sum(x.sum() for x in data)"))
    assert found.outcome == "equal", found.text
    assert found.said == []


@pytest.mark.drawn(2)
@pytest.mark.parametrize("then", ["os.abort()", "raise SystemExit(3)", "1 / 0"])
def test_an_audit_that_fails_by_itself_says_nothing_on_the_terminal(then: str, folder: Path) -> None:
    found = train(folder, script(folder, setup=f"if AUDITED: {then}"))
    assert found.outcome == "not possible"
    assert found.said == []


def test_the_training_does_not_wait_for_an_audit_that_hangs(folder: Path) -> None:
    found = train(folder, script(folder, setup="if AUDITED: time.sleep(1000)", wait="pass"))
    assert found.started
    assert found.outcome == ""
    assert found.said == []
    assert workers(folder) == []


@pytest.mark.parametrize("arguments", ["overhead=float('inf')", "overhead=0.9, audit=False"])
def test_a_run_is_not_audited_without_a_bound_on_its_overhead_or_where_it_says_so(
    arguments: str, folder: Path
) -> None:
    found = train(folder, script(folder, arguments=arguments))
    assert not found.started
    assert found.outcome == ""


def test_a_run_that_comes_after_another_is_not_audited(folder: Path) -> None:
    path = script(folder, setup="with florlog.run('before', overhead=0): pass")
    env = environment(folder / "store")
    done = subprocess.run(
        [sys.executable, path], env=env, cwd=folder, timeout=120, check=True, capture_output=True, text=True
    )
    assert "waits False" in done.stderr


def test_a_resumed_run_and_a_replay_are_not_audited(folder: Path) -> None:
    stop = "if epoch == 6 and 'stop' in sys.argv: os._exit(0)"
    path = script(folder, arguments="overhead=0.9, audit=False, resume='auto'", body=stop)
    env = environment(folder / "store")
    subprocess.run([sys.executable, path, "stop"], env=env, cwd=folder, timeout=120, check=True)
    path.write_text(path.read_text().replace(", audit=False", ""))
    done = subprocess.run(
        [sys.executable, path], env=env, cwd=folder, timeout=120, check=True, capture_output=True, text=True
    )
    assert "resumed from" in done.stderr
    assert "waits False" in done.stderr
    path.write_text(path.read_text().replace("run.log(loss", "run.log(seen=Meter.seen, loss"))
    flor(folder / "store", "replay", path)
    assert not [note for note in notes(folder / "store") if note.kind == AUDITED]


HANDS_FREE = """
import threading, time
from florlog.recording import early_audit

early_audit.MIN_RECORDED_SECONDS = 0.0
early_audit.MIN_IDLE_CORES = float("-inf")
early_audit.MAX_MEMORY_SHARE = float("inf")

import torch
weight = torch.zeros(4)
for epoch in range(10):
    weight += torch.ones(4)
    print(weight.sum().item())
    time.sleep(0.1)
    while any(thread.name == "florlog-audit" for thread in threading.enumerate()):
        time.sleep(0.05)
"""


@pytest.mark.parametrize("option", [[], ["--no-audit"]])
def test_a_hands_free_run_is_audited_unless_the_command_says_no(option: list[str], folder: Path) -> None:
    found = train(folder, write(folder / "plain.py", HANDS_FREE), "-m", "florlog", "record", *option)
    assert found.outcome == ("" if option else "equal")


def workers(folder: Path) -> list[int]:
    """The processes whose temporary directory lies in a folder's and which are not zombies."""
    found = []
    for process in Path("/proc").iterdir():
        try:
            given = (process / "environ").read_bytes() if process.name.isdecimal() else b""
        except OSError:
            continue
        if f"TMPDIR={folder}/tmp/florlog-audit-".encode() in given:
            found.append(int(process.name))
    return found


def until(holds: Any, seconds: float) -> bool:
    """Whether something holds within so many seconds."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if holds():
            return True
        time.sleep(0.05)
    return bool(holds())


@pytest.mark.drawn(1)
@pytest.mark.crash
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_audit_ends_with_a_training_that_is_killed(number: signal.Signals, folder: Path) -> None:
    hang = "if AUDITED: time.sleep(1000)"
    path = script(folder, setup=hang, wait="time.sleep(1000)")
    env = environment(folder / "store") | {"TMPDIR": temporary(folder)}
    with subprocess.Popen([sys.executable, path], env=env, cwd=folder, stdout=subprocess.DEVNULL) as training:
        try:
            assert until(lambda: workers(folder), 60)
            (worker,) = workers(folder)
            assert until(lambda: os.getpriority(os.PRIO_PROCESS, worker) == 19, 1)
            overlay = Path(temporary(folder))
            assert until(
                lambda: list(overlay.glob("florlog-audit-*/florlog-replay-*")), 60
            )  # the script runs
            assert os.getsid(worker) == worker != os.getsid(training.pid)
            training.send_signal(number)
            training.wait()
            assert until(lambda: not workers(folder), 5)
            assert until(lambda: not list(Path(temporary(folder)).glob("florlog-audit-*")), 1)
        finally:
            training.kill()


@pytest.mark.long
def test_a_run_of_a_minute_is_audited_by_itself(folder: Path) -> None:
    found = train(folder, script(folder, seconds=30.0, pause=5.0))
    assert found.outcome == "equal"
