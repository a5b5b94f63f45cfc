"""Several processes in one store: each has its run, nobody waits for anybody, nothing of one reaches another."""

from __future__ import annotations

import json
import os
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from florlog_wal import RunBegin, RunExists, RunLocked, RunLog, Store, verify

import florlog
from tests.run_directories import run_directory

from .harness import environment, flor, python, replay

pytestmark = pytest.mark.drawn_in_file(2)

SWEEP = """
import os, sys, time
from pathlib import Path

import torch

import florlog

lr, gate, pause = float(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3])
torch.manual_seed(0)
model = torch.nn.Linear(3, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=lr)
x, y = torch.randn(32, 3), torch.randn(32, 1)
gate.with_name(f"ready{os.getpid()}").touch()
while not gate.exists():
    time.sleep(0.001)
with florlog.run("sweep", params={"lr": lr}, resume="RESUME") as run:
    run.track(model=model, optimizer=optimizer)
    for epoch in run.loop("epoch", range(4)):
        for step in run.loop("step", range(5)):
            loss = (model(x) - y).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            time.sleep(pause)
            run.log(loss=loss)
        run.log(norm=model.weight.norm())
        while epoch == 2 and gate.with_name("hold").exists():
            time.sleep(0.01)
"""
RATES = ("0.01", "0.1", "0.2")


