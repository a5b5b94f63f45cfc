"""Of a training on several ranks rank 0 is recorded, and the others train as they would."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import florlog

from .harness import Nursery, environment
from .programs import write

TRAINING = """
import os

import torch
from torch import nn
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

import florlog

rank, ranks = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
torch.manual_seed(0)
x = torch.randn(64, 8)
data = TensorDataset(x, x.sum(1))
sampler = DistributedSampler(data, num_replicas=ranks, rank=rank)
loader = DataLoader(data, 8, sampler=sampler)
model = nn.Linear(8, 1)
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
print("trained", epoch, len(loader))
"""


def test_rank_0_is_recorded_and_the_log_can_be_read(nursery: Nursery, tmp_path: Path) -> None:
    script, store = write(tmp_path / "train.py", TRAINING), tmp_path / "store"
    # As torchrun starts them.  What they would say to each other florlog does not see.
    ranks = [
        subprocess.Popen(
            [sys.executable, script],
            env=environment(store) | {"RANK": str(rank), "WORLD_SIZE": "2"},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for rank in range(2)
    ]  # fmt: skip
    said = [rank.communicate(timeout=120) for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0], said
    assert [output for output, _ in said] == ["trained 1 4\n"] * 2
    assert ["of 2 ranks, rank 0 is recorded" in errors for _, errors in said] == [False, True]
    with florlog.open(store) as log:
        (run,) = log.runs
        tree = run.tree()
        assert (tree.status, tree.begin.rank, tree.begin.world_size) == ("complete", 0, 2)
        assert len(log.values("loss")) == 8
    write(script, TRAINING.replace("# ADD", "run.log(twice=2 * loss)"))
    for name in ("explain", "replay"):
        nursery.run(store, "florlog", name, script, code=2)
        assert "this is rank 0 of 2" in (nursery.directory / "output.txt").read_text()
