import copy
import math

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader


class Denoiser(nn.Module):
    def __init__(self, dim=2, hidden=32):
        super().__init__()
        self.hidden = hidden
        self.inp = nn.Linear(dim, hidden)
        self.time = nn.Sequential(nn.Linear(hidden, hidden), nn.SiLU(), nn.Linear(hidden, hidden))
        self.out = nn.Sequential(nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU(), nn.Linear(hidden, dim))

    def embedding(self, t):
        freqs = torch.exp(-math.log(1000) * torch.arange(self.hidden // 2) / (self.hidden // 2))
        return torch.cat([torch.sin(t[:, None] * freqs), torch.cos(t[:, None] * freqs)], dim=-1)

    def forward(self, x, t):
        return self.out(self.inp(x) + self.time(self.embedding(t.float())))


class Diffusion:
    def __init__(self, steps=20):
        self.steps = steps
        self.betas = torch.linspace(1e-4, 0.2, steps)
        self.alphas_bar = torch.cumprod(1 - self.betas, 0)

    def q_sample(self, x0, t, noise):
        a = self.alphas_bar[t][:, None]
        return a.sqrt() * x0 + (1 - a).sqrt() * noise

    def loss(self, model, x0):
        t = torch.randint(0, self.steps, (len(x0),))
        noise = torch.randn_like(x0)
        predicted = model(self.q_sample(x0, t, noise), t)
        # ADD print("t", t.sum(), "predicted", predicted.std())
        return F.mse_loss(predicted, noise)

    @torch.no_grad()
    def sample(self, model, n):
        x = torch.randn(n, 2)
        for i in reversed(range(self.steps)):
            eps = model(x, torch.full((n,), i))
            x = (x - self.betas[i] / (1 - self.alphas_bar[i]).sqrt() * eps) / (1 - self.betas[i]).sqrt()
            if i > 0:
                x += self.betas[i].sqrt() * torch.randn_like(x)
        return x


class EMA:
    def __init__(self, model, decay=0.95):
        self.decay = decay
        self.model = copy.deepcopy(model).eval().requires_grad_(False)

    def update(self, model):
        for p, q in zip(self.model.parameters(), model.parameters()):
            p.data.mul_(self.decay).add_(q.data, alpha=1 - self.decay)


torch.manual_seed(0)
angles = torch.rand(160) * 2 * math.pi
dataset = torch.stack([angles.cos(), angles.sin()], 1) + 0.05 * torch.randn(160, 2)
dataloader = DataLoader(dataset, batch_size=32, shuffle=True, drop_last=True)
model = Denoiser()
ema = EMA(model)
diffusion = Diffusion()
optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
lr_scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=6 * len(dataloader))
global_step = 0
for epoch in range(6):
    for step, batch in enumerate(dataloader):
        loss = diffusion.loss(model, batch)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        lr_scheduler.step()
        ema.update(model)
        global_step += 1
        # ADD print("ema", ema.model.inp.weight.norm())
    samples = diffusion.sample(ema.model, 16)
    print(f"epoch {epoch} step {global_step} loss {loss.item():.4f} radius {samples.norm(dim=1).mean():.4f}")
