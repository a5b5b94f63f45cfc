import os.path as osp

import torch
import torch.nn.functional as F
from torch import Tensor


class Data:
    def __init__(self, n=60, classes=3):
        self.y = torch.arange(n) % classes
        self.x = F.one_hot(self.y, classes).float() + 0.8 * torch.randn(n, classes)
        src, dst = torch.randint(0, n, (2, 6 * n))
        keep = (self.y[src] == self.y[dst]) | (torch.rand(6 * n) < 0.3)
        self.edge_index = torch.stack([src[keep], dst[keep]])
        order = torch.randperm(n)
        self.train_mask, self.val_mask, self.test_mask = (torch.zeros(n, dtype=torch.bool) for _ in range(3))
        self.train_mask[order[:30]] = True
        self.val_mask[order[30:45]] = True
        self.test_mask[order[45:]] = True


class GCNConv(torch.nn.Module):
    def __init__(self, in_channels, out_channels):
        super().__init__()
        self.lin = torch.nn.Linear(in_channels, out_channels, bias=False)
        self.bias = torch.nn.Parameter(torch.zeros(out_channels))

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        loops = torch.arange(x.size(0)).repeat(2, 1)
        row, col = torch.cat([edge_index, loops], 1)
        deg = torch.zeros(x.size(0)).index_add_(0, col, torch.ones(col.numel()))
        norm = deg.pow(-0.5)[row] * deg.pow(-0.5)[col]
        x = self.lin(x)
        return torch.zeros_like(x).index_add_(0, col, norm[:, None] * x[row]) + self.bias


class GCN(torch.nn.Module):
    def __init__(self, in_channels, hidden_channels, out_channels):
        super().__init__()
        self.conv1 = GCNConv(in_channels, hidden_channels)
        self.conv2 = GCNConv(hidden_channels, out_channels)

    def forward(self, x, edge_index):
        x = F.dropout(x, p=0.5, training=self.training)
        x = self.conv1(x, edge_index).relu()
        # ADD print("hidden", x.mean().item())
        x = F.dropout(x, p=0.5, training=self.training)
        return self.conv2(x, edge_index)


torch.manual_seed(12)
data = Data()
model = GCN(3, 16, 3)
optimizer = torch.optim.Adam(
    [
        dict(params=model.conv1.parameters(), weight_decay=5e-4),
        dict(params=model.conv2.parameters(), weight_decay=0),
    ],
    lr=0.01,
)


def train():
    model.train()
    optimizer.zero_grad()
    out = model(data.x, data.edge_index)
    loss = F.cross_entropy(out[data.train_mask], data.y[data.train_mask])
    loss.backward()
    optimizer.step()
    return float(loss)


@torch.no_grad()
def test():
    model.eval()
    pred = model(data.x, data.edge_index).argmax(dim=-1)
    accs = []
    for mask in [data.train_mask, data.val_mask, data.test_mask]:
        accs.append(int((pred[mask] == data.y[mask]).sum()) / int(mask.sum()))
    return accs


best_val_acc = test_acc = 0
for epoch in range(1, 41):
    loss = train()
    train_acc, val_acc, tmp_test_acc = test()
    if val_acc > best_val_acc:
        best_val_acc = val_acc
        test_acc = tmp_test_acc
    # ADD print("weight", model.conv2.lin.weight.norm())
    print(
        f"Epoch: {epoch:03d}, Loss: {loss:.4f}, Train: {train_acc:.4f}, Val: {val_acc:.4f}, Test: {test_acc:.4f}"
    )
