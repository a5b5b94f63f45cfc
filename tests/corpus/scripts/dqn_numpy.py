import random
from collections import deque

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn


class VecEnv:
    def __init__(self, n, seed):
        self.rng = np.random.default_rng(seed)
        self.state = self.rng.normal(size=(n, 4)).astype(np.float32)
        self.t = np.zeros(n, dtype=np.int64)

    def step(self, actions):
        self.state += 0.1 * self.rng.normal(size=self.state.shape) + (actions[:, None] - 0.5) * 0.05
        self.t += 1
        done = (self.t > 9) | (np.abs(self.state).max(1) > 3)
        self.state[done] = self.rng.normal(size=(int(done.sum()), 4))
        self.t[done] = 0
        return self.state.copy(), -np.abs(self.state).sum(1), done


class ReplayBuffer:
    def __init__(self, size, n):
        self.obs, self.next = (np.zeros((size, n, 4), np.float32) for _ in range(2))
        self.act, self.rew = np.zeros((size, n), np.int64), np.zeros((size, n), np.float32)
        self.pos = self.count = 0

    def add(self, obs, after, action, reward):
        for held, value in ((self.obs, obs), (self.next, after), (self.act, action), (self.rew, reward)):
            held[self.pos] = value
        self.pos = (self.pos + 1) % len(self.obs)
        self.count = min(self.count + 1, len(self.obs))

    def sample(self, k):
        i, j = np.random.randint(0, self.count, k), np.random.randint(0, self.obs.shape[1], k)
        return [torch.as_tensor(held[i, j]) for held in (self.obs, self.next, self.act, self.rew)]


if __name__ == "__main__":
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    env, buffer = VecEnv(4, 1), ReplayBuffer(40, 4)
    q, target = nn.Linear(4, 2), nn.Linear(4, 2)
    target.load_state_dict(q.state_dict())
    optimizer = torch.optim.Adam(q.parameters(), lr=1e-2)
    rewards = deque(maxlen=20)
    obs = env.state.copy()
    for global_step in range(90):
        if random.random() < max(0.1, 1 - global_step / 50):
            actions = np.array([random.randrange(2) for _ in range(4)])
        else:
            actions = torch.argmax(q(torch.as_tensor(obs)), 1).numpy()
        after, reward, done = env.step(actions)
        rewards.append(reward.mean())
        buffer.add(obs, after, actions, reward)
        obs = after
        if global_step > 9:
            o, n, a, r = buffer.sample(16)
            with torch.no_grad():
                goal = r + 0.99 * target(n).max(1).values
            loss = F.mse_loss(q(o).gather(1, a[:, None])[:, 0], goal)
            # ADD print("goal", goal.mean())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if global_step % 10 == 0:
                target.load_state_dict(q.state_dict())
                print(f"global_step={global_step}, loss={loss.item():.6f}, reward={np.mean(rewards):.6f}")
    # ADD print("last", float(np.mean(rewards)))
