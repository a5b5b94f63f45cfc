"""The commands that free space and give runs away: gc, rm, pack, unpack."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from florlog_wal import RunLog, Store, verify

import florlog
from florlog.commands import main
from tests.end_to_end.harness import flor, logged, newest, replay
from tests.run_directories import run_directory

pytestmark = pytest.mark.drawn_in_file(3)

SCRIPT = """\
import torch, florlog

def main():
    torch.manual_seed(0)
    weight = torch.zeros(30_000)
    with florlog.run("given", overhead=float("inf")) as run:
        run.track(weight=weight)
        for step in run.loop("step", range(6)):
            weight += torch.randn(30_000)
            run.log(step=step){more}

main()
"""


def train(store: Path, steps: int = 4) -> str:
    weight = torch.zeros(30_000)
    with florlog.run("spaced", store=store, overhead=float("inf")) as run:
        run.track(weight=weight)
        for step in run.loop("step", range(steps)):
            weight += torch.randn(30_000)
            run.log(step=step)
        return run.id


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FLORLOG_STORE", raising=False)


def runs(store: Path) -> set[str]:
    return {entry.name for entry in (store / "runs").iterdir()}


def test_rm_removes_the_runs_that_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = tmp_path / "store"
    a, b, c = train(store), train(store), train(store)
    assert main(["rm", a, c, "--dry-run", "--store", str(store)]) == 0
    assert capsys.readouterr().out.splitlines() == [f"would remove {a}", f"would remove {c}"]
    assert runs(store) == {a, b, c}
    assert main(["rm", a, "nothing", "--store", str(store)]) == 2
    assert "nothing was removed" in capsys.readouterr().err
    assert runs(store) == {a, b, c}
    assert main(["rm", a, c, a, "--store", str(store)]) == 0
    assert capsys.readouterr().out.splitlines() == [f"removed {a}", f"removed {c}"]
    assert runs(store) == {b}
    for wrong in ("..", "../runs", f"{b}/log", ".", ""):
        assert main(["rm", wrong, "--store", str(store)]) == 2
    assert runs(store) == {b}


def test_rm_leaves_a_run_that_is_being_recorded_and_removes_the_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = tmp_path / "store"
    a, b = train(store), train(store)
    with Store.open(store) as opened, opened.open_log(a):
        assert main(["rm", a, b, "--dry-run", "--store", str(store)]) == 1
        assert capsys.readouterr().out == f"would remove {b}\n"
        assert runs(store) == {a, b}
        assert main(["rm", a, b, "--store", str(store)]) == 1
        said = capsys.readouterr()
        assert said.out == f"removed {b}\n"
        assert said.err.startswith(f"florlog: run {a} stays: ")
        assert len(said.err.splitlines()) == 1
    assert runs(store) == {a}
    assert main(["rm", a, "--store", str(store)]) == 0


def test_gc_thins_and_removes_and_says_what_it_left(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = tmp_path / "store"
    a, b, c = train(store), train(store), train(store)
    with Store.open(store) as opened, opened.open_log(a):
        assert main(["gc", "--keep-last", "1", "--budget", "200K", "--store", str(store)]) == 0
    said = capsys.readouterr().out
    assert "removed 1 runs" in said
    assert f"being written to: {a}" in said
    assert runs(store) == {a, c}
    with florlog.open(store) as log:
        assert list(log.run(c).values("step")["step"]) == list(range(4))
    (store / "runs" / a / "log" / "data.mdb").write_bytes(b"")
    assert main(["gc", "--keep-last", "1", "--store", str(store), "--format", "json"]) == 1
    found = capsys.readouterr()
    report = json.loads(found.out)
    assert (report["runs"], len(report["damaged"])) == ([], 1)
    assert found.err.startswith(f"florlog: run {a}: ")
    assert b not in runs(store)


def test_gc_copies_a_whole_store(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store, copy = tmp_path / "store", tmp_path / "copy"
    a, b = train(store), train(store)
    assert main(["gc", "--compact", str(copy), "--store", str(store)]) == 0
    assert runs(copy) == {a, b}
    for run in (a, b):
        assert verify(copy / "runs" / run).ok
        with RunLog.open(copy / "runs" / run) as one, RunLog.open(store / "runs" / run) as two:
            assert list(one.scan()) == list(two.scan())
    assert main(["gc", "--compact", str(copy), "--store", str(store)]) == 2
    assert "already" in capsys.readouterr().err


def test_a_run_that_was_given_away_is_read_replayed_and_resumed(tmp_path: Path) -> None:
    store, other = tmp_path / "store", tmp_path / "other"
    script = tmp_path / "train.py"
    script.write_text(SCRIPT.format(more=""))
    flor(store, "resume", script, check=False)  # there is nothing yet
    import subprocess
    import sys

    subprocess.run([sys.executable, script], env={**os.environ, "FLORLOG_STORE": str(store)}, check=True)
    run = newest(store)
    script.write_text(SCRIPT.format(more="\n            run.log(total=float(weight.sum()))"))
    first = replay(store, script)
    done = flor(store, "pack", run, "-o", tmp_path / "file")
    assert done.stdout.startswith(f"run {run}, ")
    assert flor(other, "unpack", tmp_path / "file").stdout == f"run {run} is in {other}\n"
    assert logged(other) == logged(store)
    assert json.loads(flor(other, "verify", "--format", "json").stdout)["ok"]
    with florlog.open(other) as log:
        assert len(log.run().values("total")["total"]) == 6  # the answers have come along
    again = flor(other, "unpack", tmp_path / "file", check=False)
    assert (again.returncode, len(again.stderr.splitlines())) == (2, 1)
    assert replay(other, script)["values"] == first["values"]
    assert verify(run_directory(other)).ok


def test_what_cannot_be_unpacked_is_said_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_bytes(b"no archive" * 1000)
    for file in ("file", "nothing", "."):
        assert main(["unpack", str(tmp_path / file), "--store", str(tmp_path / "store")]) == 2
        assert len(capsys.readouterr().err.splitlines()) == 1
    assert not (tmp_path / "store").exists() or runs(tmp_path / "store") == set()
    run = train(tmp_path / "store")
    for target in (tmp_path / "no" / "file", tmp_path):
        assert main(["pack", run, "-o", str(target), "--store", str(tmp_path / "store")]) == 2
        assert "cannot write" in capsys.readouterr().err
    assert main(["pack", "nothing", "-o", str(tmp_path / "x"), "--store", str(tmp_path / "store")]) == 2
    assert {entry.name for entry in tmp_path.iterdir()} == {"file", "store"}