def started(store: Path, script: Path, *rates: str, pause: float = 0.0) -> list[subprocess.Popen[str]]:
    """Processes that open their runs at the same instant."""
    gate = script.with_name("gate")
    gate.unlink(missing_ok=True)
    for left in script.parent.glob("ready*"):
        left.unlink()
    found = [
        subprocess.Popen(
            [sys.executable, script, rate, gate, str(pause)],
            env=environment(store), cwd=script.parent, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for rate in rates
    ]  # fmt: skip
    while len(list(script.parent.glob("ready*"))) < len(rates):
        assert all(process.poll() is None for process in found)
        time.sleep(0.01)
    gate.touch()
    return found


def ended(processes: list[subprocess.Popen[str]]) -> None:
    for process in processes:
        _, said = process.communicate(timeout=120)
        assert process.returncode == 0, said
        assert "Warning" not in said


def losses(store: Path) -> dict[float, list[bytes]]:
    """What the complete runs of a sweep logged, by their rate."""
    found: dict[float, list[bytes]] = {}
    with florlog.open(store) as log:
        for run in log.runs:
            assert run.summary()["status"] == "complete"
            assert run.params["lr"] not in found
            found[run.params["lr"]] = [struct.pack("d", v.value) for v in run.logged() if v.name == "loss"]
    return found


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "sweep.py"
    path.write_text(SWEEP.replace("RESUME", "never"))
    return path


@pytest.fixture
def alone(script: Path) -> dict[float, list[bytes]]:
    """What each run of the sweep logs that has a store of its own."""
    stores = [script.with_name(f"alone{rate}") for rate in RATES]
    ended(
        [
            process
            for store, rate in zip(stores, RATES, strict=True)
            for process in started(store, script, rate)
        ]
    )
    return {rate: found for store in stores for rate, found in losses(store).items()}


def test_processes_that_start_in_the_same_instant_in_an_empty_directory(
    script: Path, alone: dict[float, list[bytes]]
) -> None:
    store = script.with_name("store")
    ended(started(store, script, *RATES))
    assert losses(store) == alone
    rows = json.loads(flor(store, "runs", "--format", "json").stdout)
    assert sorted(row["params"]["lr"] for row in rows) == sorted(map(float, RATES))
    assert json.loads(flor(store, "verify", "--format", "json").stdout)["ok"]
    script.write_text(script.read_text().replace("run.log(loss=loss)", "run.log(loss=loss, bias=model.bias)"))
    found = json.loads(flor(store, "replay", script, "--all", "--format", "json").stdout)["runs"]
    assert len(found) == len(RATES)
    assert all(len(answer["values"]) == 20 for answer in found)
    assert {value["trust"] for answer in found for value in answer["values"]} <= {"PROVEN", "CONSISTENT"}


def test_a_sweep_that_was_killed_goes_on_each_process_with_its_own_run(
    script: Path, alone: dict[float, list[bytes]]
) -> None:
    script.write_text(SWEEP.replace("RESUME", "auto"))
    store = script.with_name("store")
    processes = started(store, script, *RATES, pause=0.1)
    time.sleep(1.0)
    for process in processes:
        process.send_signal(signal.SIGKILL)
        process.wait()
    ended(started(store, script, *RATES))
    assert losses(store) == alone


def test_of_two_processes_that_would_go_on_with_one_run_one_does_and_the_other_begins_a_new_one(
    script: Path,
) -> None:
    script.write_text(SWEEP.replace("RESUME", "auto"))
    store = script.with_name("store")
    (process,) = started(store, script, "0.1", pause=0.1)
    time.sleep(1.0)
    process.kill()
    process.wait()
    ended(started(store, script, "0.1", "0.1", pause=0.05))
    with florlog.open(store) as log:
        assert [run.summary()["status"] for run in log.runs] == ["complete"] * 2
        assert [len(run.tree().sessions) for run in log.runs] == [2, 1]


def test_replays_store_what_they_find_while_the_run_is_recorded_and_beside_each_other(script: Path) -> None:
    store = script.with_name("store")
    script.with_name("hold").touch()
    (process,) = started(store, script, "0.1")
    while True:
        time.sleep(0.2)
        if store.exists() and (rows := json.loads(flor(store, "runs", "--format", "json").stdout)):
            assert rows[0]["status"] == "running"
            if rows[0]["iterations"] >= 6:
                break
    text = script.read_text()
    asked = []
    for name, what in (("bias", "model.bias"), ("mean", "model.weight.mean()")):
        path = script.with_name(f"{name}.py")
        path.write_text(text.replace("run.log(loss=loss)", f"run.log(loss=loss); run.log({name}={what})"))
        run = rows[0]["run"]
        words = ["-m", "florlog", "replay", path, "--run", run, "--where", "epoch == 0", "--format", "json"]
        asked.append(
            subprocess.Popen(
                [sys.executable, *words], env=environment(store), stdout=subprocess.PIPE, text=True
            )
        )
    for replayed in asked:
        out, _ = replayed.communicate(timeout=120)
        assert replayed.returncode == 0
        assert len(json.loads(out)["values"]) == 5
    assert process.poll() is None
    script.with_name("hold").unlink()
    ended([process])
    with florlog.open(store) as log:
        names = {value.name for value in log.run().hindsight()}
        assert names == {"bias", "mean"}
        assert log.run().summary()["status"] == "complete"
        assert len(log.values("loss")) == 20
    assert verify(run_directory(store)).ok
    assert verify(run_directory(store) / "answers").ok


def test_a_run_is_whole_wherever_its_directory_is_copied(script: Path, tmp_path: Path) -> None:
    store = script.with_name("store")
    ended(started(store, script, "0.1", "0.2"))
    with florlog.open(store) as log:
        run, expected = log.runs[0].id, log.runs[0].values("loss")
    where = tmp_path / "sent"
    (store / "runs" / run).rename(where)
    with florlog.open(where) as log:
        assert [view.id for view in log.runs] == [run]
        assert log.values("loss").equals(expected)
    script.write_text(script.read_text().replace("run.log(loss=loss)", "run.log(loss=loss, bias=model.bias)"))
    assert len(replay(where, script)["values"]) == 20
    with florlog.open(store) as log:
        assert run not in [view.id for view in log.runs]
        assert len(log.runs) == 1
    (where).rename(store / "runs" / "renamed")
    done = flor(store, "runs", "--format", "json")
    assert len(json.loads(done.stdout)) == 1
    assert f"it holds run '{run}', so it must be called that" in done.stderr


def _begin(run: str) -> RunBegin:
    return RunBegin(run, run, "record", "/t.py", (), "/", {}, {}, (), 0.0, 0, 1, 0)


def _in_children(count: int, work: Any) -> list[int]:
    """The exit codes of forked children that do ``work(number)`` at the same instant."""
    ready, go = os.pipe(), os.pipe()
    children = []
    for number in range(count):
        if not (child := os.fork()):
            code = 99
            try:
                os.write(ready[1], b"x")
                os.close(go[1])
                os.read(go[0], 1)
                code = work(number)
            finally:
                os._exit(code)
        children.append(child)
    for _ in children:
        os.read(ready[0], 1)
    os.close(go[1])
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    for end in (*ready, go[0]):
        os.close(end)
    return codes


def test_writers_that_race_for_a_new_store_all_get_it(tmp_path: Path) -> None:
    for round_ in range(20):
        store = tmp_path / f"{round_}" / "store"

        def work(number: int, store: Path = store) -> int:
            with Store.make(store) as made, made.new_log(f"run{number}") as log:
                log.append(_begin(f"run{number}"))
            return 0

        assert _in_children(4, work) == [0] * 4
        with Store.open(store) as made:
            assert sorted(made.runs()) == [f"run{number}" for number in range(4)]
        assert (store / ".gitignore").read_text() == "*\n"
        assert sorted(path.name for path in store.iterdir()) == [".gitignore", "FLORLOG", "runs"]


def test_writers_that_race_for_one_run_id_do_not_share_it(tmp_path: Path) -> None:
    for round_ in range(20):
        store = tmp_path / f"{round_}"
        Store.make(store).close()

        def work(number: int, store: Path = store) -> int:
            try:
                with Store.open(store) as made, made.new_log("same") as log:
                    log.append(_begin("same"))
                    return 0
            except RunExists:
                return 1

        assert sorted(_in_children(4, work)) == [0, 1, 1, 1]
        assert verify(store / "runs" / "same").ok


def test_a_run_has_one_writer(tmp_path: Path) -> None:
    with Store.make(tmp_path) as store, store.new_log("a") as log:
        log.append(_begin("a"))
        with pytest.raises(RunLocked, match=str(os.getpid())):
            store.open_log("a")
        with pytest.raises(RunLocked):
            store.remove("a")
        assert store.log("a").sessions()
        with store.new_log("b") as other:
            other.append(_begin("b"))
        store.remove("b")
        assert store.runs() == ["a"]


def test_what_a_killed_writer_left_is_no_run_and_is_swept(tmp_path: Path) -> None:
    with Store.make(tmp_path) as store:
        (tmp_path / "runs" / "begun").mkdir()
        (tmp_path / "runs" / ".removed-1").mkdir()
        assert store.runs() == []
        with pytest.raises(RunExists):
            store.new_log("begun")
        with store.new_log("being-made") as log:
            log.append(_begin("being-made"))
            assert store.sweep() == 2
        assert store.runs() == ["being-made"]
    with RunLog.open(tmp_path / "runs" / "being-made") as log:
        assert log.sessions()


def test_a_store_of_an_earlier_format_is_refused_in_one_line(tmp_path: Path) -> None:
    store = tmp_path / "store"
    store.mkdir()
    (store / "FLORLOG").write_text("florlog store\nformat 2\nengine lmdb-0.9\n")
    for command in ("runs", "verify", "inspect", "gc"):
        done = flor(store, command, check=False)
        assert done.returncode != 0
        (line,) = done.stderr.splitlines()
        assert "format 2" in line
        assert "use the version that wrote it" in line
    (tmp_path / "t.py").write_text(
        "import florlog\nwith florlog.run('t') as run:\n    run.log(x=1)\nprint('trained')\n"
    )
    done = python(store, tmp_path / "t.py")
    assert "trained" in done.stdout
    assert "is not recorded" in done.stderr
    assert (store / "FLORLOG").read_text().startswith("florlog store\nformat 2")
