import torch
from torch import nn

STEP = 0
LOSSES = []
torch.manual_seed(4)
NET = nn.Linear(4, 1)
OPT = torch.optim.Adam(NET.parameters(), 0.05)
X = torch.randn(64, 4)
Y = X.prod(1, keepdim=True)


def train_step(x, y):
    global STEP
    loss = ((NET(x) - y) ** 2).mean()
    OPT.zero_grad()
    loss.backward()
    OPT.step()
    STEP += 1
    LOSSES.append(loss.item())
    # ADD print("count", STEP, "kept", len(LOSSES))


def main():
    for epoch in range(5):
        for x, y in zip(X.split(16), Y.split(16)):
            train_step(x, y)
        # ADD print("mean", sum(LOSSES) / len(LOSSES))
        print("epoch", epoch, "last", LOSSES[-1])


main()
