import random

import torch
from torch import nn

random.seed(2)
torch.manual_seed(2)
data = torch.randn(200, 6)
labels = data.sum(1, keepdim=True)
model = nn.Linear(6, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
skipped = 0
for epoch in range(4):
    for start in range(0, 200, 25):
        try:
            if random.random() < 0.2:
                raise ValueError("bad batch")
            loss = nn.functional.mse_loss(model(data[start : start + 25]), labels[start : start + 25])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            # ADD print("loss_now", loss)
        except ValueError:
            skipped += 1
            continue
        finally:
            pass
    # ADD print("weights", model.weight.sum())
    print("epoch", epoch, "skipped", skipped, "loss", float(loss))
