import torch
from sklearn.datasets import load_digits
from torch import nn


class Classifier:
    def __init__(self, epochs):
        self.epochs = epochs
        self.net = nn.Sequential(nn.Linear(64, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 10))
        self.optimizer = torch.optim.AdamW(self.net.parameters(), lr=0.01)
        self.history = []
        self.seen = 0

    def fit(self, x, y):
        for epoch in range(self.epochs):
            self.net.train()
            self._epoch(x, y)
            # ADD print("seen", self.seen, "running", self.net[1].running_mean.sum())
            score = self.score(x, y)
            self.history.append(score)
            # ADD print(f"history {sum(self.history)}")
            print(f"epoch {epoch}: score {score:.3f}")
        return self

    def _epoch(self, x, y):
        for bx, by in zip(x.split(48), y.split(48)):
            loss = nn.functional.cross_entropy(self.net(bx), by)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            self.seen += len(bx)
            # ADD print("batch_loss", loss)

    @torch.no_grad()
    def score(self, x, y):
        self.net.eval()
        return (self.net(x).argmax(1) == y).float().mean().item()


if __name__ == "__main__":
    torch.manual_seed(0)
    x, y = load_digits(return_X_y=True)
    x, y = torch.tensor(x[:240], dtype=torch.float32) / 16, torch.tensor(y[:240])
    Classifier(5).fit(x, y)
