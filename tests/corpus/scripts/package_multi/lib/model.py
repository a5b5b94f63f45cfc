import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(6, 8)
        self.b = nn.Linear(8, 2)
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        hidden = torch.relu(self.a(x))
        # ADD print("hidden", hidden.mean(), "calls", self.calls)
        return self.b(hidden)
