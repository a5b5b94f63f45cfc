"""A character model on a text of the standard library: while-loops in a for-loop, and a global counter."""

import bisect
import time
from pathlib import Path

import torch
from torch import nn

import florlog

TOKENS = 0
RATES = []


class CharModel(nn.Module):
    def __init__(self, vocabulary):
        super().__init__()
        self.embed = nn.Embedding(vocabulary, 16)
        self.gru = nn.GRU(16, 32, batch_first=True)
        self.head = nn.Linear(32, vocabulary)

    def forward(self, x, hidden):
        out, hidden = self.gru(self.embed(x), hidden)
        # ADD florlog.log(act=out.abs().mean())
        return self.head(out), hidden


def count(batch):
    global TOKENS
    TOKENS += batch.numel()
    RATES.append(float(batch.float().mean()))
    # ADD florlog.log(tokens=TOKENS)


def main():
    torch.manual_seed(7)
    text = Path(bisect.__file__).read_text()
    alphabet = sorted(set(text))
    codes = torch.tensor([alphabet.index(c) for c in text[:1800]]).reshape(4, 450)
    model = CharModel(len(alphabet))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    with florlog.run("charlm", overhead=float("inf")) as run:
        run.track(model=model, optimizer=optimizer)
        for epoch in run.loop("epoch", range(2)):
            position, chunk, hidden = int(torch.randint(0, 20, ())), 0, None
            # ADD run.log(offset=position, ep=epoch)
            while position + 26 < codes.shape[1] - 150:
                with run.iteration("chunk", chunk):
                    x, y = codes[:, position : position + 25], codes[:, position + 1 : position + 26]
                    scores, hidden = model(x, hidden)
                    hidden = hidden.detach()
                    loss = nn.functional.cross_entropy(scores.flatten(0, 1), y.flatten())
                    optimizer.zero_grad()
                    loss.backward()
                    # ADD run.log(head_grad=model.head.weight.grad.norm())
                    optimizer.step()
                    count(x)
                    run.log(loss=loss)
                    time.sleep(0.003)
                position, chunk = position + 25, chunk + 1
                # ADD run.log(hidden=hidden[0, 0, :2], at=position)
            # ADD run.log(chunks=chunk, mean_rate=sum(RATES) / len(RATES))
            run.log(last=loss, tokens_=TOKENS)
        run.log(weights=model.head.weight, rates=len(RATES))
        # ADD run.log(memory=hidden.norm())


main()
