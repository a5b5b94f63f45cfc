"""bfloat16 autocast on the CPU in one flat loop over steps; a checkpointed best loss, rows drawn at random."""

import time

import torch
from sklearn.datasets import load_digits
from torch import nn

import florlog


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Linear(8, 16)
        self.mix = nn.MultiheadAttention(16, 2, dropout=0.1, batch_first=True)
        self.out = nn.Linear(16, 10)

    def forward(self, x):
        h = self.embed(x)
        attended, weights = self.mix(h, h, h)
        # ADD florlog.log(kind=str(attended.dtype), peak=weights.float().max())
        return self.out((h + attended).mean(1))


def main():
    torch.manual_seed(11)
    data, labels = load_digits(return_X_y=True)
    x, y = torch.tensor(data[:400], dtype=torch.float32).reshape(-1, 8, 8) / 16, torch.tensor(labels[:400])
    model = Attention()
    half = nn.Linear(10, 10).to(torch.bfloat16)
    parameters = [*model.parameters(), *half.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=0.01, foreach=False)
    scaler = torch.amp.GradScaler("cpu", init_scale=256.0, growth_interval=10)
    best, since = None, 0
    with florlog.run("amp", overhead=float("inf")) as run:
        run.track(model=model, half=half, optimizer=optimizer, scaler=scaler)
        for step in run.loop("step", range(50)):
            rows = torch.randint(0, len(x), (32,))
            # ADD run.log(rows=rows[:4])
            with torch.autocast("cpu", dtype=torch.bfloat16):
                scores = half(model(x[rows]).to(torch.bfloat16))
                loss = nn.functional.cross_entropy(scores.float(), y[rows])
            optimizer.zero_grad()
            scaler.scale(loss).backward()
            # ADD run.log(scaled=model.out.weight.grad.norm(), scale=scaler.get_scale())
            scaler.step(optimizer)
            scaler.update()
            if best is None or loss.item() < best:
                best, since = loss.item(), 0
            else:
                since += 1
            run.log(loss=loss)
            # ADD run.log(half_norm=half.weight.norm(), since_=since)
            if step % 10 == 9:
                run.log(best=best)
                # ADD run.log(moment=optimizer.state[half.weight]["exp_avg"].float().norm())
            time.sleep(0.003)
        run.log(weights=model.out.weight, half=half.weight)
        # ADD run.log(final_best=best, final_scale=scaler.get_scale())


main()
