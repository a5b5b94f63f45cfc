import itertools
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import nn


def shards():
    folder = Path(tempfile.gettempdir()) / "florlog-corpus-shards"
    folder.mkdir(exist_ok=True)
    for k in range(2):
        path = folder / f"shard{k}.npy"
        if not path.exists():
            np.save(path, np.random.default_rng(k).integers(0, 20, 97))
        yield str(path)


def stream(paths, block):
    for path in itertools.cycle(paths):
        data = np.load(path, mmap_mode="r")
        for start in range(0, len(data) - block, block):
            chunk = torch.from_numpy(np.array(data[start : start + block + 1]))
            yield chunk[:-1], chunk[1:]


def batched(items, n):
    while True:
        x, y = zip(*itertools.islice(items, n))
        yield torch.stack(x), torch.stack(y)


class LM(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(20, 16)
        self.out = nn.Linear(16, 20)

    def forward(self, x):
        return self.out(self.embed(x))


def train(total_steps):
    torch.manual_seed(0)
    model = LM()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    batches = batched(stream(list(shards()), 8), 4)
    step, tokens, best = 0, 0, None
    while True:
        total = 0.0
        for _ in range(2):
            x, y = next(batches)
            loss = nn.functional.cross_entropy(model(x).flatten(0, 1), y.flatten()) / 2
            loss.backward()
            total += loss.item()
            # ADD print("x", x.sum())
            tokens += x.numel()
        norm = nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        # ADD print("norm", norm)
        optimizer.step()
        optimizer.zero_grad()
        if best is None or total < best["loss"]:
            best = {"loss": total, "model": {k: v.clone() for k, v in model.state_dict().items()}}
        step += 1
        # ADD print("first", x[0, 0])
        print(f"step {step} | tokens {tokens} | loss {total:.6f}")
        if step >= total_steps:
            break


train(24)
