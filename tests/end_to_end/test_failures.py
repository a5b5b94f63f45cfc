"""When logging fails the training goes on, one warning says what is safe, and what was committed stays readable."""

from __future__ import annotations

from pathlib import Path

import pytest

import florlog

from .harness import flor, python
from .programs import write

pytestmark = pytest.mark.drawn_in_file(1)

FULL = """
import resource
import signal
import sys

import torch

import florlog

torch.manual_seed(0)
model = torch.nn.Linear(64, 64)
optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
with florlog.run("full") as run:
    run.track(model=model, optimizer=optimizer)
    for epoch in run.loop("epoch", range(30)):
        if epoch == 3 and sys.argv[1] == "limit":
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (70_000, resource.RLIM_INFINITY))
        for step in run.loop("step", range(20)):
            loss = model(torch.randn(16, 64)).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            run.log(loss=loss, text="x" * 20_000)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
print("result", float(model.weight.double().sum()))
"""


def test_a_full_disk_ends_the_recording_and_not_the_training(tmp_path: Path) -> None:
    script = write(tmp_path / "train.py", FULL)
    free = python(tmp_path / "free", script, "no")
    limited = python(tmp_path / "limited", script, "limit")
    assert limited.stdout == free.stdout
    assert limited.stdout.startswith("result ")
    warnings = [line for line in limited.stderr.splitlines() if "florlog: stopped recording" in line]
    assert len(warnings) == 1
    assert "the training goes on" in warnings[0]
    assert "Traceback" not in limited.stderr
    with florlog.open(tmp_path / "limited") as log:
        rows = log.values("loss")
        whole = florlog.open(tmp_path / "free").values("loss")
        assert 40 <= len(rows) < 600
        assert rows["loss"].tolist() == whole["loss"].tolist()[: len(rows)]
    assert flor(tmp_path / "limited", "verify").returncode == 0


RAISING = """
import time

import florlog


class Fickle:
    def __init__(self):
        self.asked = 0

    def state_dict(self):
        self.asked += 1
        if self.asked > 2:
            tried = time.thread_time()
            while time.thread_time() < tried + 0.002:
                pass
            raise RuntimeError("no state today")
        return {"asked": 1}

    def load_state_dict(self, state):
        pass


fickle = Fickle()
with florlog.run("fickle") as run:
    run.track(fickle=fickle)
    for i in run.loop("step", range(1000)):
        run.log(i=i)
print(fickle.asked)
"""


def test_a_state_that_cannot_be_captured_later_costs_images_and_not_the_run(tmp_path: Path) -> None:
    done = python(tmp_path / "store", write(tmp_path / "train.py", RAISING))
    assert done.stderr.count("no image could be taken, later replays must start earlier: no state today") == 1
    # What was tried in vain has its price as well, and there is little time for it.
    assert 3 <= int(done.stdout) < 100
    with florlog.open(tmp_path / "store") as log:
        assert len(log.values("i")) == 1000


NO_PAGES = """
import torch
from florlog_wal import StoreFailed, pages

import florlog

put, model = pages.put, torch.nn.Linear(64, 64)
with florlog.run("images") as run:
    run.track(model=model)
    for epoch in run.loop("epoch", range(50)):
        if epoch == 0:
            def refused(*_):
                raise StoreFailed("pages", "Disk quota exceeded")

            pages.put = refused
        with torch.no_grad():
            model.weight += 1
        run.log(epoch=epoch)
    pages.put = put
print("done")
"""


def test_an_image_that_the_disk_refuses_costs_the_image_and_not_the_run(tmp_path: Path) -> None:
    done = python(tmp_path / "store", write(tmp_path / "train.py", NO_PAGES))
    assert done.stdout == "done\n"
    assert done.stderr.count("florlog: could not store an image, the recording goes on without it") == 1
    assert "Disk quota exceeded" in done.stderr
    assert "stopped recording" not in done.stderr
    with florlog.open(tmp_path / "store") as log:
        assert log.values("epoch")["epoch"].tolist() == list(range(50))
    assert flor(tmp_path / "store", "verify").returncode == 0
