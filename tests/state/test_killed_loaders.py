"""Killed in mid-epoch and resumed: each item of each epoch exactly once, the same as in an uninterrupted run."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..end_to_end.harness import Nursery, logged

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


@pytest.fixture(scope="module")
def nursery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nursery]:
    made = Nursery(tmp_path_factory.mktemp("nursery"))
    yield made
    made.close()


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
