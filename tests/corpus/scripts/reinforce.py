import random

import torch
from torch import nn


class Walk:
    def __init__(self):
        self.place = 0
        self.random = random.Random(0)

    def reset(self):
        self.place = 2
        return torch.tensor([float(self.place)])

    def step(self, action):
        self.place += 1 if action else -1
        if self.random.random() < 0.1:
            self.place -= 1
        done = self.place <= 0 or self.place >= 5
        return torch.tensor([float(self.place)]), float(self.place >= 5), done


torch.manual_seed(0)
env = Walk()
policy = nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.Linear(8, 2))
optimizer = torch.optim.Adam(policy.parameters(), 0.02)
won = 0.0
for episode in range(15):
    state, done, chances = env.reset(), False, []
    while not done:
        choice = torch.distributions.Categorical(logits=policy(state))
        action = choice.sample()
        chances.append(choice.log_prob(action))
        state, reward, done = env.step(action.item())
        # ADD print("place", env.place)
    won += reward
    loss = -(reward - 0.5) * torch.stack(chances).sum()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    # ADD print("steps", len(chances))
    print("episode", episode, "won", won)
