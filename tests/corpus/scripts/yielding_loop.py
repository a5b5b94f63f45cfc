import torch
from torch import nn


def training(model, data, epochs):
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    for epoch in range(epochs):
        loss = (model(data) - data).abs().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield epoch, loss.item()


torch.manual_seed(0)
model = nn.Linear(3, 3)
for epoch, loss in training(model, torch.randn(30, 3), 6):
    # ADD print("trace", model.weight.trace())
    print("epoch", epoch, "loss", loss)
