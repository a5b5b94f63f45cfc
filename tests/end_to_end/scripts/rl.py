"""Q-learning on a toy corridor: an environment with state and an RNG of its own, and a replay buffer."""

import collections
import random
import time

import torch
from torch import nn

import florlog


class Corridor:
    def __init__(self, length, seed):
        self.length = length
        self.rng = random.Random(seed)
        self.place = 0
        self.moves = 0

    def reset(self):
        self.place, self.moves = self.rng.randrange(self.length // 2), 0
        return self.observe()

    def observe(self):
        return torch.nn.functional.one_hot(torch.tensor(self.place), self.length).float()

    def step(self, action):
        self.moves += 1
        if self.rng.random() < 0.1:
            action = 1 - action
        self.place = min(self.length - 1, max(0, self.place + (1 if action else -1)))
        done = self.place == self.length - 1 or self.moves >= 12
        # ADD florlog.log(place=self.place, move=self.moves)
        return self.observe(), float(self.place == self.length - 1), done


class Agent:
    def __init__(self, length):
        self.net = nn.Linear(length, 2)
        self.target = nn.Linear(length, 2)
        self.optimizer = torch.optim.RMSprop(self.net.parameters(), lr=0.05)
        self.buffer = collections.deque(maxlen=60)
        self.epsilon = 0.9

    def act(self, state):
        if random.random() < self.epsilon:
            return random.randrange(2)
        return int(self.net(state).argmax())

    def learn(self):
        batch = random.sample(list(self.buffer), min(16, len(self.buffer)))
        states, actions, rewards, following, dones = (
            torch.stack(column) for column in zip(*batch, strict=True)
        )
        with torch.no_grad():
            goal = rewards + 0.9 * (1 - dones) * self.target(following).max(1).values
        q = self.net(states).gather(1, actions[:, None])[:, 0]
        loss = nn.functional.mse_loss(q, goal)
        self.optimizer.zero_grad()
        loss.backward()
        # ADD florlog.log(goal=goal.mean(), grad=self.net.weight.grad.norm())
        self.optimizer.step()
        time.sleep(0.002)
        return loss.item()


def main():
    torch.manual_seed(8)
    random.seed(8)
    env, agent = Corridor(6, 80), Agent(6)
    returns = []
    with florlog.run("rl", overhead=float("inf")) as run:
        run.track(net=agent.net, optimizer=agent.optimizer)
        for episode in run.loop("episode", range(12)):
            state, done, t, total = env.reset(), False, 0, 0.0
            # ADD run.log(start=env.place, epsilon_=agent.epsilon)
            while not done:
                with run.iteration("t", t):
                    action = agent.act(state)
                    following, reward, done = env.step(action)
                    agent.buffer.append(
                        (
                            state,
                            torch.tensor(action),
                            torch.tensor(reward),
                            following,
                            torch.tensor(float(done)),
                        )
                    )
                    # ADD run.log(buffered=len(agent.buffer), chosen=action)
                    state, total, t = following, total + reward * 0.9**t, t + 1
                    run.log(loss=agent.learn())
            agent.epsilon *= 0.85
            if episode % 3 == 2:
                agent.target.load_state_dict(agent.net.state_dict())
                # ADD run.log(synced=agent.target.weight.norm())
            returns.append(total)
            run.log(total=total, length=t)
            # ADD run.log(mean=sum(returns[-4:]) / len(returns[-4:]), env_moves=env.moves)
        run.log(weights=agent.net.weight, target=agent.target.weight, returns=returns)
        # ADD run.log(oldest=agent.buffer[0][0])


main()
