import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(0)
real = torch.randn(60, 4) * 0.5 + 1


def endless(loader):
    while True:
        for batch in loader:
            yield batch


loader = DataLoader(TensorDataset(real), batch_size=12, shuffle=True)
other = DataLoader(
    TensorDataset(torch.randn(60, 4)), batch_size=10, shuffle=True, generator=torch.Generator().manual_seed(1)
)
G = nn.Sequential(nn.Linear(3, 16), nn.ReLU(), nn.Linear(16, 4))
D = nn.Sequential(nn.Linear(4, 16), nn.LeakyReLU(0.2), nn.Linear(16, 1))
opt_g = torch.optim.Adam(G.parameters(), 2e-3)
opt_d = torch.optim.Adam(D.parameters(), 2e-3)
criterion = nn.BCEWithLogitsLoss()
stream = endless(other)
losses = []
for epoch in range(12):
    for i, (x,) in enumerate(loader, 0):
        (extra,) = next(stream)
        fake = G(torch.randn(len(x), 3))
        d_loss = criterion(D(x), torch.ones(len(x), 1)) + criterion(D(fake.detach()), torch.zeros(len(x), 1))
        d_loss = d_loss + 0.1 * criterion(D(extra), torch.zeros(len(extra), 1))
        opt_d.zero_grad()
        d_loss.backward()
        opt_d.step()
        g_loss = criterion(D(fake), torch.ones(len(x), 1))
        # ADD print("extra", extra.sum())
        opt_g.zero_grad()
        g_loss.backward()
        opt_g.step()
        losses.append(g_loss.item())
        if i % 2 == 0:
            print("[%d][%d] loss_d: %.6f loss_g: %.6f" % (epoch, i, d_loss.item(), g_loss.item()))
    # ADD print("mean", sum(losses) / len(losses))
