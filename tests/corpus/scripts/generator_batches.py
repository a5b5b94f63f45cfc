import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn


def batches(x, y, size, rng):
    order = rng.permutation(len(x))
    for start in range(0, len(x), size):
        pick = order[start : start + size]
        yield x[pick], y[pick]


def main():
    torch.manual_seed(0)
    rng = np.random.default_rng(4)
    x, y = load_digits(return_X_y=True)
    x, y = torch.tensor(x[:240], dtype=torch.float32) / 16, torch.tensor(y[:240])
    model = nn.Linear(64, 10)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2)
    for epoch in range(4):
        for bx, by in batches(x, y, 30, rng):
            loss = nn.functional.cross_entropy(model(bx), by)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            # ADD print("inner", loss.item())
        # ADD print("w", model.weight.norm())
        print(f"epoch={epoch} loss={loss.item():.4f}")


main()
