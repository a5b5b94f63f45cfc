import argparse
import time

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=4)
    args = parser.parse_args()
    torch.manual_seed(0)
    x, y = load_digits(return_X_y=True)
    x, y = torch.tensor(x[:400], dtype=torch.float32) / 16, torch.tensor(y[:400])
    loader = DataLoader(TensorDataset(x, y), batch_size=40, shuffle=True)
    model = nn.Sequential(nn.Linear(64, 32), nn.Dropout(0.3), nn.ReLU(), nn.Linear(32, 10))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    best = 0
    for epoch in range(args.epochs):
        start = time.time()
        total = 0.0
        for bx, by in loader:
            loss = nn.functional.cross_entropy(model(bx), by)
            optimizer.zero_grad()
            loss.backward()
            # ADD print("gnorm", sum(p.grad.norm() for p in model.parameters()))
            optimizer.step()
            total += loss.item()
        # ADD print(f"weight {model[0].weight.norm()}")
        best = max(best, -total)
        print(f"epoch {epoch} loss {total / len(loader):.4f} took {time.time() - start:.1f}")


if __name__ == "__main__":
    main()
