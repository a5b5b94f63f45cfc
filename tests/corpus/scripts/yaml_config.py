import random

import numpy as np
import torch
import yaml
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

CONFIG = """
seed: 3
data: {n: 96, features: 6, batch_size: 16}
model: {hidden: [16, 8], activation: ReLU}
optim: {name: AdamW, lr: 0.01, weight_decay: 0.001}
sched: {name: StepLR, step_size: 2, gamma: 0.5}
trainer:
  epochs: 5
  clip: 1.0
"""


class DotDict(dict):
    def __getattr__(self, key):
        value = self[key]
        return DotDict(value) if isinstance(value, dict) else value

    __setattr__ = dict.__setitem__


def seed_everything(seed):
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def build_model(cfg):
    sizes = [cfg.data.features, *cfg.model.hidden]
    layers = []
    for a, b in zip(sizes, sizes[1:]):
        layers += [nn.Linear(a, b), getattr(nn, cfg.model.activation)(), nn.Dropout(0.1)]
    return nn.Sequential(*layers, nn.Linear(sizes[-1], 1))


def main(cfg):
    seed_everything(cfg.seed)
    x = torch.randn(cfg.data.n, cfg.data.features)
    loader = DataLoader(TensorDataset(x, x.abs().sum(1, keepdim=True)), cfg.data.batch_size, shuffle=True)
    model = build_model(cfg)
    kwargs = {k: v for k, v in cfg.optim.items() if k != "name"}
    optimizer = getattr(torch.optim, cfg.optim.name)(model.parameters(), **kwargs)
    kwargs = {k: v for k, v in cfg.sched.items() if k != "name"}
    scheduler = getattr(torch.optim.lr_scheduler, cfg.sched.name)(optimizer, **kwargs)
    metrics = DotDict(loss=[], best=float("inf"))
    for epoch in range(cfg.trainer.epochs):
        model.train()
        running = 0.0
        for x, y in loader:
            optimizer.zero_grad()
            loss = nn.functional.huber_loss(model(x), y)
            loss.backward()
            norm = nn.utils.clip_grad_norm_(model.parameters(), cfg.trainer.clip)
            optimizer.step()
            running += loss.item() * len(x)
            # ADD print("norm", norm, "running", running)
        scheduler.step()
        metrics.loss.append(running / cfg.data.n)
        metrics.best = min(metrics.best, metrics.loss[-1])
        # ADD print("lr", scheduler.get_last_lr()[0])
        print(f"epoch {epoch + 1}/{cfg.trainer.epochs} loss {metrics.loss[-1]:.4f} best {metrics.best:.4f}")


if __name__ == "__main__":
    main(DotDict(yaml.safe_load(CONFIG)))
