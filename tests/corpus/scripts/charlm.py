import this

import torch
from torch import nn

text = "".join(this.d.get(c, c) for c in this.s)
letters = sorted(set(text))
codes = torch.tensor([letters.index(c) for c in text])


class Model(nn.Module):
    def __init__(self, size):
        super().__init__()
        self.embed = nn.Embedding(len(letters), size)
        self.rnn = nn.GRU(size, size, batch_first=True)
        self.head = nn.Linear(size, len(letters))

    def forward(self, x, hidden=None):
        out, hidden = self.rnn(self.embed(x), hidden)
        return self.head(out), hidden


def main():
    torch.manual_seed(0)
    model = Model(16)
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    for epoch in range(3):
        hidden = None
        for i in range(0, 400, 50):
            x, y = codes[i : i + 50][None], codes[i + 1 : i + 51][None]
            out, hidden = model(x, hidden)
            hidden = hidden.detach()
            loss = nn.functional.cross_entropy(out[0], y[0])
            optimizer.zero_grad()
            loss.backward()
            # ADD print("clip", nn.utils.clip_grad_norm_(model.parameters(), 1e9))
            optimizer.step()
        # ADD print("hidden", hidden.norm())
        print("epoch", epoch, "loss", loss.item())


main()
