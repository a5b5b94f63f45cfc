import logging

import torch
from torch import nn

logging.basicConfig(level=logging.INFO)
logger = logging.getLogger("train")


def train(target=0.9, most=25):
    torch.manual_seed(5)
    data = torch.randn(128, 8)
    labels = (data[:, 0] * data[:, 1] > 0).long()
    net = nn.Sequential(nn.Linear(8, 32), nn.Tanh(), nn.Linear(32, 2))
    optimizer = torch.optim.RMSprop(net.parameters(), lr=0.01)
    accuracy, step = 0.0, 0
    while accuracy < target and step < most:
        out = net(data)
        loss = nn.functional.cross_entropy(out, labels)
        optimizer.zero_grad()
        loss.backward()
        # ADD logger.info("gradient %s", net[0].weight.grad.abs().max())
        optimizer.step()
        accuracy = (out.argmax(1) == labels).float().mean().item()
        step += 1
        logger.info("step %d accuracy %.3f", step, accuracy)
        # ADD logger.info(f"bias {net[2].bias.sum()}")
    return net


if __name__ == "__main__":
    train()
