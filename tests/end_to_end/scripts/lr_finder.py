"""A learning-rate finder: a while-loop over an endless stream of batches, left when the loss explodes."""

import itertools
import math
import time

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import florlog


def endless(loader):
    while True:
        yield from loader


def find(run, model, loader, start=1e-4, factor=1.25):
    optimizer = torch.optim.SGD(model.parameters(), lr=start)
    run.track(model=model, optimizer=optimizer)
    stream = endless(loader)
    smooth, best, rate = 0.0, math.inf, start
    rates, losses = [], []
    # ADD run.log(initial=model[0].weight.norm())
    step = 0
    while step < 200:
        with run.iteration("step", step):
            x, y = next(stream)
            optimizer.param_groups[0]["lr"] = rate
            loss = nn.functional.cross_entropy(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            # ADD run.log(gnorm=sum(p.grad.norm() for p in model.parameters()))
            optimizer.step()
            time.sleep(0.002)
            smooth = 0.8 * smooth + 0.2 * loss.item()
            corrected = smooth / (1 - 0.8 ** (step + 1))
            rates.append(rate)
            losses.append(corrected)
            run.log(loss=loss, rate=rate)
            # ADD run.log(corrected=corrected, first=x[0, 20])
            if corrected > 3 * best:
                # ADD run.log(exploded=step)
                break
            best = min(best, corrected)
        rate *= factor
        step += 1
        # ADD run.log(next_rate=rate)
    steepest = min(range(1, len(losses)), key=lambda i: losses[i] - losses[i - 1])
    run.log(suggestion=rates[steepest], weights=model[0].weight)
    # ADD run.log(best=best, tail=losses[-3:])
    return rates[steepest]


def main():
    torch.manual_seed(6)
    x, y = load_digits(return_X_y=True)
    x, y = torch.tensor(x[:256], dtype=torch.float32) / 16, torch.tensor(y[:256])
    loader = DataLoader(TensorDataset(x, y), batch_size=64, shuffle=True)
    with florlog.run("finder", overhead=float("inf")) as run:
        model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
        initial = {name: value.clone() for name, value in model.state_dict().items()}
        rate = find(run, model, loader)
        model.load_state_dict(initial)
        optimizer = torch.optim.SGD(model.parameters(), lr=rate)
        run.track(optimizer=optimizer)
        for x, y in run.loop("train", itertools.islice(endless(loader), 12)):
            loss = nn.functional.cross_entropy(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            run.log(train_loss=loss)
            # ADD run.log(trained=model[2].weight.norm(), used=rate)
            time.sleep(0.003)
        run.log(final=model[0].weight)


main()
