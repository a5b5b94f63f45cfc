"""Loop-carried variables that cannot be captured are reported once, with name and line; the others are captured."""

from __future__ import annotations

from pathlib import Path

import pytest
from florlog_wal import CheckpointEnd, Store

import florlog

from ..end_to_end.harness import python

SCRIPT = """\
import argparse, collections, logging, re, threading
from types import SimpleNamespace
import pandas as pd
import torch
import florlog

class Trainer:
    def __init__(self):
        self.best = 0.0
        self.table = pd.DataFrame({"loss": [0.0]})

def main():
    trainer = Trainer()
    frame = pd.DataFrame({"a": [1]})
    deep = {"history": [(1, [pd.Series([1.0])]), (2, [pd.Series([2.0])])]}
    log, lock, pattern = logging.getLogger("x"), threading.Lock(), re.compile("a+")
    options = argparse.Namespace(lr=0.1)
    place = SimpleNamespace(n=0)
    window = collections.deque(maxlen=3)
    with florlog.run("carried", overhead=float("inf")) as run:
        for step in run.loop("step", range(4)):
            frame.loc[len(frame)] = [step]
            trainer.table.loc[step] = [0.5]
            trainer.best = max(trainer.best, step / 2)
            deep["history"].append((step, [pd.Series([float(step)])]))
            window.append(step)
            options.lr *= 0.5
            place.n += 1
            with lock:
                log.info(pattern.pattern)
            run.log(best=trainer.best, lr=options.lr, n=place.n, window=list(window), rows=len(frame))

main()
"""


def test_what_cannot_be_captured_is_reported_once_with_its_name_and_line(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(SCRIPT)
    done = python(tmp_path / "store", script)
    told = [line for line in done.stderr.splitlines() if "images leave out" in line]
    lines = SCRIPT.splitlines()
    expected = [
        ("frame", "DataFrame", lines.index('    frame = pd.DataFrame({"a": [1]})') + 1),
        ("trainer.table", "DataFrame", lines.index("    trainer = Trainer()") + 1),
        (
            "deep['history'][...][...][...]",
            "Series",
            next(i for i, x in enumerate(lines, 1) if "deep = " in x),
        ),
    ]
    for name, kind, line in expected:
        assert sum(f"leave out {name}, a {kind} (train.py:{line})" in text for text in told) == 1, done.stderr
    assert len(told) == len(expected)
    with Store.open(tmp_path / "store") as store:  # the images are taken all the same
        assert len(list(store.scan(types=[CheckpointEnd]))) == 5


GENERATOR = """\
import torch
import florlog

def numbers():
    yield from range(100)

def main():
    source = numbers()
    with florlog.run("numbers", overhead=float("inf")) as run:
        for step in run.loop("step", range(3)):
            run.log(number=next(source))

main()
"""


@pytest.mark.parametrize("folder", ["elsewhere", "florlog", "florlog/state"])
def test_a_users_generator_is_not_taken_for_florlogs_own(tmp_path: Path, folder: str) -> None:
    script = tmp_path / folder / "train.py"
    script.parent.mkdir(parents=True)
    script.write_text(GENERATOR)
    done = python(tmp_path / "store", script)
    assert "no image could be taken" in done.stderr
    assert "iterator (generator), whose position cannot be taken" in done.stderr


def test_florlogs_own_generators_are_left_alone_also_after_their_end(tmp_path: Path) -> None:
    with florlog.run("own", store=tmp_path / "store") as run:
        steps = run.loop("step", range(2))
        assert ObjectCapture({}, ()).capture(steps, "steps") is None
        assert list(steps) == [0, 1]
        assert ObjectCapture({}, ()).capture(steps, "steps") is None
