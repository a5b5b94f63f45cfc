"""Each variable of a loop that cannot be captured is reported once, by name and line; all others are captured."""

from __future__ import annotations

from pathlib import Path

import pytest
from florlog_wal import CheckpointEnd, RunLog

import florlog
from florlog.state.heap.capture import capture
from tests.run_directories import run_directory

from ..end_to_end.harness import python

SCRIPT = """\
import argparse, collections, itertools, logging, re, threading
from types import SimpleNamespace
import pandas as pd
import torch
import florlog

def numbers():
    return itertools.pairwise(range(1000))

class Trainer:
    def __init__(self):
        self.best = 0.0
        self.source = numbers()

def main():
    trainer = Trainer()
    source = numbers()
    deep = {"history": [(1, [numbers()])]}
    frame = pd.DataFrame({"a": [1]})
    log, lock, pattern = logging.getLogger("x"), threading.Lock(), re.compile("a+")
    options = argparse.Namespace(lr=0.1)
    place = SimpleNamespace(n=0)
    window = collections.deque(maxlen=3)
    with florlog.run("carried", overhead=float("inf")) as run:
        for step in run.loop("step", range(4)):
            frame.loc[len(frame)] = [step]
            trainer.best = max(trainer.best, next(trainer.source)[0] + next(source)[0])
            next(deep["history"][0][1][0])
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
    reported = [line for line in done.stderr.splitlines() if "no images are taken while" in line]
    lines = SCRIPT.splitlines()
    expected = [
        ("source", lines.index("    source = numbers()") + 1),
        ("trainer.source", lines.index("    trainer = Trainer()") + 1),
        ("deep['history'][...][...][...]", next(i for i, x in enumerate(lines, 1) if "deep = " in x)),
    ]
    for name, line in expected:
        found = [text for text in reported if f"there is {name}, " in text and f"(train.py:{line})" in text]
        assert len(found) == 1, done.stderr
    assert len(reported) == len(expected)
    with RunLog.open(
        run_directory(tmp_path / "store")
    ) as store:  # only at the start, where the set-up makes everything anew
        assert len(list(store.scan(types=[CheckpointEnd]))) == 1


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
    assert "no images are taken" not in done.stderr  # its place is in them
    with RunLog.open(run_directory(tmp_path / "store")) as store:
        assert len(list(store.scan(types=[CheckpointEnd]))) > 1


def test_florlogs_own_generators_are_left_alone_also_after_their_end(tmp_path: Path) -> None:
    with florlog.run("own", store=tmp_path / "store") as run:
        steps = run.loop("step", range(2))
        assert [node.kind for node in capture({"": {"steps": steps}}).nodes] == ["left"]
        assert list(steps) == [0, 1]
        assert [node.kind for node in capture({"": {"steps": steps}}).nodes] == ["left"]
