"""A Trainer class whose loops are in its methods, and whose progress is in its attributes."""

import time

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import florlog


class Meter:
    def __init__(self):
        self.total = 0.0
        self.count = 0

    def add(self, value):
        self.total += value
        self.count += 1

    @property
    def mean(self):
        return self.total / max(1, self.count)


class Trainer:
    def __init__(self, model, optimizer, patience=1):
        self.model = model
        self.optimizer = optimizer
        self.patience = patience
        self.best = float("inf")
        self.waited = 0
        self.global_step = 0
        self.history = []
        self.meter = Meter()

    def fit(self, train, val, epochs):
        with florlog.run("trainer", overhead=float("inf")) as run:
            run.track(model=self.model, optimizer=self.optimizer)
            for epoch in run.loop("epoch", range(epochs)):
                # ADD run.log(seen=self.global_step, meter_before=self.meter.mean)
                self.train_epoch(run, train)
                # ADD run.log(norm=self.model[0].weight.norm(), meter=self.meter.mean)
                score = self.validate(val)
                run.log(score=score, step=self.global_step)
                self.history.append(score)
                # ADD run.log(history=list(self.history), waited=self.waited)
                if score < self.best - 0.1:
                    self.best, self.waited = score, 0
                else:
                    self.waited += 1
                    if self.waited > self.patience:
                        # ADD run.log(stopped_at=epoch)
                        break
            run.log(best=self.best, steps=self.global_step, weights=self.model[0].weight)
            # ADD run.log(final_bias=self.model[-1].bias, mean=self.meter.mean)

    def train_epoch(self, run, loader):
        self.model.train()
        for x, y in run.loop("step", loader):
            loss = self.train_step(x, y)
            run.log(loss=loss)
            # ADD run.log(counted=self.meter.count, global_step=self.global_step)

    def train_step(self, x, y):
        loss = nn.functional.cross_entropy(self.model(x), y)
        self.optimizer.zero_grad()
        loss.backward()
        # ADD florlog.log(gnorm=sum(p.grad.norm() for p in self.model.parameters()))
        self.optimizer.step()
        self.global_step += 1
        self.meter.add(loss.item())
        time.sleep(0.003)
        return loss

    @torch.no_grad()
    def validate(self, loader):
        self.model.eval()
        losses = []
        for x, y in loader:
            losses.append(nn.functional.cross_entropy(self.model(x), y).item())
            # ADD florlog.log(val=losses[-1])
        return sum(losses) / len(losses)


def main():
    torch.manual_seed(1)
    x, y = load_digits(return_X_y=True)
    x, y = torch.tensor(x[:400], dtype=torch.float32) / 16, torch.tensor(y[:400])
    train = DataLoader(TensorDataset(x[:300], y[:300]), batch_size=50, shuffle=True)
    val = DataLoader(TensorDataset(x[300:], y[300:]), batch_size=50)
    model = nn.Sequential(nn.Linear(64, 32), nn.Dropout(0.3), nn.ReLU(), nn.Linear(32, 10))
    Trainer(model, torch.optim.Adam(model.parameters(), lr=0.05)).fit(train, val, 12)


if __name__ == "__main__":
    main()
