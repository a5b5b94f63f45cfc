"""Of a training on several ranks rank 0 is recorded, and the others train as they would."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import florlog

from .harness import Nursery
from .programs import write

TRAINING = """
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

import florlog

dist.init_process_group("gloo")
torch.manual_seed(0)
x = torch.randn(64, 8)
data = TensorDataset(x, x.sum(1))
sampler = DistributedSampler(data)
loader = DataLoader(data, 8, sampler=sampler)
model = DistributedDataParallel(nn.Linear(8, 1))
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
with florlog.run("ranks") as run:
    run.track(model=model, optimizer=optimizer, loader=loader)
    for epoch in run.loop("epoch", range(2)):
        sampler.set_epoch(epoch)
        for x, y in run.loop("step", loader):
            loss = (model(x).squeeze(1) - y).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            run.log(loss=loss)
            # ADD
dist.destroy_process_group()
"""


def test_rank_0_is_recorded_and_the_log_can_be_read(nursery: Nursery, tmp_path: Path) -> None:
    script, store = write(tmp_path / "train.py", TRAINING), tmp_path / "store"
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        str(script),
    ]
    environment = {**os.environ, "FLORLOG_STORE": str(store), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("florlog: of 2 ranks, rank 0 is recorded") == 1
    with florlog.open(store) as log:
        (run,) = log.runs
        tree = run.tree()
        assert (tree.status, tree.begin.rank, tree.begin.world_size) == ("complete", 0, 2)
        assert len(log.values("loss")) == 8
    write(script, TRAINING.replace("# ADD", "run.log(twice=2 * loss)"))
    for name in ("explain", "replay"):
        nursery.run(store, "florlog", name, script, code=2)
        assert "this is rank 0 of 2" in (nursery.directory / "output.txt").read_text()
