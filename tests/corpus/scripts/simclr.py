import random

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, Dataset


class GaussianNoise:
    def __init__(self, sigma):
        self.sigma = sigma

    def __call__(self, x):
        return x + self.sigma * torch.randn_like(x)


class RandomFlip:
    def __call__(self, x):
        return x.flip(-1) if random.random() < 0.5 else x


class RandomCrop:
    def __init__(self, size):
        self.size = size

    def __call__(self, x):
        i = torch.randint(0, x.shape[-1] - self.size + 1, (1,)).item()
        return x[..., i : i + self.size, i : i + self.size]


class Compose:
    def __init__(self, transforms):
        self.transforms = transforms

    def __call__(self, x):
        for t in self.transforms:
            x = t(x)
        return x


class ContrastiveViews(Dataset):
    def __init__(self, images, transform, n_views=2):
        self.images, self.transform, self.n_views = images, transform, n_views

    def __len__(self):
        return len(self.images)

    def __getitem__(self, i):
        return [self.transform(self.images[i]) for _ in range(self.n_views)]


def info_nce(z, temperature=0.2):
    n = len(z) // 2
    z = F.normalize(z, dim=1)
    sim = z @ z.T / temperature
    sim.fill_diagonal_(-1e9)
    targets = torch.arange(2 * n).roll(n)
    top1 = (sim.argmax(1) == targets).float().mean()
    return F.cross_entropy(sim, targets), top1


class SimCLR:
    def __init__(self, model, optimizer, scheduler):
        self.model, self.optimizer, self.scheduler = model, optimizer, scheduler

    def train(self, loader, epochs):
        n_iter = 0
        for epoch_counter in range(epochs):
            for images in loader:
                images = torch.cat(images, dim=0)
                loss, top1 = info_nce(self.model(images))
                self.optimizer.zero_grad()
                loss.backward()
                self.optimizer.step()
                # ADD print("top1", top1.item(), "mean", images.mean().item())
                n_iter += 1
            if epoch_counter >= 1:
                self.scheduler.step()
            # ADD print("lr", self.scheduler.get_last_lr()[0])
            print(f"Epoch: {epoch_counter}\tLoss: {loss.item():.4f}\tTop1 accuracy: {top1.item():.4f}")


def main():
    random.seed(0)
    torch.manual_seed(0)
    dataset = ContrastiveViews(
        torch.rand(48, 1, 10, 10), Compose([RandomCrop(8), RandomFlip(), GaussianNoise(0.1)])
    )
    loader = DataLoader(dataset, batch_size=12, shuffle=True, drop_last=True)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 16), nn.ReLU(), nn.Linear(16, 8)
    )
    optimizer = torch.optim.Adam(model.parameters(), 3e-3, weight_decay=1e-4)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=4, eta_min=0)
    SimCLR(model, optimizer, scheduler).train(loader, 5)


if __name__ == "__main__":
    main()
