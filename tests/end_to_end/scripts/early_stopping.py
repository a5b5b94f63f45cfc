"""Early stopping in a function: best score, a patience counter, and the best weights put back at the end."""

import copy
import time

import torch
from sklearn.datasets import load_digits
from torch import nn

import florlog

torch.manual_seed(2)
data, labels = load_digits(return_X_y=True)
x, y = torch.tensor(data[:500], dtype=torch.float32) / 16, torch.tensor(labels[:500])


def accuracy(model):
    model.eval()
    with torch.no_grad():
        scores = model(x[400:])
        # ADD florlog.log(spread=scores.std())
    model.train()
    return (scores.argmax(1) == y[400:]).float().mean().item()


def train(run):
    model = nn.Sequential(
        nn.Linear(64, 24), nn.BatchNorm1d(24), nn.Tanh(), nn.Dropout(0.2), nn.Linear(24, 10)
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3, momentum=0.9)
    run.track(model=model, optimizer=optimizer)
    best, best_state, best_epoch, waited = 0.0, None, -1, 0
    curve = []
    for epoch in run.loop("epoch", range(30)):
        order = torch.randperm(400)
        # ADD run.log(first=order[0])
        for start in run.loop("step", range(0, 400, 80)):
            batch = order[start : start + 80]
            loss = nn.functional.cross_entropy(model(x[batch]), y[batch])
            optimizer.zero_grad()
            loss.backward()
            # ADD run.log(gmax=max(p.grad.abs().max() for p in model.parameters()), start=start)
            optimizer.step()
            run.log(loss=loss)
            time.sleep(0.003)
        score = accuracy(model)
        curve.append(score)
        # ADD run.log(running_mean=model[1].running_mean, curve=curve[-2:])
        if score > best:
            best, best_state, best_epoch, waited = score, copy.deepcopy(model.state_dict()), epoch, 0
        else:
            waited += 1
        run.log(score=score, best=best, waited=waited)
        # ADD run.log(kept=best_state["0.weight"].norm(), kept_epoch=best_epoch)
        if waited == 3:
            break
    # ADD run.log(before=model[0].weight.norm())
    model.load_state_dict(best_state)
    run.log(best_epoch=best_epoch, weights=model[0].weight, final=accuracy(model))
    # ADD run.log(n_epochs=len(curve), restored=model[0].weight.norm())


with florlog.run("early", overhead=float("inf")) as run:
    train(run)
