"""Training scripts for the tests, and ways to add statements to them."""

from __future__ import annotations

from pathlib import Path

NESTED = """
import time

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import florlog


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(6, 12)
        self.drop = nn.Dropout(0.2)
        self.second = nn.Linear(12, 3)

    def forward(self, x):
        hidden = torch.relu(self.first(x))
        # IN FORWARD
        return self.second(self.drop(hidden))


def train_step(model, optimizer, x, y):
    loss = nn.functional.cross_entropy(model(x), y)
    optimizer.zero_grad()
    loss.backward()
    # IN FUNCTION
    optimizer.step()
    time.sleep(0.002)  # a step of a real training costs more than restoring this small model
    return loss


def evaluate(model, loader):
    model.eval()
    right = 0
    for x, y in florlog.loop("val", loader):
        scores = model(x)
        right += int((scores.argmax(1) == y).sum())
        # IN VALIDATION
    return right


def main():
    torch.manual_seed(7)
    x = torch.randn(96, 6)
    y = (x[:, 0] > x[:, 1]).long() + (x[:, 2] > 0.5).long()
    train = DataLoader(TensorDataset(x[:64], y[:64]), batch_size=8, shuffle=True)
    val = DataLoader(TensorDataset(x[64:], y[64:]), batch_size=16)
    model = Net()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
    best = 0
    # IN SET-UP
    with florlog.run("nested", overhead=1.0) as run:
        run.track(model=model, optimizer=optimizer, scheduler=scheduler)
        for epoch in run.loop("epoch", range(4)):
            model.train()
            total = 0.0
            # BEFORE INNER
            for bx, by in run.loop("step", train):
                loss = train_step(model, optimizer, bx, by)
                total += loss.item()
                run.log(loss=loss)
                # INSIDE INNER
            # AFTER INNER
            scheduler.step()
            time.sleep(0.05)
            right = evaluate(model, val)
            best = max(best, right)
            run.log(right=right, best=best, total=total)
            # END OF OUTER
        # AFTER OUTER


main()
"""

PLACES = {
    "IN FORWARD": "florlog.log(hidden=hidden.mean())",
    "IN FUNCTION": "florlog.log(gnorm=sum(p.grad.norm() for p in model.parameters()))",
    "IN VALIDATION": "florlog.log(scores=scores.sum(dim=0))",
    "BEFORE INNER": "run.log(before=model.first.weight.norm())",
    "INSIDE INNER": "run.log(running=total, w=model.second.bias.clone())",
    "AFTER INNER": "run.log(after=model.second.weight.norm(), last=loss.item(), sum_=total)",
    "END OF OUTER": "run.log(rate=optimizer.param_groups[0]['lr'], best_so_far=best)",
    "AFTER OUTER": "run.log(final=model.first.weight.sum(), n=best)",
}


def write(path: Path, text: str) -> Path:
    """Put a program into a file."""
    path.write_text(text.lstrip("\n"))
    return path


def add(text: str, places: dict[str, str]) -> str:
    """Put statements in the place of comments; other places stay comments."""
    for place, statement in places.items():
        assert f"# {place}\n" in text, place
        text = text.replace(f"# {place}\n", f"{statement}\n")
    return text
