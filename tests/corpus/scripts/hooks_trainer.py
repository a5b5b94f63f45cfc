from collections import defaultdict

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Callback:
    def before_fit(self, trainer): ...
    def after_batch(self, trainer): ...
    def after_epoch(self, trainer): ...


class ActivationStats(Callback):
    def before_fit(self, trainer):
        self.stats = defaultdict(list)
        self.handles = [
            m.register_forward_hook(lambda m, i, o, name=n: self.stats[name].append(o.detach().mean().item()))
            for n, m in trainer.model.named_modules()
            if isinstance(m, nn.ReLU)
        ]

    def after_epoch(self, trainer):
        trainer.logs["act"] = sum(sum(v) / len(v) for v in self.stats.values())
        self.stats.clear()


class GradClip(Callback):
    def __init__(self, limit):
        self.limit = limit

    def after_batch(self, trainer):
        trainer.norm = nn.utils.clip_grad_norm_(trainer.model.parameters(), self.limit)


class LRFinderStop(Callback):
    def after_batch(self, trainer):
        if trainer.loss.item() > 1e3:
            raise StopIteration


class Printer(Callback):
    def after_epoch(self, trainer):
        print(" ".join(f"{k}={v:.4f}" for k, v in trainer.logs.items()))
        print("epoch", trainer.epoch, "loss", trainer.loss.item())


class Trainer:
    def __init__(self, model, optimizer, callbacks):
        self.model, self.optimizer, self.callbacks = model, optimizer, callbacks
        self.logs, self.n_batches = {}, 0

    def __call__(self, event):
        for cb in self.callbacks:
            getattr(cb, event)(self)

    def fit(self, epochs, loader):
        self("before_fit")
        for self.epoch in range(epochs):
            for self.batch in loader:
                self.one_batch(*self.batch)
            # ADD print("n_batches", self.n_batches)
            self("after_epoch")

    def one_batch(self, x, y):
        self.loss = nn.functional.mse_loss(self.model(x), y)
        self.loss.backward()
        self("after_batch")
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.n_batches += 1
        self.logs["loss"] = self.loss.item()
        # ADD print("norm", self.norm.item())


torch.manual_seed(6)
x = torch.randn(80, 6)
loader = DataLoader(TensorDataset(x, x.cos().sum(1, keepdim=True)), batch_size=16, shuffle=True)
model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 1))
trainer = Trainer(
    model,
    torch.optim.Adam(model.parameters(), 0.01),
    [GradClip(1.0), ActivationStats(), LRFinderStop(), Printer()],
)
trainer.fit(5, loader)
