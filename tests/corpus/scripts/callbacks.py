import torch
from torch import nn


class Callback:
    def on_epoch_end(self, trainer):
        pass


class Stopper(Callback):
    def __init__(self):
        self.best, self.bad = 1e9, 0

    def on_epoch_end(self, trainer):
        self.bad = 0 if trainer.loss < self.best else self.bad + 1
        self.best = min(self.best, trainer.loss)
        # ADD print("bad", self.bad)
        trainer.stop = self.bad > 1


class Trainer:
    def __init__(self, callbacks):
        self.callbacks, self.stop, self.loss = callbacks, False, 0.0

    def run(self, model, data, labels):
        optimizer = torch.optim.Adagrad(model.parameters(), 0.5)
        for epoch in range(12):
            rows = torch.randint(0, 60, (20,))
            loss = nn.functional.l1_loss(model(data[rows]), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            self.loss = loss.item()
            print("epoch", epoch, "loss", self.loss)
            for callback in self.callbacks:
                callback.on_epoch_end(self)
            # ADD print("weight", model.weight.sum())
            if self.stop:
                break


torch.manual_seed(1)
data = torch.randn(60, 3)
Trainer([Stopper()]).run(nn.Linear(3, 1), data, data.mean(1, keepdim=True))
