import functools
import sys
from types import SimpleNamespace

import torch
from torch import nn

DEFAULTS = {"seed": 7, "optimizer.lr": 0.05, "optimizer.momentum": 0.9, "train.epochs": 6, "train.batch": 20}


def nested(flat):
    root = SimpleNamespace()
    for key, value in flat.items():
        *path, last = key.split(".")
        node = root
        for part in path:
            if not hasattr(node, part):
                setattr(node, part, SimpleNamespace())
            node = getattr(node, part)
        setattr(node, last, value)
    return root


def main_with(defaults):
    def decorate(task):
        @functools.wraps(task)
        def run():
            flat = dict(defaults)
            for override in sys.argv[1:]:
                key, value = override.split("=", 1)
                flat[key] = type(flat[key])(value)
            return task(nested(flat))

        return run

    return decorate


@main_with(DEFAULTS)
def main(cfg):
    torch.manual_seed(cfg.seed)
    x = torch.randn(100, 5)
    y = (x @ torch.randn(5, 3)).argmax(1)
    model = nn.Sequential(nn.Linear(5, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 3))
    optimizer = torch.optim.SGD(model.parameters(), **vars(cfg.optimizer))
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=cfg.train.epochs * 5)
    best_acc = 0.0
    for epoch in range(cfg.train.epochs):
        model.train()
        for idx in torch.randperm(100).split(cfg.train.batch):
            logits = model(x[idx])
            loss = nn.functional.cross_entropy(logits, y[idx], label_smoothing=0.1)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            scheduler.step()
            # ADD print("spread", logits.std(), "lr", scheduler.get_last_lr()[0])
        model.eval()
        with torch.inference_mode():
            acc = (model(x).argmax(1) == y).float().mean().item()
        best_acc = max(best_acc, acc)
        # ADD print("running_mean", model[1].running_mean.sum())
        print(f"epoch {epoch} acc {acc:.3f} best {best_acc:.3f}")
    return best_acc


if __name__ == "__main__":
    main()
