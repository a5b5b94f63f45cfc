"""Gradient accumulation: boundaries between the micro-batches of one optimizer step; clipping, a warm-up."""

import time

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import florlog

ACCUMULATE = 4


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 6, 3)
        self.norm = nn.BatchNorm2d(6)
        self.out = nn.Linear(216, 10)

    def forward(self, x):
        h = torch.relu(self.norm(self.conv(x)))
        # ADD florlog.log(active=(h > 0).float().mean())
        return self.out(h.flatten(1))


def main():
    torch.manual_seed(3)
    data, labels = load_digits(return_X_y=True)
    x = torch.tensor(data[:384], dtype=torch.float32).reshape(-1, 1, 8, 8) / 16
    loader = DataLoader(TensorDataset(x, torch.tensor(labels[:384])), batch_size=16, shuffle=True)
    model = Net()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    warm = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / 8))
    updates, pending = 0, 0.0
    with florlog.run("accumulation", overhead=float("inf")) as run:
        run.track(model=model, optimizer=optimizer, warm=warm)
        for epoch in run.loop("epoch", range(3)):
            # ADD run.log(rate=optimizer.param_groups[0]["lr"], epoch_=epoch)
            for number, (bx, by) in enumerate(run.loop("micro", loader)):
                loss = nn.functional.cross_entropy(model(bx), by) / ACCUMULATE
                loss.backward()
                pending += loss.item()
                # ADD run.log(collected=model.out.weight.grad.norm(), so_far=pending)
                if (number + 1) % ACCUMULATE == 0:
                    norm = nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                    # ADD run.log(clipped=norm, update=updates)
                    optimizer.step()
                    warm.step()
                    optimizer.zero_grad()
                    run.log(update_loss=pending)
                    updates, pending = updates + 1, 0.0
                    time.sleep(0.004)
            run.log(updates=updates)
            # ADD run.log(moment=optimizer.state[model.out.weight]["exp_avg"].norm())
        run.log(weights=model.out.weight, stats=model.norm.running_var)
        # ADD run.log(total=updates, tail=model.out.bias.sum())


main()
