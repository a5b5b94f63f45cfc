"""One training per seed with joblib, then the ensemble is distilled."""

import numpy as np
import torch
from joblib import Parallel, delayed
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def make_data(seed=0, n=400):
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 8, generator=g)
    return x, (x.pow(2).sum(1) > 8).long()


def fit(seed, epochs=6, verbose=True):
    torch.manual_seed(seed)
    x, y = make_data()
    loader = DataLoader(TensorDataset(x, y), batch_size=20, shuffle=True)
    model = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 2))
    opt = torch.optim.Adam(model.parameters(), 5e-3)
    for epoch in range(epochs):
        total = 0.0
        for xb, yb in loader:
            loss = nn.functional.cross_entropy(model(xb), yb)
            opt.zero_grad()
            loss.backward()
            opt.step()
            total += loss.item()
            # ADD print("loss now", loss.item())
        if verbose:
            print(f"seed {seed} epoch {epoch} loss {total / len(loader):.5f}")
    return seed, {k: v.numpy() for k, v in model.state_dict().items()}, total / len(loader)


if __name__ == "__main__":
    results = Parallel(n_jobs=1)(delayed(fit)(seed) for seed in range(5))
    results.sort(key=lambda r: r[2])
    x, _ = make_data()
    probs = []
    for seed, state, loss in results:
        net = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 2))
        net.load_state_dict({k: torch.from_numpy(v) for k, v in state.items()})
        with torch.no_grad():
            probs.append(net(x).softmax(1))
    target = torch.stack(probs).mean(0)
    student = nn.Linear(8, 2)
    opt = torch.optim.SGD(student.parameters(), lr=0.5)
    for i in range(100):
        opt.zero_grad()
        loss = nn.functional.kl_div(student(x).log_softmax(1), target, reduction="batchmean")
        loss.backward()
        opt.step()
        if i % 25 == 0:
            print("student", i, loss.item())
    print("ensemble", [round(r[2], 6) for r in results], loss.item())
