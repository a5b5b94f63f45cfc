import torch
from torch import nn

torch.manual_seed(0)
x = torch.randn(50, 3)
model = nn.Linear(3, 3)
optimizer = torch.optim.LBFGS(model.parameters(), lr=0.5, max_iter=3)
warm = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / 4))
calls = 0


def closure():
    global calls
    calls += 1
    optimizer.zero_grad()
    loss = (model(x) - x.flip(1)).abs().mean()
    loss.backward()
    # ADD print("inside", calls)
    return loss


for step in range(6):
    loss = optimizer.step(closure)
    warm.step()
    print("step", step, "loss", float(loss))
    # ADD print("lr", warm.get_last_lr()[0])
