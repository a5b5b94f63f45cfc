import asyncio
import random

import torch
from torch import nn


class Sensor:
    def __init__(self, n, seed):
        self.n = n
        self.rng = random.Random(seed)

    async def readings(self):
        for i in range(self.n):
            await asyncio.sleep(0)
            yield [self.rng.gauss(0, 1) for _ in range(4)]


async def batched(source, size):
    held = []
    async for row in source:
        held.append(row)
        if len(held) == size:
            yield torch.tensor(held)
            held = []


async def evaluate(model, x):
    await asyncio.sleep(0)
    with torch.no_grad():
        return nn.functional.mse_loss(model(x), x.sum(1, keepdim=True)).item()


async def train(sensor, epochs):
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
    optimizer = torch.optim.RAdam(model.parameters(), lr=0.02)
    held_out = torch.randn(20, 4)
    seen = 0
    for epoch in range(epochs):
        async for x in batched(sensor.readings(), 8):
            loss = nn.functional.mse_loss(model(x), x.sum(1, keepdim=True))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            seen += len(x)
        error = await evaluate(model, held_out)
        # ADD print("weights", model[0].weight.norm().item())
        print(f"epoch {epoch} seen {seen} loss {loss.item():.4f} error {error:.4f}")
    return model


if __name__ == "__main__":
    torch.manual_seed(0)
    asyncio.run(train(Sensor(40, 5), 8))
