import torch
from torch import nn

torch.manual_seed(6)
real = torch.randn(64, 2) * 0.5 + 2
generator = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
critic = nn.Sequential(nn.Linear(2, 8), nn.LeakyReLU(), nn.Linear(8, 1))
opt_g = torch.optim.Adam(generator.parameters(), 0.01)
opt_d = torch.optim.Adam(critic.parameters(), 0.01)
bce = nn.BCEWithLogitsLoss()
for epoch in range(4):
    for batch in real.split(16):
        fake = generator(torch.randn(16, 4))
        loss_d = bce(critic(batch), torch.ones(16, 1)) + bce(critic(fake.detach()), torch.zeros(16, 1))
        opt_d.zero_grad()
        loss_d.backward()
        opt_d.step()
        # ADD print("fake_mean", fake.mean())
        loss_g = bce(critic(fake), torch.ones(16, 1))
        opt_g.zero_grad()
        loss_g.backward()
        opt_g.step()
        # ADD print("loss_g", loss_g)
    # ADD print("critic", critic[0].weight.norm())
    print("epoch", epoch, "d", loss_d.item(), "g", loss_g.item())
