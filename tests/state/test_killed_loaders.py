"""Killed in mid-epoch and resumed: each item of each epoch exactly once, the same as in an uninterrupted run."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from florlog_wal import LoopBegin, RunLog, verify

import florlog
from tests.run_directories import run_directory

from ..end_to_end.harness import Nursery, logged

pytestmark = pytest.mark.drawn_in_file(1)

SCRIPT = """
import os, pathlib, random, signal, sys
import torch
from torch.utils.data import DataLoader, Dataset, WeightedRandomSampler
from torchdata.stateful_dataloader import StatefulDataLoader
import florlog

class Noisy(Dataset):
    def __len__(self):
        return 24
    def __getitem__(self, index):
        return torch.tensor([float(index)]), torch.rand(1) + random.random()

class Still(Noisy):
    def __getitem__(self, index):
        return torch.tensor([float(index)]), torch.tensor([0.5])

def main(kind, workers, mark, *place):
    torch.manual_seed(1)
    random.seed(1)
    stateful = kind.startswith("stateful")
    # torchdata starts its workers' generators anew when it goes on
    data = Still() if stateful and workers else Noisy()
    sampler = WeightedRandomSampler([1.0 + i for i in range(24)], 24) if kind == "weighted" else None
    make = StatefulDataLoader if stateful else DataLoader
    loader = make(data, 3, shuffle=sampler is None, sampler=sampler, num_workers=workers)
    model = torch.nn.Sequential(torch.nn.Linear(1, 4), torch.nn.Dropout(0.3), torch.nn.Linear(4, 1))
    optimizer = torch.optim.Adam(model.parameters())
    with florlog.run("loaders", overhead=float("inf")) as run:
        run.track(model=model, optimizer=optimizer)
        if kind == "stateful-tracked":
            run.track(loader=loader)
        for epoch in run.loop("epoch", range(2)):
            batches = enumerate(loader) if kind == "enumerate" else loader
            step = -1
            for batch in run.loop("step", batches):
                step += 1
                x, noise = batch[1] if kind == "enumerate" else batch
                loss = (model(x + noise) - x).square().mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                run.log(items=x, loss=loss)
                if (epoch, step) == place and not mark.exists():
                    mark.touch()
                    os.kill(os.getpid(), signal.SIGKILL)

main(sys.argv[1], int(sys.argv[2]), pathlib.Path(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5]))
"""


@pytest.mark.drawn(3)
@pytest.mark.crash
@pytest.mark.parametrize(
    ("kind", "workers"),
    [
        ("shuffled", 0),
        ("shuffled", 2),
        ("weighted", 2),
        ("shuffled", 4),
        ("enumerate", 0),
        ("stateful", 2),
        ("stateful-tracked", 0),
        ("stateful-tracked", 2),
    ],
)
def test_killed_in_mid_epoch_and_resumed(kind: str, workers: int, nursery: Nursery, tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(SCRIPT)
    nursery.run(tmp_path / "whole", script, kind, str(workers), tmp_path, "9", "9")
    expected = logged(tmp_path / "whole")
    assert len(expected) == 2 * 2 * 8
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    for number in random.Random(seed).sample(range(1, 16), 2):
        store = tmp_path / f"store{number}"
        command = [script, kind, str(workers), tmp_path / f"mark{number}", str(number // 8), str(number % 8)]
        killed, _ = nursery.run(store, *command)
        assert killed
        nursery.run(store, "florlog", "resume", *command)
        assert logged(store) == expected


FORKED = """
import torch
from torch.utils.data import DataLoader, Dataset
import florlog

class Busy(Dataset):
    def __len__(self):
        return 8
    def __getitem__(self, index):
        florlog.log(worker=index)
        for number in florlog.loop(f"inner{index}", range(2)):
            florlog.log(number=number)
        return torch.tensor([float(index)])

with florlog.run("forked", overhead=float("inf")) as run:
    weight = torch.zeros(1000)
    run.track(weight=weight)
    for step in run.loop("epoch", range(2)):
        for batch in run.loop("step", DataLoader(Busy(), 2, num_workers=2)):
            weight += batch.sum()
            run.log(total=weight[0])
"""


def test_workers_that_log_while_the_store_is_open_neither_write_nor_break_their_parent(
    nursery: Nursery, tmp_path: Path
) -> None:
    script = tmp_path / "train.py"
    script.write_text(FORKED)
    nursery.run(tmp_path / "store", script)
    assert not verify(run_directory(tmp_path / "store")).problems
    with florlog.open(tmp_path / "store") as log:
        run = log.runs[-1]
        assert list(run.values("total")["total"].dropna()) == [1, 6, 15, 28, 29, 34, 43, 56]
    with RunLog.open(run_directory(tmp_path / "store")) as store:
        loops = [
            entry.record.name
            for entry in store.scan(types=[LoopBegin])
            if isinstance(entry.record, LoopBegin)
        ]
        assert sorted(set(loops)) == ["epoch", "step"]
