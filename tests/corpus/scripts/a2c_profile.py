"""A2C with n-step returns, inside a profiler, with saved-tensor hooks and per-parameter gradient hooks."""

import contextlib

import numpy as np
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile, record_function, schedule


class GridWorld:
    def __init__(self, rng):
        self.rng = rng
        self.reset()

    def reset(self):
        self.pos = self.rng.integers(0, 5, 2)
        self.goal = self.rng.integers(0, 5, 2)
        self.steps = 0
        return self.obs()

    def obs(self):
        return np.concatenate([self.pos, self.goal]).astype(np.float32) / 4

    def step(self, a):
        self.pos = np.clip(self.pos + [(0, 1), (0, -1), (1, 0), (-1, 0)][a], 0, 4)
        self.steps += 1
        hit = (self.pos == self.goal).all()
        return self.obs(), 1.0 if hit else -0.02, bool(hit or self.steps >= 30)


class ActorCritic(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 48), nn.ReLU())
        self.pi, self.v = nn.Linear(48, 4), nn.Linear(48, 1)

    def forward(self, x):
        h = self.body(x)
        return torch.distributions.Categorical(logits=self.pi(h)), self.v(h).squeeze(-1)


grad_norms = {}


def watch(name):
    def hook(grad):
        grad_norms[name] = grad.norm().item()
        return grad.clamp(-1, 1)

    return hook


def pack(t):
    return t.detach().clone()


def unpack(t):
    return t


def main(n_env=4, n_steps=5, updates=120):
    torch.manual_seed(8)
    rng = np.random.default_rng(8)
    envs = [GridWorld(rng) for _ in range(n_env)]
    obs = np.stack([e.reset() for e in envs])
    net = ActorCritic()
    for name, p in net.named_parameters():
        p.register_hook(watch(name))
    opt = torch.optim.RMSprop(net.parameters(), lr=7e-3, alpha=0.99, eps=1e-5)
    finished, ep = [], np.zeros(n_env)
    sched = schedule(wait=1, warmup=1, active=2, repeat=1)
    with profile(activities=[ProfilerActivity.CPU], schedule=sched) as prof:
        for update in range(updates):
            logps, values, rewards, masks, ents = [], [], [], [], []
            with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
                for _ in range(n_steps):
                    with record_function("act"):
                        dist, value = net(torch.from_numpy(obs))
                        action = dist.sample()
                    out = [e.step(int(a)) for e, a in zip(envs, action)]
                    obs = np.stack([o for o, _, _ in out])
                    reward = np.array([r for _, r, _ in out], dtype=np.float32)
                    done = np.array([d for _, _, d in out])
                    ep += reward
                    for i in np.flatnonzero(done):
                        finished.append(float(ep[i]))
                        ep[i] = 0
                        obs[i] = envs[i].reset()
                    logps.append(dist.log_prob(action))
                    ents.append(dist.entropy())
                    values.append(value)
                    rewards.append(torch.from_numpy(reward))
                    masks.append(torch.from_numpy(1 - done.astype(np.float32)))
                with torch.no_grad():
                    R = net(torch.from_numpy(obs))[1]
                returns = []
                for r, m in zip(reversed(rewards), reversed(masks)):
                    R = r + 0.95 * R * m
                    returns.insert(0, R)
                adv = torch.stack(returns) - torch.stack(values)
                loss = (
                    -(torch.stack(logps) * adv.detach()).mean()
                    + 0.5 * adv.pow(2).mean()
                    - 0.01 * torch.stack(ents).mean()
                )
            opt.zero_grad()
            loss.backward()
            opt.step()
            prof.step()
            # ADD print("gn", grad_norms["pi.weight"])
            if (update + 1) % 20 == 0:
                print("update", update + 1, "return", np.mean(finished[-20:]), "loss", loss.item())


if __name__ == "__main__":
    main()
