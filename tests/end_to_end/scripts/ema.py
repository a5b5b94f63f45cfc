"""An averaged model (EMA) beside the trained one; batch statistics of the average are renewed every epoch."""

import time

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, update_bn
from torch.utils.data import DataLoader, TensorDataset

import florlog


def build():
    return nn.Sequential(nn.Linear(64, 24), nn.BatchNorm1d(24), nn.ReLU(), nn.Linear(24, 10))


def evaluate(model, loader):
    was = model.training
    model.eval()
    right = 0
    with torch.no_grad():
        for x, y in loader:
            right += int((model(x).argmax(1) == y).sum())
            # ADD florlog.log(right_=right)
    model.train(was)
    return right


def main():
    torch.manual_seed(12)
    data, labels = load_digits(return_X_y=True)
    x, y = torch.tensor(data[:360], dtype=torch.float32) / 16, torch.tensor(labels[:360])
    train = DataLoader(TensorDataset(x[:280], y[:280]), batch_size=40, shuffle=True)
    val = DataLoader(TensorDataset(x[280:], y[280:]), batch_size=40)
    model = build()
    ema = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.95))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    gap = []
    with florlog.run("ema", overhead=float("inf")) as run:
        run.track(model=model, optimizer=optimizer)
        for _ in run.loop("epoch", range(4)):
            # ADD run.log(averaged_before=int(ema.n_averaged))
            for bx, by in run.loop("step", train):
                loss = nn.functional.cross_entropy(model(bx), by)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                ema.update_parameters(model)
                run.log(loss=loss)
                # ADD run.log(ema=ema.module[0].bias.sum(), distance=ema.module[0].weight.sub(model[0].weight).norm())
                time.sleep(0.003)
            # ADD run.log(drift=(ema.module[3].bias - model[3].bias).abs().max())
            update_bn(train, ema)
            ours, theirs = evaluate(model, val), evaluate(ema, val)
            gap.append(theirs - ours)
            run.log(ours=ours, theirs=theirs)
            # ADD run.log(mean=ema.module[1].running_mean[:3], gap_=gap[-1])
        run.log(weights=model[0].weight, averaged=ema.module[0].weight, gap=gap)
        # ADD run.log(n=int(ema.n_averaged))


main()
