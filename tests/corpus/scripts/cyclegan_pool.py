import itertools
import random

import torch
from torch import nn
from torch.utils.data import DataLoader


class ImagePool:
    def __init__(self, pool_size):
        self.pool_size = pool_size
        self.num_imgs = 0
        self.images = []

    def query(self, images):
        return_images = []
        for image in images:
            image = torch.unsqueeze(image.data, 0)
            if self.num_imgs < self.pool_size:
                self.num_imgs += 1
                self.images.append(image)
                return_images.append(image)
            elif random.uniform(0, 1) > 0.5:
                random_id = random.randint(0, self.pool_size - 1)
                return_images.append(self.images[random_id].clone())
                self.images[random_id] = image
            else:
                return_images.append(image)
        return torch.cat(return_images, 0)


def init_weights(m):
    if isinstance(m, nn.Linear):
        nn.init.normal_(m.weight, 0.0, 0.2)
        nn.init.zeros_(m.bias)


def make(out):
    return nn.Sequential(nn.Linear(4, 12), nn.LeakyReLU(0.2), nn.Linear(12, out)).apply(init_weights)


def set_requires_grad(nets, requires_grad):
    for net in nets:
        for param in net.parameters():
            param.requires_grad = requires_grad


def gan_loss(pred, real):
    return nn.functional.mse_loss(pred, torch.full_like(pred, float(real)))


def main():
    random.seed(4)
    torch.manual_seed(4)
    loader_a = DataLoader(torch.randn(48, 4) + 1, batch_size=6, shuffle=True, drop_last=True)
    loader_b = DataLoader(torch.randn(60, 4) - 1, batch_size=6, shuffle=True, drop_last=True)
    G_AB, G_BA, D_A, D_B = make(4), make(4), make(1), make(1)
    opt_G = torch.optim.Adam(
        itertools.chain(G_AB.parameters(), G_BA.parameters()), lr=2e-3, betas=(0.5, 0.999)
    )
    opt_D = torch.optim.Adam(itertools.chain(D_A.parameters(), D_B.parameters()), lr=2e-3, betas=(0.5, 0.999))
    schedulers = [
        torch.optim.lr_scheduler.LambdaLR(o, lambda e: 1.0 - max(0, e - 1) / 5) for o in (opt_G, opt_D)
    ]
    pool_a, pool_b = ImagePool(10), ImagePool(10)
    for epoch in range(4):
        for i, (real_a, real_b) in enumerate(zip(loader_a, loader_b)):
            fake_b, fake_a = G_AB(real_a), G_BA(real_b)
            set_requires_grad([D_A, D_B], False)
            opt_G.zero_grad()
            cycle = (G_BA(fake_b) - real_a).abs().mean() + (G_AB(fake_a) - real_b).abs().mean()
            loss_G = gan_loss(D_B(fake_b), True) + gan_loss(D_A(fake_a), True) + 10 * cycle
            loss_G.backward()
            opt_G.step()
            set_requires_grad([D_A, D_B], True)
            opt_D.zero_grad()
            loss_D = 0
            for net, real, fake in ((D_A, real_a, pool_a.query(fake_a)), (D_B, real_b, pool_b.query(fake_b))):
                loss_D = loss_D + 0.5 * (gan_loss(net(real), True) + gan_loss(net(fake), False))
            loss_D.backward()
            opt_D.step()
            # ADD print("cycle", cycle.item(), "pooled", pool_a.num_imgs)
            if i % 4 == 0:
                print(f"(epoch: {epoch}, iters: {i}) G: {loss_G.item():.3f} D: {loss_D.item():.3f}")
        for scheduler in schedulers:
            scheduler.step()
        # ADD print("lr", opt_G.param_groups[0]["lr"])


if __name__ == "__main__":
    main()
