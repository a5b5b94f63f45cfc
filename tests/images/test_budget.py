"""A run's images within a number of bytes: thinned, the newest never lost, and said so."""

from __future__ import annotations

import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from florlog_wal import CheckpointBegin, CheckpointEnd, Note, RunLog, Thinner, gc, verify

import florlog
from florlog.commands import main
from florlog.images.imager import SavedState
from florlog.inspect.outline import outline_text
from florlog.program.measured_costs import remember, restore_costs
from florlog.program.units import size
from florlog.recording.run_arguments import bytes_of
from tests.end_to_end.harness import Nursery, logged
from tests.run_directories import run_directory

STATE = 400_000  # bytes


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What other test modules have as globals is not the program's state: sizes are compared here."""
    monkeypatch.chdir(tmp_path)


def train(store: Path, steps: int, budget: int | str | None, *, overhead: float = float("inf")) -> str:
    weight = torch.zeros(STATE // 4)
    with florlog.run("bounded", store=store, overhead=overhead, budget=budget) as run:
        run.track(weight=weight)
        for step in run.loop("step", range(steps)):
            weight += 0.1 * torch.randn(STATE // 4)
            run.log(step=step)
            time.sleep(0.01)  # so that steps are even in time, also where the machine is busy
        return run.id


def images(store: Path) -> list[int]:
    """The boundaries at which there are images."""
    with RunLog.open(run_directory(store)) as log:
        found = []
        for entry in log.scan(types=[CheckpointEnd]):
            assert isinstance(entry.record, CheckpointEnd)
            begin = log.record(entry.record.begin).record
            assert isinstance(begin, CheckpointBegin)
            assert SavedState(log, entry.record.table).tree("weight")["data"].nbytes == STATE
            found.append(begin.index)
        return found


def decisions(store: Path) -> list[Note]:
    with RunLog.open(run_directory(store)) as log:
        notes = [entry.record for entry in log.scan(types=[Note])]
    return [note for note in notes if isinstance(note, Note) and "full" in note.data]


def test_a_runs_images_stay_within_the_budget_dense_at_its_end_and_sparse_before(tmp_path: Path) -> None:
    train(tmp_path / "store", 3, None)  # another run, which is left alone
    train(tmp_path / "store", 60, 7 * STATE)
    with RunLog.open(run_directory(tmp_path / "store"), mode="w") as store:
        assert 2 * STATE < Thinner(store).thin(float("inf")).bytes <= 7 * STATE
    kept = images(tmp_path / "store")
    assert 3 <= len(kept) <= 7
    assert kept[0] == 0
    assert kept[-1] > 30
    notes = decisions(tmp_path / "store")
    assert notes
    assert all(
        note.kind == "policy" and "thinned to" in note.text and not note.data["full"] for note in notes
    )
    assert all(note.data["used"] <= 7 * STATE for note in notes)
    report = verify(run_directory(tmp_path / "store"))
    assert not report.problems
    freed = gc(run_directory(tmp_path / "store"))  # thinning left no page that nobody names
    assert freed.pages == 0
    pages = (run_directory(tmp_path / "store") / "pages" / "data.mdb").stat().st_size
    assert pages < 2 * 7 * STATE  # of 64 that were written; freed pages are used again a few commits later


def test_a_budget_below_two_states_keeps_the_images_that_fit_and_says_so(tmp_path: Path) -> None:
    with pytest.warns(RuntimeWarning, match="no more images: 1 are kept"):
        train(tmp_path / "one", 5, int(1.5 * STATE))
    assert images(tmp_path / "one") == [0]
    with pytest.warns(RuntimeWarning, match="no more images: 0 are kept"):
        train(tmp_path / "none", 5, STATE // 2)
    assert images(tmp_path / "none") == []
    for name in ("one", "none"):
        assert decisions(tmp_path / name)[-1].data["full"]
        with florlog.open(tmp_path / name) as log:
            assert list(log.runs[-1].values("step")["step"]) == list(range(5))


def test_without_a_budget_a_run_takes_a_tenth_of_the_free_space_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    store, free = tmp_path / "store", 70 * STATE
    real = os.statvfs

    def statvfs(path: Path) -> Any:
        return SimpleNamespace(f_bavail=free // 1000, f_frsize=1000) if path == store else real(path)

    monkeypatch.setattr(os, "statvfs", statvfs)
    train(store, 30, None)
    assert capsys.readouterr().err == "florlog: images may take 2.8 MB, 10% of the free space\n"
    assert 3 <= len(images(store)) <= 7
    with florlog.open(store) as log:
        assert log.run().summary()["budget"] == 7 * STATE
        assert "images may take 2.8 MB" in "\n".join(outline_text(log.run().tree()))
    assert main(["runs", "--store", str(store)]) == 0
    assert "budget" not in capsys.readouterr().out
    train(store, 30, 40 * STATE)
    assert capsys.readouterr().err == ""
    assert len(images(store)) == 31
    with florlog.open(store) as log:
        assert log.run().summary()["budget"] == 40 * STATE


def test_where_the_free_space_cannot_be_read_there_is_no_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = os.statvfs

    def refused(path: Path) -> Any:
        if path == tmp_path / "store":
            raise OSError("not here")
        return real(path)

    monkeypatch.setattr(os, "statvfs", refused)
    train(tmp_path / "store", 20, None)
    assert capsys.readouterr().err == ""
    assert len(images(tmp_path / "store")) == 21
    with florlog.open(tmp_path / "store") as log:
        assert log.run().summary()["budget"] is None


SCRIPT = """
import os, signal, sys, torch, florlog
import florlog_wal.stored_images as images, florlog_wal.thinning as thinning

what, number = sys.argv[1], int(sys.argv[2])
calls = 0
def killing(whole):
    def call(*arguments):
        global calls
        calls += 1
        if calls == number and not os.path.exists(sys.argv[3]):
            open(sys.argv[3], "w").close()
            os.kill(os.getpid(), signal.SIGKILL)
        return whole(*arguments)
    return call
if what != "nothing":
    module = images if what == "_remove" else thinning
    setattr(module, what, killing(getattr(module, what)))

def main():
    weight = torch.zeros(50_000)
    torch.manual_seed(0)
    with florlog.run("bounded", overhead=float("inf"), budget=500_000) as run:
        run.track(weight=weight)
        for step in run.loop("step", range(20)):
            weight += torch.randn(50_000)
            run.log(step=step, sum=weight.sum())
main()
"""


@pytest.mark.crash
def test_killed_while_images_are_dropped_and_resumed(nursery: Nursery, tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(SCRIPT)
    nursery.run(tmp_path / "whole", script, "nothing", "0", "-")
    expected = logged(tmp_path / "whole")
    assert len(expected) == 2 * 20
    for what, number in [("_remove", 1), ("_remove", 2), ("sweep", 1), ("sweep", 3)]:
        store = tmp_path / f"{what}{number}"
        command = [script, what, str(number), tmp_path / f"mark{what}{number}"]
        killed, _ = nursery.run(store, *command)
        assert killed
        nursery.run(store, "florlog", "resume", *command)
        assert logged(store) == expected
        assert not verify(run_directory(store)).problems
        with RunLog.open(run_directory(store), mode="w") as opened:
            assert Thinner(opened).thin(float("inf")).bytes <= 500_000


def test_a_size_is_read_and_what_is_none_refused() -> None:
    assert [size(text) for text in ("500", "1.5K", "2GB", "3 MiB", "1t")] == [
        500,
        1536,
        2 << 30,
        3 << 20,
        1 << 40,
    ]
    assert (bytes_of(None), bytes_of(7), bytes_of("2K")) == (None, 7, 2048)
    for wrong in ("much", "-1", -1, 1.5, ""):
        with pytest.raises(florlog.FlorlogError, match="budget is a number of bytes"):
            bytes_of(wrong)  # type: ignore[arg-type]


def test_what_restores_cost_is_known_to_later_runs_of_the_store(tmp_path: Path) -> None:
    train(tmp_path / "store", 1, None)
    assert restore_costs(tmp_path / "store") is None
    with RunLog.open(run_directory(tmp_path / "store")) as log:
        remember(log, {"restores": [2.0, 3e6, 0.5, 5e12, 0.9e6]})  # 1 MB in 0.1 s, 2 MB in 0.4 s
    known = restore_costs(tmp_path / "store")
    assert known is not None
    assert known(2_000_000) == pytest.approx(0.35, abs=0.1)
    with florlog.run("later", store=tmp_path / "store") as run:
        weight = torch.zeros(500_000)
        run.track(weight=weight)
        for _ in run.loop("step", range(1)):
            pass
        policy = run._states.policy
        assert policy._restored == pytest.approx(known(weight.nbytes), rel=0.05)
