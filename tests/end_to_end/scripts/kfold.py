"""Cross-validation: fold, epoch, step; every fold makes its model anew and tracks it under the same name."""

import time

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import KFold
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import florlog


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(64, 16), nn.ReLU(), nn.Dropout(0.1))
        self.head = nn.Linear(16, 10)

    def forward(self, x):
        h = self.body(x)
        # ADD florlog.log(dead=(h == 0).float().mean())
        return self.head(h)


def train_epoch(run, model, optimizer, loader):
    model.train()
    for x, y in run.loop("step", loader):
        loss = nn.functional.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        # ADD run.log(gnorm=model.head.weight.grad.norm())
        optimizer.step()
        run.log(loss=loss)
        time.sleep(0.003)


def evaluate(run, model, x, y):
    model.eval()
    right = 0
    with torch.no_grad():
        for start in run.loop("val", range(0, len(x), 40)):
            part = slice(start, start + 40)
            hits = (model(x[part]).argmax(1) == y[part]).sum().item()
            right += hits
            # ADD run.log(hits=hits, so_far=right)
    return right / len(x)


def main():
    torch.manual_seed(9)
    data, labels = load_digits(return_X_y=True)
    x, y = torch.tensor(data[:240], dtype=torch.float32) / 16, torch.tensor(labels[:240])
    folds = KFold(3, shuffle=True, random_state=9)
    scores = []
    with florlog.run("kfold", overhead=float("inf")) as run:
        for fold, (train, val) in enumerate(run.loop("fold", folds.split(data[:240]))):
            model = Net()
            optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
            run.track(model=model, optimizer=optimizer)
            # ADD run.log(initial=model.head.weight.norm(), first=int(train[0]))
            loader = DataLoader(TensorDataset(x[train], y[train]), batch_size=40, shuffle=True)
            best = 0.0
            for epoch in run.loop("epoch", range(3)):
                # ADD run.log(body=model.body[0].weight.norm(), fold_=fold)
                train_epoch(run, model, optimizer, loader)
                accuracy = evaluate(run, model, x[val], y[val])
                best = max(best, accuracy)
                run.log(accuracy=accuracy, best=best)
                # ADD run.log(epoch_=epoch, scores_=list(scores))
            scores.append(best)
            run.log(score=best, weights=model.head.weight)
            # ADD run.log(fold_end=model.body[0].bias.sum())
        run.log(scores=scores)
        # ADD run.log(mean=sum(scores) / len(scores))


main()
