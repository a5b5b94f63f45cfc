import math

import torch
from torch import nn
from torch.optim import AdamW
from torch.utils.data import DataLoader, TensorDataset


class LoRALinear(nn.Module):
    def __init__(self, base, r=2, alpha=4, dropout=0.05):
        super().__init__()
        self.base = base
        self.scaling = alpha / r
        self.dropout = nn.Dropout(dropout)
        self.lora_A = nn.Parameter(torch.empty(r, base.in_features))
        self.lora_B = nn.Parameter(torch.zeros(base.out_features, r))
        nn.init.kaiming_uniform_(self.lora_A, a=math.sqrt(5))

    def forward(self, x):
        return self.base(x) + self.dropout(x) @ self.lora_A.T @ self.lora_B.T * self.scaling


class Block(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(dim, dim) for _ in range(3))
        self.out = nn.Linear(dim, dim)

    def forward(self, x):
        h = self.norm(x)
        h = nn.functional.scaled_dot_product_attention(self.q_proj(h), self.k_proj(h), self.v_proj(h))
        return x + self.out(h)


class Classifier(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(30, 16)
        self.blocks = nn.ModuleList([Block(16), Block(16)])
        self.head = nn.Linear(16, 2)

    def forward(self, ids):
        x = self.embed(ids)
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean(1))


def inject(model, names=("q_proj", "v_proj")):
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if name in names and isinstance(child, nn.Linear):
                setattr(module, name, LoRALinear(child))


def lora_state_dict(model):
    return {k: v.clone() for k, v in model.state_dict().items() if "lora_" in k or k.startswith("head")}


torch.manual_seed(0)
ids = torch.randint(0, 30, (80, 6))
labels = (ids.float().mean(1) > 14.5).long()
train_loader = DataLoader(TensorDataset(ids, labels), batch_size=16, shuffle=True)

model = Classifier()
for p in model.parameters():
    p.requires_grad = False
inject(model)
model.head.requires_grad_(True)
trainable = [p for p in model.parameters() if p.requires_grad]
print(
    f"trainable params: {sum(p.numel() for p in trainable)} || all: {sum(p.numel() for p in model.parameters())}"
)
optimizer = AdamW(
    [
        {"params": [p for n, p in model.named_parameters() if "lora_" in n], "weight_decay": 0.0},
        {"params": model.head.parameters(), "lr": 1e-2},
    ],
    lr=5e-3,
)
best, adapters = 0.0, None
for epoch in range(5):
    model.train()
    for batch, target in train_loader:
        logits = model(batch)
        loss = nn.functional.cross_entropy(logits, target)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trainable, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        # ADD print("B", model.blocks[0].q_proj.lora_B.norm(), "loss_now", loss)
    model.eval()
    with torch.no_grad():
        accuracy = (model(ids).argmax(1) == labels).float().mean().item()
    if accuracy >= best:
        best, adapters = accuracy, lora_state_dict(model)
    # ADD print("kept", sum(v.norm() for v in adapters.values()))
    print(f"epoch {epoch} train_loss {loss.item():.4f} accuracy {accuracy:.4f}")
