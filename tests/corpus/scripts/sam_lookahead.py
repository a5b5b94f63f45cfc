from collections import defaultdict

import torch
from torch import nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader, TensorDataset


class SAM(Optimizer):
    def __init__(self, params, base_optimizer, rho=0.05, **kwargs):
        defaults = dict(rho=rho, **kwargs)
        super().__init__(params, defaults)
        self.base_optimizer = base_optimizer(self.param_groups, **kwargs)
        self.param_groups = self.base_optimizer.param_groups
        self.defaults.update(self.base_optimizer.defaults)

    @torch.no_grad()
    def first_step(self, zero_grad=False):
        grad_norm = self._grad_norm()
        for group in self.param_groups:
            scale = group["rho"] / (grad_norm + 1e-12)
            for p in group["params"]:
                if p.grad is None:
                    continue
                self.state[p]["old_p"] = p.data.clone()
                p.add_(p.grad * scale.to(p))
        if zero_grad:
            self.zero_grad()

    @torch.no_grad()
    def second_step(self, zero_grad=False):
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                p.data = self.state[p]["old_p"]
        self.base_optimizer.step()
        if zero_grad:
            self.zero_grad()

    @torch.no_grad()
    def step(self, closure=None):
        closure = torch.enable_grad()(closure)
        self.first_step(zero_grad=True)
        closure()
        self.second_step()

    def _grad_norm(self):
        return torch.norm(
            torch.stack(
                [p.grad.norm(p=2) for g in self.param_groups for p in g["params"] if p.grad is not None]
            ),
            p=2,
        )


class Lookahead(Optimizer):
    def __init__(self, optimizer, k=5, alpha=0.5):
        self.optimizer, self.k, self.alpha = optimizer, k, alpha
        self.param_groups = self.optimizer.param_groups
        self.state = defaultdict(dict)
        self.fast_state = self.optimizer.state
        for group in self.param_groups:
            group["counter"] = 0

    def update(self, group):
        for fast in group["params"]:
            state = self.state[fast]
            if "slow_param" not in state:
                state["slow_param"] = torch.zeros_like(fast.data)
                state["slow_param"].copy_(fast.data)
            slow = state["slow_param"]
            slow += (fast.data - slow) * self.alpha
            fast.data.copy_(slow)

    def step(self, closure=None):
        loss = self.optimizer.step(closure)
        for group in self.param_groups:
            if group["counter"] == 0:
                self.update(group)
            group["counter"] += 1
            if group["counter"] >= self.k:
                group["counter"] = 0
        return loss

    def zero_grad(self):
        self.optimizer.zero_grad()


def smooth_ce(pred, gold, smoothing=0.1):
    n = pred.size(1)
    one_hot = torch.full_like(pred, smoothing / (n - 1))
    one_hot.scatter_(1, gold.unsqueeze(1), 1 - smoothing)
    return -(one_hot * pred.log_softmax(1)).sum(1)


def make_model():
    return nn.Sequential(nn.Linear(10, 32), nn.ReLU(), nn.Dropout(0.1), nn.Linear(32, 3))


def train(name, loader, xv, yv, epochs=6):
    torch.manual_seed(2)
    model = make_model()
    if name == "sam":
        opt = SAM(model.parameters(), torch.optim.SGD, rho=0.05, lr=0.05, momentum=0.9)
    else:
        opt = Lookahead(torch.optim.Adam(model.parameters(), lr=3e-3))
    for epoch in range(epochs):
        model.train()
        seen = 0.0
        for inputs, targets in loader:
            loss = smooth_ce(model(inputs), targets).mean()
            if isinstance(opt, SAM):
                loss.backward()
                opt.first_step(zero_grad=True)
                smooth_ce(model(inputs), targets).mean().backward()
                opt.second_step(zero_grad=True)
            else:
                opt.zero_grad()
                loss.backward()
                opt.step()
            seen += loss.item()
            # ADD print("l", loss.item())
        model.eval()
        with torch.no_grad():
            acc = (model(xv).argmax(1) == yv).float().mean().item()
        print(name, "epoch", epoch, "loss", seen / len(loader), "acc", acc)
    return acc


g = torch.Generator().manual_seed(0)
x = torch.randn(700, 10, generator=g)
y = (x @ torch.randn(10, 3, generator=g)).argmax(1)
loader = DataLoader(TensorDataset(x[:600], y[:600]), batch_size=20, shuffle=True)
results = {name: train(name, loader, x[600:], y[600:]) for name in ("sam", "lookahead")}
print(results)
