import random

import numpy as np
import torch
from torch import nn

random.seed(0)
np.random.seed(0)
torch.manual_seed(0)
x = np.random.rand(100, 5).astype("float32")
y = (x @ np.ones((5, 1), dtype="float32")) + 0.01
model = nn.Linear(5, 1)
optimizer = torch.optim.NAdam(model.parameters(), 0.02)
for epoch in range(4):
    rows = list(range(100))
    random.shuffle(rows)
    for i in range(0, 100, 20):
        noise = np.random.normal(scale=0.01, size=(20, 5)).astype("float32")
        batch = torch.from_numpy(x[rows[i : i + 20]] + noise)
        mask = torch.rand(20, 5) > 0.1
        loss = nn.functional.mse_loss(model(batch * mask), torch.from_numpy(y[rows[i : i + 20]]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        # ADD print("noise", float(noise.sum()), "mask", mask.sum())
    # ADD print("w", model.weight.norm())
    print("epoch", epoch, "loss", loss.item())
