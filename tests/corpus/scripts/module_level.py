import torch
from sklearn.datasets import load_digits
from torch import nn

torch.manual_seed(3)
x, y = load_digits(return_X_y=True)
x, y = torch.tensor(x[:240], dtype=torch.float32) / 16, torch.tensor(y[:240])
model = nn.Linear(64, 10)
opt = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
sched = torch.optim.lr_scheduler.LambdaLR(opt, lambda e: 0.9**e)
step = 0
for epoch in range(5):
    order = torch.randperm(len(x))
    for i in range(0, len(x), 40):
        batch = order[i : i + 40]
        opt.zero_grad()
        loss = nn.functional.cross_entropy(model(x[batch]), y[batch])
        loss.backward()
        # ADD print("grad", model.weight.grad.norm())
        opt.step()
        step += 1
    sched.step()
    # ADD print("rate", sched.get_last_lr()[0], "done", step)
    print("epoch", epoch, "loss", loss.item())
