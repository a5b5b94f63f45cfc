import copy

import torch
from torch import nn

torch.manual_seed(0)
x = torch.randn(80, 4)
y = torch.sin(x).sum(1, keepdim=True)
model = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 1))
averaged = copy.deepcopy(model)
optimizer = torch.optim.SGD(model.parameters(), 0.05)
best, best_state = float("inf"), None
for epoch in range(5):
    for rows in torch.randperm(80).split(20):
        loss = nn.functional.mse_loss(model(x[rows]), y[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            for a, b in zip(averaged.parameters(), model.parameters()):
                a.lerp_(b, 0.1)
        # ADD print("gap", (averaged[0].weight - model[0].weight).norm())
    error = nn.functional.mse_loss(averaged(x), y).item()
    if error < best:
        best, best_state = error, copy.deepcopy(averaged.state_dict())
    # ADD print("kept", best_state["0.weight"].sum())
    print("epoch", epoch, "error", error, "best", best)
