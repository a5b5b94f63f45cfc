"""The table of values equals what is made of single values, one at a time, whatever the log contains."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from florlog_wal import (
    Abort,
    Begin,
    Commit,
    Hindsight,
    LoopBegin,
    LoopEnd,
    RunBegin,
    RunEnd,
    RunLog,
    Statement,
    Store,
    Values,
)
from hypothesis import example, given, settings
from hypothesis import strategies as st

import florlog
from florlog.reading.reader import RunView

ORDER = ("DIVERGED", "UNVERIFIED", "CONSISTENT", "PROVEN", "RECORDED")
NAMES = ("a", "b")
VALUES = st.one_of(
    st.integers(-(2**70), 2**70),
    st.floats(width=32),
    st.booleans(),
    st.none(),
    st.text(max_size=3),
    st.lists(st.integers(0, 3), max_size=2),
)
LOGGED = st.lists(st.tuples(st.sampled_from(NAMES), VALUES), max_size=3)
EPOCH = st.tuples(LOGGED, st.lists(LOGGED, max_size=3), LOGGED, st.sampled_from(["commit", "abort", "retry"]))
REPLAY = st.lists(
    st.tuples(st.sampled_from(["p", "q"]), st.sampled_from(NAMES), st.integers(0, 2), st.integers(-1, 2), VALUES,
              st.sampled_from(ORDER[:4])),
    max_size=4,
)  # fmt: skip


class Writer:
    """Writes a run as florlog does: an epoch logs, has steps, logs again; a resume repeats what was cut off."""

    def __init__(self, log: RunLog, run: str) -> None:
        self.log, self.run = log, run
        self.session = 0

    def put(self, record: Any) -> int:
        return self.log.append(record, session=self.session)

    def begin(self, kind: str) -> None:
        self.session = 0
        self.session = self.put(RunBegin(self.run, "r", kind, "/r.py", (), "/", {}, {}, (), 0.0, 0, 1, 0))
        for number, qualname in enumerate(("epochs", "steps", "p", "q"), 1):
            kind = "loop" if number < 3 else "log"
            self.put(Statement(number, kind, "/r.py", qualname, number, b"", (), NAMES))

    def record(self, epochs: list[Any], cut: bool) -> None:
        self.begin("record")
        outer = self.put(LoopBegin((), "epoch", 0, 1, "for", -1, 0, (), 0.0, {}))
        for index, (before, steps, after, end) in enumerate(epochs):
            self.epoch(outer, index, before, steps, after, end if index == len(epochs) - 1 else "commit")
        if cut and epochs:  # the last epoch's steps are begun again by a resume
            self.begin("resume")
            again = self.put(LoopBegin((), "epoch", 0, 1, "for", -1, len(epochs) - 1, (), 0.0, {}))
            if epochs[-1][3] == "abort":
                self.epoch(again, len(epochs) - 1, *epochs[-1][:3], "commit", logged_again=True)
            outer = again
        self.put(LoopEnd(outer, len(epochs), False))
        self.put(RunEnd("complete", 1.0, None))

    def epoch(
        self,
        outer: int,
        index: int,
        before: Any,
        steps: Any,
        after: Any,
        end: str,
        logged_again: bool = False,
    ) -> None:
        self.put(Begin(outer, index))
        if before:
            self.put(Values(outer, index, 0, flat(before)))
        path = (("epoch", index),)
        start = len(steps) if logged_again else 0
        inner = self.put(LoopBegin(path, "step", outer, 2, "for", -1, start, (), 0.0, {}))
        for step in range(start, len(steps)):
            self.put(Commit(inner, step, 0, flat(steps[step]), 0.1, b"", b"", b"", False))
        self.put(LoopEnd(inner, len(steps), False))
        if end != "abort":
            self.put(Commit(outer, index, 1, flat(after), 1.0, b"", b"", b"", False))
        if end != "commit":
            self.put(Abort(outer, index, "it was undone"))
        if end == "retry":
            self.put(Commit(outer, index, 1, flat(after), 1.0, b"", b"", b"", False))

    def replay(self, found: list[Any], whole: bool) -> None:
        with self.log.open_answers() as answers:
            Writer(answers, self.run).answer(found, whole)

    def answer(self, found: list[Any], whole: bool) -> None:
        self.begin("replay")
        for qualname, name, epoch, step, value, trust in found:
            path = (("epoch", epoch), ("step", step))[: 2 if step >= 0 else 1]
            self.put(Hindsight(path, ((3 if qualname == "p" else 4, name, value),), trust, ""))
        if whole:
            self.put(RunEnd("complete", 1.0, None))


def flat(logged: list[tuple[str, Any]]) -> tuple[tuple[int, str, Any], ...]:
    return tuple((3, name, value) for name, value in logged)


def model(view: RunView, names: tuple[str, ...]) -> list[tuple[Any, ...]]:
    """Path, values by name, trust of each row: from one value after another."""
    rows: dict[Any, dict[str, list[Any]]] = {}
    trust: dict[Any, str] = {}
    for value in view.logged():
        if not names or value.name in names:
            rows.setdefault(value.path, {}).setdefault(value.name, []).append(value.value)
            known = trust.get(value.path, "RECORDED")
            trust[value.path] = min(known, value.trust, key=ORDER.index)
    depth = {"epoch": 0, "step": 1}
    paths = sorted(rows, key=lambda path: [(depth[name], index) for name, index in path])
    return [
        (
            dict(path),
            {n: cell[0] if len(cell) == 1 else cell for n, cell in sorted(rows[path].items())},
            trust[path],
        )
        for path in paths
    ]


def table(view: RunView, names: tuple[str, ...]) -> list[tuple[Any, ...]]:
    columns = view.columns(*names)
    found = []
    for row in range(len(columns)):
        path = {n: int(c.values[row]) for n, c in columns.loops.items() if c.present[row]}
        cells = {n: c.objects()[row] for n, c in sorted(columns.names.items()) if c.present[row]}
        found.append((path, cells, columns.labels()[row]))
    return found


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with Store.make(tmp_path_factory.mktemp("columns") / "store") as store:
        yield store


@settings(max_examples=40, deadline=None)
@given(st.lists(EPOCH, max_size=3), st.booleans(), st.lists(st.tuples(REPLAY, st.booleans()), max_size=2),
       st.sampled_from([(), ("a",)]))  # fmt: skip
@example([([("a", 1)], [], [("a", 2.5)], "retry")], False, [], ())
@example(
    [([("a", 1)], [[("a", 3)]], [("a", 2)], "abort")], True, [([("p", "a", 0, 0, 7, "DIVERGED")], True)], ()
)
@example([], False, [([("p", "a", 0, 0, 0, "DIVERGED"), ("p", "a", 1, 0, 0, "UNVERIFIED"),
                      ("p", "a", 1, 0, None, "DIVERGED")], True)], ())  # fmt: skip
def test_the_table_is_that_of_single_values(
    store: Store, epochs: list[Any], cut: bool, replays: list[Any], names: tuple[str, ...]
) -> None:
    run = f"run{len(store.runs())}"
    with store.new_log(run) as log:
        writer = Writer(log, run)
        writer.record(epochs, cut)
        for found, whole in replays:
            writer.replay(found, whole)
    view = RunView(lambda: store.log(run), run)
    assert repr(table(view, names)) == repr(model(view, names))  # repr: 1, 1.0 and True are not the same
    assert len(view.values(*names)) == len(table(view, names))


def test_columns_have_the_type_of_what_was_logged(tmp_path: Path) -> None:
    with florlog.run("types", store=tmp_path / "store") as run:
        for i in run.loop("i", range(4)):
            run.log(real=i / 2, whole=i, truth=i > 1, text=str(i), mixed=i if i % 2 else i / 2, big=2**70 + i)
            if i > 1:
                run.log(late=i, later=True, nan=math.nan)
    with florlog.open(tmp_path / "store") as log:
        frame = log.values()
    kinds = {name: str(kind) for name, kind in frame.dtypes.items()}
    assert kinds | {"text": "", "mixed": "", "big": ""} == {
        "i": "Int64", "real": "float64", "whole": "int64", "truth": "bool", "text": "", "mixed": "", "big": "",
        "late": "Int64", "later": "boolean", "nan": "float64", "trust": "category",
    }  # fmt: skip
    assert frame["big"].tolist() == [2**70 + i for i in range(4)]
    assert frame["late"].tolist() == [pd.NA, pd.NA, 2, 3]
    assert (frame["trust"] >= "PROVEN").all()
    assert np.isnan(frame["nan"]).all()
