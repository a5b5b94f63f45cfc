import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def main():
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2)
    set_seed(11)
    x = torch.randn(128, 8)
    y = (x[:, 0] > x[:, 1]).long()
    train_loader = DataLoader(TensorDataset(x[:96], y[:96]), batch_size=8, shuffle=True)
    eval_loader = DataLoader(TensorDataset(x[96:], y[96:]), batch_size=16)
    model = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Dropout(0.1), nn.Linear(16, 2))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.02)
    scheduler = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.1, total_iters=30)
    model, optimizer, train_loader, eval_loader, scheduler = accelerator.prepare(
        model, optimizer, train_loader, eval_loader, scheduler
    )
    completed_steps = 0
    for epoch in range(4):
        model.train()
        total_loss = 0
        for step, (inputs, targets) in enumerate(train_loader):
            with accelerator.accumulate(model):
                loss = nn.functional.cross_entropy(model(inputs), targets)
                total_loss += loss.detach().float()
                accelerator.backward(loss)
                if accelerator.sync_gradients:
                    accelerator.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                scheduler.step()
                optimizer.zero_grad()
            if accelerator.sync_gradients:
                completed_steps += 1
            # ADD print("batch_loss", loss.item(), "completed", completed_steps)
        model.eval()
        correct = 0
        for inputs, targets in eval_loader:
            with torch.no_grad():
                predictions = model(inputs).argmax(dim=-1)
            predictions, references = accelerator.gather_for_metrics((predictions, targets))
            correct += (predictions == references).sum().item()
        # ADD print("lr", scheduler.get_last_lr()[0])
        accelerator.print(
            f"epoch {epoch}: accuracy {correct / 32:.3f} loss {total_loss.item() / len(train_loader):.4f}"
        )


if __name__ == "__main__":
    main()
