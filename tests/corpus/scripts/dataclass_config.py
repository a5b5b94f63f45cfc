from dataclasses import dataclass, field

import torch
from torch import nn


@dataclass
class Config:
    epochs: int = 5
    lr: float = 0.05
    sizes: list = field(default_factory=lambda: [6, 12, 1])


def build(config):
    layers = []
    for i, o in zip(config.sizes, config.sizes[1:]):
        layers += [nn.Linear(i, o), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def run(config):
    torch.manual_seed(9)
    x = torch.randn(160, 6)
    y = (x**2).sum(1, keepdim=True)
    model = build(config)
    optimizer = torch.optim.Adam(model.parameters(), lr=config.lr)
    ema = None

    def one_step(bx, by):
        nonlocal ema
        loss = nn.functional.mse_loss(model(bx), by)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        ema = loss.item() if ema is None else 0.9 * ema + 0.1 * loss.item()
        # ADD print("ema", ema)
        return loss

    for epoch in range(config.epochs):
        for i in range(0, 160, 32):
            loss = one_step(x[i : i + 32], y[i : i + 32])
        # ADD print("first", model[0].weight.sum())
        print("epoch", epoch, "ema", ema)


run(Config())
