"""A curriculum: the data set itself changes with the epoch, and each epoch has a loader of its own."""

import time

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, Dataset

import florlog


class Curriculum(Dataset):
    def __init__(self, x, y, rng):
        hardness = np.abs(x - x.mean(0)).sum(1)
        self.order = np.argsort(hardness, kind="stable")
        self.x, self.y, self.rng = x, y, rng
        self.level = 1
        self.seen = 0

    def harder(self):
        self.level += 1

    def __len__(self):
        return 64 * self.level

    def __getitem__(self, index):
        self.seen += 1
        item = self.order[index]
        noise = self.rng.normal(0, 0.02 * self.level, 64)
        # ADD florlog.log(picked=int(item), level=self.level)
        return (self.x[item] / 16 + noise).astype(np.float32), self.y[item]


def run_epoch(run, model, optimizer, dataset, generator):
    loader = DataLoader(dataset, batch_size=32, shuffle=True, generator=generator)
    # ADD run.log(batches=len(loader), norm_before=model[0].weight.norm())
    total = 0.0
    for x, y in run.loop("step", loader):
        loss = nn.functional.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += loss.item()
        run.log(loss=loss)
        # ADD run.log(seen=dataset.seen, running=total)
        time.sleep(0.004)
    return total / len(loader)


def main():
    torch.manual_seed(5)
    x, y = load_digits(return_X_y=True)
    dataset = Curriculum(x, y, np.random.default_rng(5))
    generator = torch.Generator().manual_seed(50)
    model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2, momentum=0.9)
    threshold = 1.9
    with florlog.run("curriculum", overhead=float("inf")) as run:
        run.track(model=model, optimizer=optimizer)
        for _ in run.loop("epoch", range(7)):
            # ADD run.log(level_before=dataset.level, threshold_=threshold)
            mean = run_epoch(run, model, optimizer, dataset, generator)
            run.log(mean=mean, size=len(dataset))
            if mean < threshold:
                dataset.harder()
                threshold *= 0.9
                # ADD run.log(raised=dataset.level)
            # ADD run.log(rng=dataset.rng.bit_generator.state["state"]["state"] % 1000003)
        run.log(weights=model[0].weight, level_end=dataset.level, seen_end=dataset.seen)
        # ADD run.log(mean_=mean)


main()
