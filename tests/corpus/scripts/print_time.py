import time

import torch
from torch import nn

torch.manual_seed(0)
x = torch.randn(90, 3)
y = x.sum(1, keepdim=True)
model = nn.Linear(3, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
begun = time.perf_counter()
for epoch in range(5):
    before = time.perf_counter()
    for bx, by in zip(x.split(30), y.split(30)):
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(model(bx), by)
        loss.backward()
        optimizer.step()
    # ADD print("bias", model.bias.item())
    print(
        f"{epoch}: {loss.item():.5f} in {time.perf_counter() - before:.3f} s of {time.perf_counter() - begun:.1f} s"
    )
