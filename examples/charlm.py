"""A character-level transformer on the source text of Python's standard library, recorded by florlog.

    python examples/charlm.py              train; every step goes to the log
    florlog resume examples/charlm.py      continue after a crash, under the same run
    florlog replay examples/charlm.py      the values of log statements that were added

Batches are windows at random offsets drawn from torch's generator, and the sampled text of each epoch
draws from it too, so a run is reproducible only if that generator is restored with the weights.
"""

import argparse
import hashlib
import json
import math
import os
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

import florlog

MODULES = ["argparse.py", "ast.py", "bdb.py", "calendar.py", "cmd.py", "csv.py", "dis.py", "enum.py"]


class Block(nn.Module):
    """Pre-norm causal self-attention and a two-layer perceptron."""

    def __init__(self, width, heads, dropout):
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width), nn.Dropout(dropout)
        )

    def forward(self, x):
        batch, length, width = x.shape
        heads = (batch, length, self.heads, width // self.heads)
        q, k, v = (part.view(heads).transpose(1, 2) for part in self.qkv(self.norm1(x)).chunk(3, dim=-1))
        dropout = self.dropout if self.training else 0.0
        attended = F.scaled_dot_product_attention(q, k, v, dropout_p=dropout, is_causal=True)
        x = x + self.proj(attended.transpose(1, 2).reshape(batch, length, width))
        return x + self.mlp(self.norm2(x))


class CharLM(nn.Module):
    def __init__(self, vocabulary, context, width, depth, heads, dropout):
        super().__init__()
        self.context = context
        self.token, self.position = nn.Embedding(vocabulary, width), nn.Embedding(context, width)
        self.blocks = nn.Sequential(*(Block(width, heads, dropout) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, vocabulary, bias=False)

    def forward(self, tokens):
        x = self.token(tokens) + self.position(torch.arange(tokens.shape[1]))
        return self.head(self.norm(self.blocks(x)))

    @torch.no_grad()
    def generate(self, tokens, length):
        """Continue `tokens` by `length` sampled ones."""
        self.eval()
        for _ in range(length):
            logits = self(tokens[:, -self.context :])[:, -1]
            tokens = torch.cat([tokens, torch.multinomial(logits.softmax(dim=-1), 1)], dim=1)
        return tokens


def load_text():
    library = Path(os.__file__).parent
    return "".join((library / module).read_text(encoding="utf-8") for module in MODULES)


def random_batch(data, batch_size, context):
    """Windows at random offsets, and the same windows one character on."""
    offsets = torch.randint(len(data) - context - 1, (batch_size,))
    windows = torch.stack([data[i : i + context + 1] for i in offsets])
    return windows[:, :-1], windows[:, 1:]


def loss_of(model, x, y):
    return F.cross_entropy(model(x).flatten(0, 1), y.flatten())


@torch.no_grad()
def evaluate(model, data, batch_size):
    """Mean loss over the first windows of the held-out text, always the same ones."""
    model.eval()
    windows = data[: 4 * batch_size * model.context + 1]
    x, y = windows[:-1].view(-1, model.context), windows[1:].view(-1, model.context)
    losses = [loss_of(model, *pair) for pair in zip(x.split(batch_size), y.split(batch_size), strict=True)]
    return torch.stack(losses).mean().item()


def warmup_cosine(warmup, total):
    """The factor on the learning rate: linear up over `warmup` steps, then half a cosine down to zero."""

    def factor(step):
        if step < warmup:
            return (step + 1) / warmup
        return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))

    return factor


def digest(model):
    """SHA-256 of every parameter: two runs agree bit for bit exactly if these agree."""
    sha = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        sha.update(name.encode() + tensor.numpy().tobytes())
    return sha.hexdigest()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--steps", type=int, default=60, help="optimizer steps in an epoch")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--context", type=int, default=64)
    parser.add_argument("--width", type=int, default=96)
    parser.add_argument("--depth", type=int, default=3)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="write a digest of the final parameters here, as JSON")
    args = parser.parse_args()

    torch.manual_seed(args.seed)
    text = load_text()
    characters = sorted(set(text))
    code = {character: i for i, character in enumerate(characters)}
    data = torch.tensor([code[character] for character in text])
    train, val = data[: len(data) * 9 // 10], data[len(data) * 9 // 10 :]

    model = CharLM(len(characters), args.context, args.width, args.depth, args.heads, args.dropout)
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.lr, weight_decay=0.1)
    total = args.epochs * args.steps
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, warmup_cosine(total // 10 + 1, total))

    params = {key: value for key, value in vars(args).items() if key != "out"}
    with florlog.run("charlm", params=params) as run:
        run.track(model=model, optimizer=optimizer, scheduler=scheduler)
        for epoch in run.loop("epoch", range(args.epochs)):
            model.train()
            for _ in run.loop("step", range(args.steps)):
                x, y = random_batch(train, args.batch_size, args.context)
                loss = loss_of(model, x, y)
                optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                run.log(loss=loss, lr=scheduler.get_last_lr()[0])
                scheduler.step()
            val_loss = evaluate(model, val, args.batch_size)
            prompt = torch.tensor([[code[character] for character in "def "]])
            sample = "".join(characters[i] for i in model.generate(prompt, 80)[0])
            run.log(val_loss=val_loss, sample=sample)
            print(f"epoch {epoch}  validation loss {val_loss:.4f}  {sample!r}", flush=True)

        # Still inside the run: a resume does not run code after it if the kill came just there.
        if args.out:
            args.out.write_text(json.dumps({"parameters": digest(model)}) + "\n")


if __name__ == "__main__":
    main()
