"""LR range test that restores the weights, then training with early stopping that reloads the best from disk."""

import copy
import math
import os
import tempfile

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class LRFinder:
    def __init__(self, model, optimizer, criterion):
        self.model, self.optimizer, self.criterion = model, optimizer, criterion
        self.history = {"lr": [], "loss": []}
        self.saved = {
            "model": copy.deepcopy(model.state_dict()),
            "optimizer": copy.deepcopy(optimizer.state_dict()),
        }

    def range_test(self, loader, start_lr=1e-5, end_lr=1.0, num_iter=60, smooth=0.05):
        gamma = (end_lr / start_lr) ** (1 / num_iter)
        for g in self.optimizer.param_groups:
            g["lr"] = start_lr
        it = iter(loader)
        best = math.inf
        for i in range(num_iter):
            try:
                x, y = next(it)
            except StopIteration:
                it = iter(loader)
                x, y = next(it)
            self.optimizer.zero_grad()
            loss = self.criterion(self.model(x), y)
            loss.backward()
            self.optimizer.step()
            value = loss.item() if i == 0 else smooth * loss.item() + (1 - smooth) * self.history["loss"][-1]
            self.history["lr"].append(self.optimizer.param_groups[0]["lr"])
            self.history["loss"].append(value)
            best = min(best, value)
            if value > 4 * best:
                print("stopping early, the loss has diverged")
                break
            for g in self.optimizer.param_groups:
                g["lr"] *= gamma

    def reset(self):
        self.model.load_state_dict(self.saved["model"])
        self.optimizer.load_state_dict(self.saved["optimizer"])

    def suggestion(self):
        losses = self.history["loss"]
        grads = [b - a for a, b in zip(losses, losses[1:])]
        return self.history["lr"][min(range(len(grads)), key=grads.__getitem__)]


class EarlyStopping:
    def __init__(self, patience=4, path="checkpoint.pt", delta=0):
        self.patience, self.path, self.delta = patience, path, delta
        self.counter, self.best_score, self.early_stop, self.val_loss_min = 0, None, False, float("inf")

    def __call__(self, val_loss, model):
        score = -val_loss
        if self.best_score is None or score >= self.best_score + self.delta:
            self.best_score = score
            print(
                f"Validation loss decreased ({self.val_loss_min:.6f} --> {val_loss:.6f}).  Saving model ..."
            )
            torch.save(model.state_dict(), self.path)
            self.val_loss_min = val_loss
            self.counter = 0
        else:
            self.counter += 1
            print(f"EarlyStopping counter: {self.counter} out of {self.patience}")
            self.early_stop = self.counter >= self.patience


def main():
    torch.manual_seed(21)
    x = torch.randn(480, 6)
    y = x[:, :1] * x[:, 1:2] + 0.3 * torch.randn(480, 1)
    train = DataLoader(TensorDataset(x[:320], y[:320]), batch_size=16, shuffle=True)
    xv, yv = x[320:], y[320:]
    model = nn.Sequential(nn.Linear(6, 64), nn.Tanh(), nn.Linear(64, 1))
    criterion = nn.MSELoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    finder = LRFinder(model, optimizer, criterion)
    finder.range_test(train)
    lr = min(finder.suggestion(), 3e-2)
    finder.reset()
    for g in optimizer.param_groups:
        g["lr"] = lr
    print("lr", lr)
    stopper = EarlyStopping(path="best.pt")
    for epoch in range(40):
        model.train()
        for xb, yb in train:
            optimizer.zero_grad()
            loss = criterion(model(xb), yb)
            loss.backward()
            optimizer.step()
            # ADD print("b", loss.item())
        model.eval()
        with torch.no_grad():
            val = criterion(model(xv), yv).item()
        print("epoch", epoch, "val", val)
        stopper(val, model)
        if stopper.early_stop:
            print("Early stopping")
            break
    model.load_state_dict(torch.load("best.pt", weights_only=True))
    with torch.no_grad():
        print("final", criterion(model(xv), yv).item())


if __name__ == "__main__":
    main()
