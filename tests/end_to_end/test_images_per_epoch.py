"""A short run has an image at the end of the steps of each epoch, as the promised overhead pays for them."""

from __future__ import annotations

import time
from pathlib import Path

import torch
from florlog_wal import CheckpointBegin, CheckpointEnd, LoopBegin, RunLog

import florlog
from tests.run_directories import run_directory

EPOCHS = 8


def test_a_run_of_seconds_has_an_image_behind_the_steps_of_most_epochs(tmp_path: Path) -> None:
    weight = torch.zeros(250_000)
    with florlog.run("short", store=tmp_path) as run:
        run.track(weight=weight)
        for epoch in run.loop("epoch", range(EPOCHS)):
            for _ in run.loop("step", range(20)):
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
            if loop.name == "step" and begin.index == 20:
                found.add(loop.path[0][1])
    assert (
        len(found) > EPOCHS // 2
    )  # all, unless the machine is so busy that images cost several times as much
