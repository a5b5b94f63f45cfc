import torch
from torch import nn


def make_trainer(model, lr):
    optimizer = torch.optim.SGD(model.parameters(), lr, momentum=0.5)
    losses = []

    def train(data, rounds):
        for turn in range(rounds):
            for part in data.split(10):
                loss = (model(part) - part.sum(1, keepdim=True)).pow(2).mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                losses.append(loss.item())
                # ADD print("n", len(losses))
            # ADD print("bias", model.bias.item())
            print("turn", turn, losses[-1])

    return train


torch.manual_seed(3)
data = torch.randn(40, 2)
model = nn.Linear(2, 1)
warm, fine = make_trainer(model, 0.01), make_trainer(model, 0.1)
warm(data, 3)
fine(data, 3)
print("end", model.weight.sum().item())
