"""A short run has an image at the end of the steps of each epoch, where the promised overhead pays for them.

Which overhead does depends on the machine, so the test gives more than any needs; `tests.images.test_policy` has the
default with the costs of a usual one.
"""

from __future__ import annotations

import time
from pathlib import Path

import torch
from florlog_wal import CheckpointBegin, CheckpointEnd, LoopBegin, RunLog

import florlog
from tests.run_directories import run_directory

EPOCHS, STEPS = 8, 10


def test_a_run_of_a_second_has_an_image_behind_the_steps_of_each_epoch(tmp_path: Path) -> None:
    weight = torch.zeros(250_000)
    with florlog.run("short", store=tmp_path, overhead=10.0) as run:
        run.track(weight=weight)
        for epoch in run.loop("epoch", range(EPOCHS)):
            for _ in run.loop("step", range(STEPS)):
                weight += torch.randn(250_000)
                time.sleep(0.01)
            run.log(epoch=epoch)
    found = set()
    with RunLog.open(run_directory(tmp_path)) as log:
        begun = {entry.lsn: entry.record for entry in log.scan(types=[LoopBegin])}
        for entry in log.scan(types=[CheckpointEnd]):
            assert isinstance(entry.record, CheckpointEnd)
            begin = log.record(entry.record.begin).record
            assert isinstance(begin, CheckpointBegin)
            loop = begun[begin.loop]
            assert isinstance(loop, LoopBegin)
            if loop.name == "step" and begin.index == STEPS:
                found.add(loop.path[0][1])
    assert found == set(range(EPOCHS))
