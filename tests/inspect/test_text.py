"""``florlog inspect`` as text, JSON and CSV, over real stores."""

from __future__ import annotations

import contextlib
import csv
import io
import itertools
import json
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import IO, Any

import pytest
import torch
from florlog_wal import Commit, LoopBegin, RunBegin, RunLog

import florlog
from florlog.commands import main
from florlog.commands.inspect import VIEWS
from florlog.inspect.selection import At

from .stores import evil, train


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "store"
    train(path, overhead=float("inf"))
    return path


def shown(capsys: pytest.CaptureFixture[str], store: Path, *words: str) -> str:
    assert main(["inspect", "--store", str(store), *words]) == 0
    return capsys.readouterr().out


def records(capsys: pytest.CaptureFixture[str], store: Path, *words: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in shown(capsys, store, "--format", "json", *words).splitlines()]


def test_filters_leave_exactly_the_records_that_are_meant(
    store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    everything = records(capsys, store)
    assert records(capsys, store, "--from", "5", "--to", "9") == everything[4:9]
    commits = [r for r in everything if r["type"] == "Commit"]
    assert records(capsys, store, "--type", "commit") == commits
    assert records(capsys, store, "--reverse") == everything[::-1]
    assert records(capsys, store, "--limit", "3") == everything[:3]
    inside = [
        r["path"] for r in commits if r["path"].get("epoch") == 1 and 1 <= r["path"].get("step", -1) < 3
    ]
    assert [
        r["path"] for r in records(capsys, store, "--at", "epoch=1, step=1:3", "--type", "Commit")
    ] == inside
    assert len(inside) == 2
    images = [r for r in everything if r["type"].startswith("Checkpoint") and r["path"].get("epoch") == 1]
    assert records(capsys, store, "--at", "epoch=1", "--type", "CheckpointBegin,CheckpointEnd") == images
    assert {r["type"] for r in images} == {"CheckpointBegin", "CheckpointEnd"}
    named = records(capsys, store, "--name", "not*", "--type", "Commit")
    assert [value for r in named for _, value, _ in r["values"]] == ["weight", "note"] * 3


def test_a_record_s_path_is_known_wherever_reading_starts(
    store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    everything = {r["lsn"]: r["path"] for r in records(capsys, store)}
    last = records(capsys, store, "--type", "Commit", "--reverse")
    assert all(everything[r["lsn"]] == r["path"] for r in last)


@pytest.mark.parametrize("text", ["epoch", "epoch=x", "=3", "epoch=-1", "epoch=1:2:3", ""])
def test_an_address_that_cannot_be_read_is_wrong_use(text: str, store: Path) -> None:
    with pytest.raises(florlog.FlorlogError, match="cannot read the iterations"):
        At.parse(text)


def test_csv_has_a_head_and_a_row_a_record(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = list(csv.DictReader(io.StringIO(shown(capsys, store, "--format", "csv"))))
    assert [int(row["lsn"]) for row in rows] == [r["lsn"] for r in records(capsys, store)]
    values = list(
        csv.DictReader(io.StringIO(shown(capsys, store, "values", "--format", "csv", "--name", "note")))
    )
    assert [row["value"] for row in values] == ['"epoch 0"', '"epoch 1"', '"epoch 2"']


def test_stats_add_up_to_the_records(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (stats,) = records(capsys, store, "--stats")
    everything = records(capsys, store)
    for name, figures in stats["types"].items():
        mine = [r["bytes"] for r in everything if r["type"] == name]
        assert (figures["records"], figures["bytes"]) == (len(mine), sum(mine))
    steps = [r for r in everything if r["type"] == "Commit" and "step" in r["path"]]
    assert stats["loops"]["step"]["seconds"] == pytest.approx(sum(r["seconds"] for r in steps))
    assert stats["images"]["count"] == sum(r["type"] == "CheckpointEnd" for r in everything) > 3
    assert 0 < stats["images"]["expected_redo_seconds"] <= stats["images"]["longest_redo_seconds"]
    text = shown(capsys, store, "--stats")
    assert "Commit" in text
    assert "redo after a crash" in text


def test_the_tree_has_every_loop_execution_and_its_cost(
    store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    facts = records(capsys, store, "tree")
    loops = [f for f in facts if "loop" in f]
    assert [(f["loop"], f["iterations"], f["state"]) for f in loops] == [("epoch", 3, "ended")] + [
        ("step", 4, "ended")
    ] * 3
    assert [f["path"] for f in records(capsys, store, "tree", "--at", "epoch=1") if "loop" not in f] == [
        {"epoch": 1}
    ]
    assert "epoch=2: committed" in shown(capsys, store, "tree")


def test_values_and_images_and_source_and_plan_tell_what_the_run_has(
    store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    losses = records(capsys, store, "values", "--name", "loss")
    with florlog.open(store) as log:
        assert [v["value"] for v in losses] == log.values("loss")["loss"].tolist()
    images = records(capsys, store, "images")
    assert {"epoch": 1} in [image["path"] for image in images]
    assert all(image["saves_seconds"] >= 0 for image in images)
    sources = records(capsys, store, "source")
    mine = next(source for source in sources if source["file"].endswith("stores.py"))
    lines = mine["text"].splitlines()
    for statement in mine["statements"]:
        assert ("loop(" if statement["kind"] == "loop" else "log(") in lines[statement["line"] - 1]
    (plan,) = records(capsys, store, "plan", "--at", "epoch=2, step=1")
    assert plan["iterations_redone"] <= 2
    assert any(segment["restore"] for segment in plan["segments"])


def test_a_view_or_type_that_does_not_exist_is_wrong_use(
    store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["inspect", "leaves", "x", "--store", str(store)]) == 2
    assert "there is no view" in capsys.readouterr().err
    assert main(["inspect", "--store", str(store), "--type", "Commmit"]) == 2
    assert "no record type is called 'Commmit'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("tree --type Commit", "the view tree does not take --type"),
        ("source --at epoch=1", "the view source does not take --at"),
        ("images --from 3", "the view images does not take --from"),
        ("values --follow", "the view values does not take --follow"),
        ("tree --format csv", "the view tree has no CSV form"),
        ("--stats --format csv", "--stats has no CSV form"),
        ("--follow --reverse", "--follow and --reverse do not go together"),
    ],
)
def test_what_would_be_passed_over_is_wrong_use(
    words: str, told: str, store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["inspect", "--store", str(store), *words.split()]) == 2
    assert told in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["inspect", "--store", str(store), "--limit", "-1"])


def test_a_filter_that_nothing_fits_is_told(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["--at", "epcoh=1"], ["values", "--name", "los"]):
        assert main(["inspect", "--store", str(store), *words]) == 0
        out, err = capsys.readouterr()
        assert out == ""
        assert f"fits {' '.join(words[-2:])}" in err
    images = records(capsys, store, "images", "--at", "epoch=1")
    assert images
    assert all(image["path"]["epoch"] == 1 for image in images)


def test_nothing_that_a_log_holds_reaches_the_terminal_raw(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    forms = (
        [],
        ["--stats"],
        ["tree"],
        ["values"],
        ["images"],
        ["source"],
        ["--format", "csv"],
        ["--format", "json"],
    )
    for run in evil(tmp_path / "store"):
        for words in (*forms, ["values", "--format", "csv"], ["values", "--format", "json"]):
            text = shown(
                capsys,
                tmp_path / "store",
                *[w for w in words if w in VIEWS],
                run,
                *[w for w in words if w not in VIEWS],
            )
            assert text.replace("\n", "").isprintable(), words
            if "--format" not in words:
                assert max(map(len, text.splitlines()), default=0) < 600


def test_a_damaged_array_is_shown_as_what_is_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from florlog_wal import Array

    with RunLog.open(tmp_path / "store", mode="w") as store:
        begin = RunBegin("r", "r", "record", "/r.py", (), "/", {}, {}, (), time.time(), 0, 1, 0)
        session = store.append(begin)
        loop = store.append(LoopBegin((), "i", 0, 0, "for", 1, 0, (), 0.0, {}), session=session)
        bad = Array("float32", (1 << 40, 3), b"\x00" * 4)
        store.append(Commit(loop, 0, 0, ((1, "x", bad),), 0.1, b"", b"", b"", False), session=session)
    assert records(capsys, tmp_path / "store")[-1]["values"][0][2]["data"] == "00000000"
    assert "float32[1099511627776, 3]" in shown(capsys, tmp_path / "store")


def test_a_killed_run_s_records_end_with_a_notice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with RunLog.open(tmp_path / "store", mode="w") as store:
        store.append(RunBegin("r", "r", "record", "/r.py", (), "/", {}, {}, (), time.time(), 0, 1, 0))
    assert main(["inspect", "--store", str(tmp_path / "store")]) == 0
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 1
    assert "the log ends at LSN 1 without the run's end" in err


def test_a_reader_that_leaves_early_is_not_an_error(store: Path) -> None:
    command = [sys.executable, "-m", "florlog", "inspect", "--store", str(store), "--format", "json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(300) == 0


def test_follow_shows_every_record_of_a_live_run_and_ends_with_it(tmp_path: Path) -> None:
    path = tmp_path / "store"
    words = ["inspect", "--follow", "--format", "json", "--store", str(path)]
    followed: list[int] = []

    def read(lines: IO[bytes]) -> None:
        followed.extend(json.loads(line)["lsn"] for line in lines)

    with contextlib.ExitStack() as stack:
        with florlog.run("live", store=path) as run:
            run.track(w=torch.zeros(2))
            command = [sys.executable, "-m", "florlog", *words]
            reader = stack.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE))
            assert reader.stdout is not None
            thread = threading.Thread(target=read, args=(reader.stdout,))
            thread.start()
            begun = None
            for step in run.loop("step", itertools.count()):
                run.log(x=step)
                if begun is None and followed:
                    begun = step
                if (begun is not None and step == begun + 50) or reader.poll() is not None:
                    break
                time.sleep(0.02)
            assert begun is not None  # it read while the run was written
            run.log(last=True)
        thread.join(300)
        assert reader.wait(300) == 0
    with florlog.open(path) as log:
        assert followed == [entry.lsn for entry in log.run().records()]
