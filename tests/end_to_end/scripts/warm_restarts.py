"""Cosine annealing with warm restarts, stepped in fractions of an epoch; everything at module level."""

import random
import time

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import florlog

torch.manual_seed(10)
np.random.seed(10)
random.seed(10)
data, labels = load_digits(return_X_y=True)
x, y = torch.tensor(data[:320], dtype=torch.float32) / 16, torch.tensor(labels[:320])
loader = DataLoader(TensorDataset(x, y), batch_size=40, shuffle=True)
model = nn.Sequential(nn.Linear(64, 24), nn.ReLU(), nn.Linear(24, 10))
optimizer = torch.optim.SGD(model.parameters(), lr=0.3, momentum=0.9, nesterov=True)
scheduler = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(optimizer, T_0=2, T_mult=2)
snapshots = []
restarts = 0
window = {"losses": [], "last": None}


def smooth(value):
    window["losses"] = [*window["losses"][-4:], value]
    window["last"] = value
    # ADD florlog.log(window=list(window["losses"]))
    return sum(window["losses"]) / len(window["losses"])


with florlog.run("restarts", overhead=float("inf")) as run:
    run.track(model=model, optimizer=optimizer, scheduler=scheduler, loader=loader)
    # ADD run.log(at_start=model[0].weight.norm())
    for epoch in run.loop("epoch", range(6)):
        rate_before = optimizer.param_groups[0]["lr"]
        # ADD run.log(rate_before_=rate_before)
        for i, (bx, by) in enumerate(run.loop("step", loader)):
            bx = bx + 0.05 * np.random.rand() + 0.01 * random.random()
            loss = nn.functional.cross_entropy(model(bx), by)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            scheduler.step(epoch + i / len(loader))
            mean = smooth(loss.item())
            run.log(loss=loss, mean=mean)
            # ADD run.log(rate=optimizer.param_groups[0]["lr"], item=bx[0, 10])
            time.sleep(0.002)
        # ADD run.log(velocity=optimizer.state[model[0].weight]["momentum_buffer"].norm())
        if scheduler.T_cur + 0.3 > scheduler.T_i:
            restarts += 1
            snapshots.append(model[0].weight.detach().clone())
            # ADD run.log(taken=len(snapshots), last_=window["last"])
        run.log(restarts=restarts, rate_end=optimizer.param_groups[0]["lr"])
    ensemble = torch.stack(snapshots).mean(0)
    run.log(ensemble=ensemble, weights=model[0].weight)
    # ADD run.log(spread=torch.stack(snapshots).std(0).mean(), drawn=random.random())
