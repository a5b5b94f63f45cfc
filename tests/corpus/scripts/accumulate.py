import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(8)
data = TensorDataset(torch.randn(120, 5), torch.randn(120, 1))
train_loader = DataLoader(data, batch_size=10, shuffle=True, generator=torch.Generator().manual_seed(1))
val_loader = DataLoader(data, batch_size=40)
model = nn.Sequential(nn.Linear(5, 8), nn.Dropout(0.1), nn.Linear(8, 1))
optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0)
for epoch in range(4):
    model.train()
    for i, (x, y) in enumerate(train_loader):
        loss = nn.functional.mse_loss(model(x), y) / 2
        loss.backward()
        # ADD print("grad", model[0].weight.grad.norm())
        if (i + 1) % 2 == 0:
            optimizer.step()
            optimizer.zero_grad()
    model.eval()
    total = 0.0
    with torch.no_grad():
        for x, y in val_loader:
            total += nn.functional.mse_loss(model(x), y).item()
            # ADD print("partial", total)
    scheduler.step(total)
    print(f"epoch {epoch} validation {total:.5f}")
    # ADD print("lr", optimizer.param_groups[0]["lr"])
