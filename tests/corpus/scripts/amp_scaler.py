import torch
from torch import nn
from torch.amp import GradScaler, autocast
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(21)
device = "cuda" if torch.cuda.is_available() and False else "cpu"
use_amp = True
X = torch.randn(112, 1, 10, 10)
Y = (X.mean((1, 2, 3)) > 0).long()
train_loader = DataLoader(TensorDataset(X[:80], Y[:80]), batch_size=16, shuffle=True, drop_last=True)
val_loader = DataLoader(TensorDataset(X[80:], Y[80:]), batch_size=16)
net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(256, 2)).to(
    device
)
opt = torch.optim.SGD(net.parameters(), lr=0.02, momentum=0.9, nesterov=True)
scaler = GradScaler(device, enabled=use_amp, init_scale=1024.0, growth_interval=7)
history = {"train_loss": [], "val_acc": []}
for epoch in range(5):
    net.train()
    epoch_loss = 0.0
    for input, target in train_loader:
        input, target = input.to(device, non_blocking=True), target.to(device, non_blocking=True)
        with autocast(device_type=device, dtype=torch.bfloat16, enabled=use_amp):
            output = net(input)
            assert output.dtype is torch.bfloat16
            loss = nn.functional.cross_entropy(output, target)
        scaler.scale(loss).backward()
        scaler.unscale_(opt)
        grad_norm = nn.utils.clip_grad_norm_(net.parameters(), max_norm=2.0)
        scaler.step(opt)
        scaler.update()
        opt.zero_grad(set_to_none=True)
        epoch_loss += loss.item()
        # ADD print("grad_norm", grad_norm, "scale", scaler.get_scale())
    net.eval()
    correct = total = 0
    with torch.no_grad(), autocast(device_type=device, dtype=torch.bfloat16):
        for input, target in val_loader:
            correct += (net(input).argmax(1) == target).sum().item()
            total += target.size(0)
            # ADD print("correct", correct)
    history["train_loss"].append(epoch_loss / len(train_loader))
    history["val_acc"].append(correct / total)
    # ADD print("best", max(history["val_acc"]))
    print(f"[{epoch + 1}/5] loss: {history['train_loss'][-1]:.4f} val_acc: {history['val_acc'][-1]:.4f}")
