import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Subset, TensorDataset, WeightedRandomSampler


class Curriculum:
    def __init__(self, difficulty, stages):
        self.order = np.argsort(difficulty)
        self.stages = stages
        self.stage = 0

    def advance(self, loss):
        if loss < 1.0 and self.stage < len(self.stages) - 1:
            self.stage += 1
            return True
        return False

    def loader(self, dataset):
        share = self.stages[self.stage]
        picked = self.order[: int(share * len(self.order))]
        weights = 1.0 / (1.0 + np.arange(len(picked)))
        sampler = WeightedRandomSampler(weights, num_samples=48, replacement=True)
        return DataLoader(Subset(dataset, picked), batch_size=8, sampler=sampler)


def main():
    torch.manual_seed(13)
    x = torch.randn(120, 4)
    y = x.prod(1, keepdim=True)
    dataset = TensorDataset(x, y)
    curriculum = Curriculum(y.abs().squeeze(1).numpy(), [0.25, 0.5, 0.75, 1.0])
    model = nn.Sequential(nn.Linear(4, 24), nn.ReLU(), nn.Linear(24, 1))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    loader = curriculum.loader(dataset)
    epoch = 0
    while epoch < 20:
        losses = []
        for xb, yb in loader:
            per_sample = nn.functional.mse_loss(model(xb), yb, reduction="none")
            loss = per_sample.mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
            # ADD print("hardest", per_sample.max().item())
        mean = float(np.mean(losses))
        # ADD print("weight", model[0].weight.sum())
        print(f"epoch {epoch} stage {curriculum.stage} loss {mean:.4f}")
        if curriculum.advance(mean):
            loader = curriculum.loader(dataset)
        epoch += 1


if __name__ == "__main__":
    main()
