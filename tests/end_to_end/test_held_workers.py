"""A loader with workers under every form of loop, killed anywhere and resumed in the middle of an epoch."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path
from typing import Any

import pytest

from .harness import Nursery

pytestmark = pytest.mark.drawn_in_file(5)

SCRIPT = """
import json, os, random, sys

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, WeightedRandomSampler, get_worker_info
from tqdm import tqdm


class Noisy(Dataset):
    def __len__(self):
        return 24

    def __getitem__(self, index):
        return torch.tensor([float(index)]), torch.rand(1) + random.random() + np.random.random()


class Counting(Noisy):
    count = 0

    def __getitem__(self, index):
        self.count += 1
        return torch.tensor([float(index)]), torch.tensor([float(self.count)])


class Shards(IterableDataset):
    def __iter__(self):
        info = get_worker_info()
        for index in range(info.id, 24, info.num_workers):
            yield torch.tensor([float(index)]), torch.rand(1)


def loader(options, order):
    made = {name: options[name] for name in ("num_workers", "prefetch_factor", "persistent_workers")}
    data = {"noisy": Noisy, "counting": Counting, "shards": Shards}[options["data"]]()
    if options["data"] != "shards":
        made["sampler"] = WeightedRandomSampler([1.0 + i for i in range(24)], 24) if order == "weighted" else None
        made["shuffle"] = order == "shuffled"
    return DataLoader(data, 3, **made)




def main(options, out):
    torch.manual_seed(1)
    random.seed(1)
    np.random.seed(1)
    model = torch.nn.Sequential(torch.nn.Linear(1, 4), torch.nn.Dropout(0.3), torch.nn.Linear(4, 1))
    optimizer = torch.optim.Adam(model.parameters())
    history = []
    train, other = loader(options, options["order"]), loader(options, "in order")

    def step(x, noise):
        loss = (model(x + noise) - x).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.append([x.flatten().tolist(), noise.flatten().tolist(), loss.item()])
        if len(history) == options["kill"] and os.path.exists("kill"):
            os.kill(os.getpid(), 9)

    FORM
    with open(out, "w") as file:
        json.dump(history, file)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]), sys.argv[2])
"""
EPOCHS = "    for epoch in range(3):\n        "
HELD = """held = iter(train)
        for number in range({}):
            x, noise = next(held)
            step(x, noise)"""
FORMS = {
    "bare": EPOCHS + "for x, noise in train:\n            step(x, noise)",
    "enumerate": EPOCHS + "for number, (x, noise) in enumerate(train):\n            step(x, noise)",
    "a progress bar": EPOCHS + "for x, noise in tqdm(train):\n            step(x, noise)",
    "zip": EPOCHS + "for (x, noise), (y, more) in zip(train, other):\n            step(x + y, noise * more)",
    "iter": EPOCHS + "for x, noise in iter(train):\n            step(x, noise)",
    "next": EPOCHS + HELD.format(8),
    "next for ever": """
    held = iter(train)
    for number in range(20):
        try:
            x, noise = next(held)
        except StopIteration:
            held = iter(train)
            x, noise = next(held)
        step(x, noise)""",
    "left early": EPOCHS + HELD.format(5),
}


def options_of(case: int) -> dict[str, Any]:
    """What a loader is given, and when the process is killed."""
    chance = random.Random(case)
    return {
        "data": chance.choice(["noisy", "noisy", "counting", "shards"]),
        "order": chance.choice(["shuffled", "weighted", "in order"]),
        "num_workers": chance.choice([1, 2, 4]),
        "prefetch_factor": chance.randint(1, 4),
        "persistent_workers": chance.random() < 0.4,
        "kill": chance.randint(4, 14),
    }


@pytest.mark.drawn(5)
@pytest.mark.crash
@pytest.mark.parametrize("case", range(5))
@pytest.mark.parametrize("form", FORMS)
def test_killed_in_an_epoch_it_goes_on_bit_exactly(
    form: str, case: int, nursery: Nursery, tmp_path: Path
) -> None:
    options = options_of(100 * list(FORMS).index(form) + case)
    given, script, store = json.dumps(options), tmp_path / "train.py", tmp_path / "store"
    script.write_text(SCRIPT.replace("    FORM\n", FORMS[form].lstrip("\n") + "\n"))
    nursery.run(tmp_path / "unused", script, given, tmp_path / "plain")
    (tmp_path / "kill").touch()
    command = ("florlog", "record", "--no-audit", script, given, tmp_path / "cut")
    nursery.run(store, *command, dense=True, code=-9)
    said = nursery.output.read_text()
    (tmp_path / "kill").unlink()
    nursery.run(store, "florlog", "resume", script, given, tmp_path / "cut", dense=True)
    assert (tmp_path / "cut").read_text() == (tmp_path / "plain").read_text()
    left = form in ("next", "left early")  # without being told that there is no more
    if not (left and options["data"] == "shards" and options["persistent_workers"]):
        assert "no images" not in said
        # Images lie at the boundaries before some iterations: at most three are executed again to prove one.
        again = re.search(r"after re-executing (\d+) iteration", nursery.output.read_text())
        assert again is None or int(again[1]) < options["kill"]
