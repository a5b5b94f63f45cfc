import torch


def load():
    torch.manual_seed(11)
    x = torch.randn(100, 6)
    return x, (x[:, 0] > 0).long()
