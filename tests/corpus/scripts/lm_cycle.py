import itertools
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset


class TokenDataset(Dataset):
    def __init__(self, path, block):
        self.tokens = np.memmap(path, dtype=np.uint16, mode="r")
        self.block = block

    def __len__(self):
        return (len(self.tokens) - 1) // self.block

    def __getitem__(self, i):
        chunk = torch.from_numpy(self.tokens[i * self.block : (i + 1) * self.block + 1].astype(np.int64))
        return chunk[:-1], chunk[1:]


class LM(nn.Module):
    def __init__(self, vocab=32, dim=16):
        super().__init__()
        self.embed = nn.Embedding(vocab, dim)
        self.rnn = nn.LSTM(dim, dim, batch_first=True)
        self.head = nn.Linear(dim, vocab, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, x):
        return self.head(self.rnn(self.embed(x))[0])


def get_lr(step, max_steps, lr=1e-2, warmup=4):
    return lr * min((step + 1) / warmup, 1 - step / (max_steps + 1))


def main(max_steps=28, grad_accum=2):
    path = Path(tempfile.gettempdir()) / "florlog-corpus-tokens.bin"
    if not path.exists():
        np.random.default_rng(0).zipf(1.5, 700).clip(max=31).astype(np.uint16).tofile(path)
    torch.manual_seed(1337)
    loader = DataLoader(TokenDataset(path, 12), batch_size=4, shuffle=True, drop_last=True)
    model = LM()
    optimizer = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.95), weight_decay=0.1)
    train_iter = iter(itertools.cycle(loader))
    step, tokens_seen = 0, 0
    while step < max_steps:
        for group in optimizer.param_groups:
            group["lr"] = get_lr(step, max_steps)
        loss_accum = 0.0
        for micro_step in range(grad_accum):
            x, y = next(train_iter)
            loss = nn.functional.cross_entropy(model(x).flatten(0, 1), y.flatten()) / grad_accum
            loss.backward()
            loss_accum += loss.detach()
            tokens_seen += x.numel()
            # ADD print("micro_loss", loss.item(), "first", x[0, 0])
        norm = nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        # ADD print("norm", norm.item())
        step += 1
        print(f"step {step:4d} | loss {loss_accum.item():.6f} | tokens {tokens_seen}")


if __name__ == "__main__":
    main()
