"""The commands that read, on a store whose every field is absurd: an answer or one line, never a traceback."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import pytest
from florlog_wal import (
    Array,
    CheckpointBegin,
    CheckpointEnd,
    Commit,
    Hindsight,
    LoopBegin,
    LoopEnd,
    Note,
    RunBegin,
    RunEnd,
    Statement,
    Store,
)

import florlog
from florlog.commands import main

EVIL = "\x1b]0;owned\x07\x1b[2J\n../../../../etc/passwd\0\ud800"
RUN = "run"


def deep(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


VALUES: dict[str, Any] = {
    "a shape that does not fit": Array("float32", (2**40, 3), b"1234"),
    "a dtype that is none": Array("nn.Module", (1,), b"1234"),
    "a dtype that is code": Array("__import__('os')", (1,), b"1234"),
    "an object dtype": Array("O", (1,), b"12345678"),
    "no dtype": Array("", (), b""),
    "a shape of nothing": Array("float64", (0, 2**62), b""),
    "an integer of a million bits": 2**1_000_000,
    "deep": deep(90),
    "text": EVIL * 100,
    "nan": math.nan,
    "a dict with every kind of key": {(1, 2): {frozenset({b"x"}): {None}}, EVIL: 1j},
    EVIL: EVIL,
}


@pytest.fixture
def store(tmp_path: Path) -> Path:
    path = tmp_path / "store"
    for number, started in enumerate((1e300, math.inf, math.nan, -1e18)):
        write(path, f"{RUN}{number}", started)
    return path


def write(path: Path, run: str, started: float) -> None:
    with Store.make(path) as made, made.new_log(run) as store:
        page = store.put_pages([b"\xff\x00 not Python " + EVIL.encode(errors="replace")]).digests[0]
        session = store.append(
            RunBegin(
                run, EVIL, "record", "/../../" + EVIL, (EVIL, "--flag"), EVIL, {**VALUES},
                {"threads": EVIL, "variables": {EVIL: EVIL}},
                (("/../../x", "__main__", page), ("", "", page), ("relative", EVIL, page), ("/a/../b.py", "os", page)),
                started, 0, 1, 0,
            )
        )  # fmt: skip
        first = store.append(
            Statement(1, "loop", EVIL, EVIL, -(2**63), b"", (), (EVIL,)), session=session, prev=session
        )
        loop = store.append(
            LoopBegin((), EVIL, 0, 1, "for", -(2**63), 0, ((EVIL, EVIL, 2**63 - 1),), math.nan, {**VALUES}),
            session=session,
            prev=first,
        )
        store.append(Statement(2, "log", EVIL, EVIL, 2**63, b"x", (EVIL,), tuple(VALUES)), session=session)
        values = tuple((2, name, value) for name, value in VALUES.items())
        for index in range(3):
            store.append(
                Commit(loop, index, 0, values, math.inf, b"short", b"", b"x" * 100, False), session=session
            )
        begin = store.append(CheckpointBegin(loop, 3), session=session, prev=loop)
        store.append(
            CheckpointEnd(begin, page, 2**64 - 1, 2**64 - 1, math.nan, -1.0), session=session, prev=begin
        )
        store.append(LoopEnd(loop, 3, False), session=session, prev=loop)
        store.append(Hindsight(((EVIL, 1),), values, EVIL, EVIL), session=session)
        with store.open_answers() as answers:
            replay = answers.append(
                RunBegin(EVIL, EVIL, "replay", EVIL, (EVIL,), EVIL, {}, {}, (), started, 0, 1, 0)
            )
            answers.append(
                Statement(1, "log", EVIL, EVIL, 2**63, b"x", (EVIL,), tuple(VALUES)), session=replay
            )
            found = tuple((1, name, value) for name, value in VALUES.items())
            answers.append(Hindsight(((EVIL, 1),), found, EVIL, EVIL), session=replay)
            answers.append(Note("asked", EVIL, {**VALUES}), session=replay)
            answers.append(RunEnd(EVIL, math.nan, None), session=replay)
        store.append(Note("source", EVIL, {"path": "/../../late.py", "page": page}), session=session)
        store.append(Note(EVIL, EVIL, {**VALUES}), session=session)
        store.append(RunEnd("complete", math.nan, None), session=session)


@pytest.mark.parametrize(
    "words",
    [
        ("runs",), ("runs", "--format", "json"), ("inspect", "--format", "text"), ("inspect", "--format", "json"),
        ("inspect", "--format", "csv"), ("inspect", "--stats"), ("inspect", "tree", "--format", "text"),
        ("inspect", "values", "--format", "text"), ("inspect", "values", "--format", "json"),
        ("inspect", "images", "--format", "text"), ("inspect", "--answers", "--format", "json"),
        ("inspect", "source", "--format", "text"), ("inspect", "plan", "--format", "text"),
        ("diff", f"{RUN}0", f"{RUN}1"),
        ("export", "values", "-o", "out.csv"), ("export", "values", "-o", "out.jsonl"),
        ("export", "state", "--at", "step=1", "-o", "out.pt"), ("verify",),
        ("bisect", "script.py", "--first", "nan > 1", "--run", f"{RUN}0"), ("replay", "script.py", "--run", f"{RUN}0"),
        ("replay", "script.py", "--run", f"{RUN}0,{RUN}1"), ("explain", "script.py", "--run", f"{RUN}0"),
        ("resume", "script.py", "--run", f"{RUN}0"),
    ],
    ids=" ".join,
)  # fmt: skip
def test_a_command_that_reads_answers_or_refuses(
    store: Path,
    words: tuple[str, ...],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(store.parent)
    (store.parent / "script.py").write_text("raise SystemExit('executed')\n")
    before = {path for path in store.parent.rglob("*") if path.suffix != ".mdb"}
    assert main([words[0], "--store", str(store), *words[1:]]) in (0, 1, 2)
    said = capsys.readouterr()
    assert "\x1b" not in said.out + said.err
    assert "\x07" not in said.out + said.err
    assert "executed" not in said.out + said.err
    made = {path for path in store.parent.rglob("*") if path.suffix != ".mdb"} - before
    assert {path.name for path in made} <= {"out.csv", "out.jsonl", "out.pt", "catalogue"}
    assert not os.path.lexists("/late.py")


def test_reading_in_python_answers_or_refuses(store: Path) -> None:
    with florlog.open(store) as log:
        assert len([view.summary() for view in log.runs]) == 4
        assert list(log.iterations())
        assert list(log.records())
        assert log.runs[0].columns("nan")
