"""A GAN: two models, two optimizers, noise from a generator that nobody tracks by name."""

import time

import torch
from sklearn.datasets import load_digits
from torch import nn

import florlog


def discriminate(critic, real, fake):
    ones, zeros = torch.ones(len(real), 1), torch.zeros(len(fake), 1)
    bce = nn.functional.binary_cross_entropy_with_logits
    right = critic(real)
    # ADD florlog.log(real_score=right.mean())
    return bce(right, ones) + bce(critic(fake), zeros)


def main():
    torch.manual_seed(4)
    data = torch.tensor(load_digits().data[:320], dtype=torch.float32) / 16
    noise = torch.Generator().manual_seed(40)
    maker = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 64), nn.Sigmoid())
    critic = nn.Sequential(nn.Linear(64, 32), nn.LeakyReLU(0.2), nn.Dropout(0.3), nn.Linear(32, 1))
    optimizers = {
        "maker": torch.optim.Adam(maker.parameters(), lr=0.002, betas=(0.5, 0.999)),
        "critic": torch.optim.Adam(critic.parameters(), lr=0.002, betas=(0.5, 0.999)),
    }
    fixed = torch.randn(4, 8, generator=noise)
    balance = 0.0
    with florlog.run("gan", overhead=float("inf")) as run:
        run.track(maker=maker, critic=critic, opt_maker=optimizers["maker"], opt_critic=optimizers["critic"])
        for _ in run.loop("epoch", range(3)):
            order = torch.randperm(len(data))
            # ADD run.log(balance_before=balance)
            for k in run.loop("step", range(10)):
                real = data[order[k * 32 : (k + 1) * 32]]
                z = torch.randn(32, 8, generator=noise)
                # ADD run.log(z=z[0, :3])
                fake = maker(z)
                loss_critic = discriminate(critic, real, fake.detach())
                optimizers["critic"].zero_grad()
                loss_critic.backward()
                optimizers["critic"].step()
                # ADD run.log(critic_norm=sum(p.norm() for p in critic.parameters()))
                loss_maker = -nn.functional.logsigmoid(critic(fake)).mean()
                optimizers["maker"].zero_grad()
                loss_maker.backward()
                optimizers["maker"].step()
                balance = 0.9 * balance + 0.1 * (loss_maker.item() - loss_critic.item())
                run.log(loss_critic=loss_critic, loss_maker=loss_maker)
                # ADD run.log(balance_=balance)
                time.sleep(0.003)
            with torch.no_grad():
                sample = maker(fixed)
            run.log(sample=sample.mean())
            # ADD run.log(image=sample[0, 20:24], maker_rate=optimizers["maker"].param_groups[0]["lr"])
        run.log(weights=maker[2].weight, balance=balance)
        # ADD run.log(next_noise=torch.randn(2, generator=noise))


main()
