import itertools

import torch
from torch import nn
from torch.utils.data import DataLoader

torch.manual_seed(0)
loader = DataLoader(torch.randn(60, 4), batch_size=12, shuffle=True)
model = nn.Linear(4, 4)
optimizer = torch.optim.Adam(model.parameters(), 0.05)
batches = itertools.chain.from_iterable(itertools.repeat(loader))
for step in range(20):
    batch = next(batches)
    loss = nn.functional.mse_loss(model(batch), batch.flip(1))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    # ADD print("first", batch[0, 0], "norm", model.weight.norm())
    if step % 5 == 0:
        print("step", step, "loss", loss.item())
