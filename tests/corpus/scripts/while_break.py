import torch
from sklearn.datasets import load_digits
from torch import nn

torch.manual_seed(1)
x, y = load_digits(return_X_y=True)
x, y = torch.tensor(x[:240], dtype=torch.float32) / 16, torch.tensor(y[:240])
model = nn.Linear(64, 10)
optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
best, waited, epoch = 99.0, 0, 0
while True:
    pick = torch.randint(0, len(x), (64,))
    loss = nn.functional.cross_entropy(model(x[pick]), y[pick])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    # ADD print("norm", model.weight.norm())
    print("loss %.4f after %d" % (loss.item(), epoch))
    if loss.item() < best - 0.01:
        best, waited = loss.item(), 0
    else:
        waited += 1
    # ADD print("waited", waited)
    epoch += 1
    if waited > 3 or epoch >= 30:
        break
print("best", best)
