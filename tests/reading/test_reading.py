"""What a store contains, for those who read it in Python and on the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from florlog_wal import CheckpointEnd, RunLog

import florlog
from florlog.commands import main
from tests.run_directories import run_directory


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store"


def train(store: Path, *, epochs: int = 3, fail_at: int | None = None, **options: Any) -> str:
    torch.manual_seed(1)
    model = torch.nn.Linear(3, 1)
    optimizer = torch.optim.Adam(model.parameters())
    with florlog.run("reading", store=store, params={"lr": 1e-3}, **options) as run:
        run.track(model=model, optimizer=optimizer)
        for epoch in run.loop("epoch", range(epochs)):
            for step in run.loop("step", range(4)):
                loss = model(torch.randn(8, 3)).square().mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                run.log(loss=loss, lr=0.1)
                if epoch == 1 and step == fail_at:
                    raise ZeroDivisionError("on purpose")
            run.log(weight=model.weight, note=f"epoch {epoch}")
        run.log(final=True)
    return run.id


def test_values_are_a_table_with_a_column_per_loop_and_name(store: Path) -> None:
    train(store)
    with florlog.open(store) as log:
        both = log.values("loss", "note")
        assert list(both.columns) == ["epoch", "step", "loss", "note", "trust"]
        assert len(both) == 15
        outer = both[both["step"].isna()]
        assert outer["note"].tolist() == ["epoch 0", "epoch 1", "epoch 2"]
        assert both["loss"].notna().sum() == 12
        assert set(both["trust"]) == {"RECORDED"}
        loss = log.values("loss")
        assert loss["epoch"].dtype == "Int64"
        assert loss["loss"].dtype == np.float64
        assert log.values("final")["final"].tolist() == [True]
        weight = log.values("weight")["weight"][0]
        assert isinstance(weight, np.ndarray)
        assert weight.shape == (1, 3)


def test_a_name_logged_twice_in_an_iteration_gives_a_list(store: Path) -> None:
    with florlog.run("twice", store=store) as run:
        for _ in run.loop("i", range(2)):
            for number in range(3):
                run.log(x=number)
    with florlog.open(store) as log:
        assert log.values("x")["x"].tolist() == [[0, 1, 2], [0, 1, 2]]


def test_state_at_gives_the_exact_state_where_an_image_stands(store: Path) -> None:
    train(store, overhead=float("inf"))
    with florlog.open(store) as log:
        weights = log.values("weight")["weight"]
        for epoch in range(3):
            state = log.state_at(epoch=epoch, at="end")
            assert np.array_equal(state["model"]["weight"].numpy(), weights[epoch])
            assert state["optimizer"]["param_groups"][0]["lr"] == 1e-3
        with pytest.raises(florlog.FlorlogError, match="has no iteration epoch=7"):
            log.state_at(epoch=7)


def test_a_failed_run_keeps_its_stack_trace_and_what_it_logged(store: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        train(store, fail_at=2)
    with florlog.open(store) as log:
        run = log.run()
        tree = run.tree()
        assert tree.status == "failed"
        failure = tree.failure
        assert failure is not None
        assert (failure.exception, failure.message) == ("ZeroDivisionError", "on purpose")
        assert failure.path == (("epoch", 1), ("step", 2))
        assert failure.frames[-1][3] == 'raise ZeroDivisionError("on purpose")'
        assert failure.path in tree.losers
        assert len(log.values("loss")) == 6  # the iteration that failed is undone


def test_a_reader_sees_what_a_running_writer_has_committed(store: Path) -> None:
    with florlog.run("live", store=store) as run:
        for step in run.loop("step", range(50)):
            run.log(x=step)
            if step == 30:
                with florlog.open(store) as log:
                    assert log.run().summary()["status"] == "crashed"  # this very process: no other writes
                    assert set(log.values("x")["x"]) <= set(range(30))
    with florlog.open(store) as log:
        assert len(log.values("x")) == 50
        assert log.run().summary()["status"] == "complete"


def test_listing_runs_opens_only_those_that_have_changed(
    store: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(8):
        with florlog.run("listed", store=store) as run:
            run.log(x=1)
    assert main(["runs", "--store", str(store), "--format", "json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert len(rows) == 8
    opened: list[str] = []
    open_log = RunLog.open
    monkeypatch.setattr(
        RunLog, "open", lambda path, **more: (opened.append(str(path)), open_log(path, **more))[1]
    )
    assert main(["runs", "--store", str(store), "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out) == rows
    assert opened == []
    with florlog.run("listed", store=store) as run:
        run.log(x=1)
    opened.clear()
    assert main(["runs", "--store", str(store), "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)[:8] == rows
    assert len(opened) == 1
    with florlog.open(store) as log:
        assert [view.summary() for view in log.runs][:8] == rows


def test_runs_lists_every_run_in_its_json_shape(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = train(store, epochs=1), train(store, epochs=2)
    assert main(["runs", "--store", str(store), "--format", "json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["run"] for row in rows] == [first, second]
    assert [row["iterations"] for row in rows] == [4, 8]
    for row in rows:
        assert set(row) == {
            "run",
            "name",
            "script",
            "status",
            "started",
            "iterations",
            "bytes",
            "params",
            "last",
            "ranks",
            "budget",
            "forced",
            "audited",
        }
        assert row["status"] == "complete"
        pd.Timestamp(row["started"])
    assert main(["runs", "--store", str(store)]) == 0
    assert first in capsys.readouterr().out


def test_inspect_prints_a_record_a_line(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = train(store)
    assert main(["inspect", run, "--store", str(store), "--format", "json"]) == 0
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [record["lsn"] for record in records] == list(range(1, len(records) + 1))
    assert all({"lsn", "type", "run", "path", "prev_lsn", "bytes"} <= set(record) for record in records)
    commits = [record for record in records if record["type"] == "Commit"]
    assert {"epoch": 2, "step": 3} in [record["path"] for record in commits]
    assert records[0]["type"] == "RunBegin"
    assert records[-1]["type"] == "RunEnd"
    assert main(["inspect", "--store", str(store)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(records)
    assert all(line.startswith("lsn ") for line in lines)


def test_inspect_shows_control_characters_as_text(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with florlog.run("evil\x1b[31m", store=store) as run:
        run.log(x="\x1b]0;owned\x07")
    assert main(["inspect", "--store", str(store)]) == 0
    assert "\x1b" not in capsys.readouterr().out


def test_verify_tells_a_damaged_page(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(store, overhead=float("inf"))
    assert main(["verify", "--store", str(store)]) == 0
    capsys.readouterr()
    data = run_directory(store) / "pages" / "data.mdb"
    with florlog.open(store) as log:
        image = [entry.record for entry in log.records() if isinstance(entry.record, CheckpointEnd)][-1]
        page = log.run().log.get_page(image.table)
    content = data.read_bytes()
    assert page in content
    data.write_bytes(content.replace(page, bytes([page[0] ^ 1]) + page[1:]))
    assert main(["verify", "--store", str(store), "--format", "json"]) == 1
    assert json.loads(capsys.readouterr().out)["problems"]
    assert main(["verify", "--store", str(store)]) == 1
    *problems, counts = capsys.readouterr().out.splitlines()
    assert f": page {image.table.hex()}: " in problems[0]
    assert counts.startswith("runs 1, sessions 1, records ")
    assert counts.endswith(f", problems {len(problems)}")
    data.write_bytes(content[:5000])  # too damaged to be opened
    assert main(["verify", "--store", str(store), "--format", "json"]) == 1
    assert "data.mdb is damaged" in json.loads(capsys.readouterr().out)["problems"][0]["text"]


def test_tracking_and_logging_never_change_the_random_numbers(store: Path) -> None:
    def numbers(recorded: bool) -> list[float]:
        torch.manual_seed(3)
        drawn = []
        if not recorded:
            return [torch.rand(()).item() for _ in range(3)]
        with florlog.run("same", store=store, overhead=float("inf")) as run:
            run.track(w=torch.zeros(3))
            for _ in run.loop("i", range(3)):
                drawn.append(torch.rand(()).item())
                run.log(x=drawn[-1])
        return drawn

    assert numbers(recorded=True) == numbers(recorded=False)


def test_gc_keeps_the_newest_runs_and_all_that_they_need(
    store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [train(store, overhead=float("inf")) for _ in range(3)]
    size = (run_directory(store) / "pages" / "data.mdb").stat().st_size
    assert main(["gc", "--store", str(store), "--keep-last", "1", "--dry-run", "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["runs"] == runs[:2]
    with florlog.open(store) as log:
        assert [run.id for run in log.runs] == runs
        before = log.values("loss")["loss"].tolist()
    copy = store.parent / "small"
    assert main(["gc", "--store", str(store), "--keep-last", "1", "--compact", str(copy)]) == 0
    assert "removed 2 runs" in capsys.readouterr().out
    assert (run_directory(copy) / "pages" / "data.mdb").stat().st_size <= size
    for place in (store, copy):
        assert main(["verify", "--store", str(place)]) == 0
        with florlog.open(place) as log:
            assert [run.id for run in log.runs] == runs[2:]
            assert log.values("loss")["loss"].tolist() == before
            log.state_at(epoch=2, at="end")
    with pytest.raises(SystemExit):
        main(["gc", "--store", str(store), "--budget", "plenty"])
