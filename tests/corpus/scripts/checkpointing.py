import torch
from torch import nn
from torch.utils.checkpoint import checkpoint


class Block(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.net = nn.Sequential(
            nn.LayerNorm(dim), nn.Linear(dim, dim), nn.GELU(), nn.Dropout(0.1), nn.Linear(dim, dim)
        )

    def forward(self, x):
        return x + self.net(x)


class Model(nn.Module):
    def __init__(self, dim, depth, gradient_checkpointing=True):
        super().__init__()
        self.blocks = nn.ModuleList(Block(dim) for _ in range(depth))
        self.head = nn.Linear(dim, 1)
        self.gradient_checkpointing = gradient_checkpointing

    def forward(self, x):
        for block in self.blocks:
            if self.gradient_checkpointing and self.training:
                x = checkpoint(block, x, use_reentrant=False)
            else:
                x = block(x)
        # ADD print("features", x.std().item())
        return self.head(x)


def main():
    torch.manual_seed(0)
    model = Model(8, 3)
    decay = [p for n, p in model.named_parameters() if p.ndim >= 2]
    no_decay = [p for n, p in model.named_parameters() if p.ndim < 2]
    optimizer = torch.optim.AdamW(
        [{"params": decay, "weight_decay": 0.1}, {"params": no_decay, "weight_decay": 0.0}], lr=5e-3
    )
    scheduler = torch.optim.lr_scheduler.SequentialLR(
        optimizer,
        [
            torch.optim.lr_scheduler.LinearLR(optimizer, 0.1, total_iters=5),
            torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.95),
        ],
        milestones=[5],
    )
    x = torch.randn(64, 8)
    y = x.pow(2).mean(1, keepdim=True)
    for epoch in range(1, 5):
        perm = torch.randperm(len(x))
        for i in range(0, len(x), 16):
            model.train()
            idx = perm[i : i + 16]
            loss = nn.functional.smooth_l1_loss(model(x[idx]), y[idx])
            loss.backward()
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
            # ADD print("lr", scheduler.get_last_lr()[0])
        model.eval()
        with torch.no_grad():
            print("epoch: %d, loss: %.5f" % (epoch, nn.functional.smooth_l1_loss(model(x), y).item()))


if __name__ == "__main__":
    main()
