"""Programs that open several runs: what their generator draws, and what is known of each."""

from __future__ import annotations

import random
from dataclasses import dataclass
from textwrap import indent

_HEAD = """
import os
import signal

import torch
from torch import nn

import florlog

torch.manual_seed({seed})
RESULTS, MODELS = [], {{}}
X = torch.randn(48, 4)
Y = X.sum(1, keepdim=True)


def tick(number, place):
    with open("executed", "a") as file:
        file.write(f"{{number}}\\n")
    if os.path.exists("kill") and open("kill").read() == f"{{number}} {{place}}":
        os.remove("kill")
        os.kill(os.getpid(), signal.SIGKILL)


def network(width):
    return nn.Sequential(nn.Linear(4, width), nn.Dropout(0.2), nn.ReLU(), nn.Linear(width, 1))
"""
_TRAINING = """
optimizer = torch.optim.{optimizer}
with florlog.run({name}, {options}) as run:
    run.track(model=model, optimizer=optimizer)
    for epoch in run.loop("epoch", range({epochs})):
        order = torch.randperm(len(X))
        for step in run.loop("step", range({steps})):
            x, y = X[order[step::6]], Y[order[step::6]]
            loss = (model(x) - y).pow(2).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            # STEP
            run.log(loss=loss.item())
            tick(number, epoch * {steps} + step)
        {leaving}
        size = sum(p.pow(2).sum() for p in model.parameters()).item()
        run.log(size=size)
    # AFTER
    run.log(last=loss.item())
RESULTS.append((number, loss.item(), size))
"""
_SEQUENCE = """
number = {number}
{training}"""
_NESTED = """
for number in range({runs}):
    model = network({width})
"""
_IN_FUNCTION = """
def train(number, width):
    model = network(width)
{training}
    return model

for number in range({runs}):
    MODELS[number] = train(number, {width})
    if RESULTS[-1][1] > 1e6:
        break
"""
_TUNING = """
def train(number, model):
{training}

model = network({fixed})
for number in range({runs}):
    train(number, model)
    if number == 0:
        model[3] = nn.Linear({fixed}, 1)
"""
_TAIL = """
SUMS = [sum(p.sum().item() for p in MODELS[key].parameters()) for key in sorted(MODELS)]
print("RESULTS", RESULTS, SUMS, torch.rand(2).tolist())
"""


@dataclass(frozen=True)
class ProgramOfRuns:
    """A script that opens runs; ``ticks`` are innermost iterations."""

    text: str
    runs: int
    ticks: int  # at least, of each run
    first: int  # of the first run
    dense: bool  # an image at every boundary
    images: bool  # any
    shape: str

    def asking(self, place: str, statement: str) -> str:
        """The text with a statement added at a place, STEP or AFTER."""
        lines = [
            line.replace(f"# {place}", statement) if line.strip() == f"# {place}" else line
            for line in self.text.split("\n")
        ]
        return "\n".join(lines)


def drawn(seed: int, *, resume: str = "never") -> ProgramOfRuns:
    """The program of a seed; ``resume`` as of `florlog.run`."""
    draw = random.Random(seed)
    runs, epochs, steps = draw.randint(2, 4), draw.randint(1, 3), draw.randint(1, 3)
    shape = draw.choice(["nested", "function", "tuning", "sequence"])
    density = draw.choice(["inf", "inf", "0", "0.02"])
    width = draw.choice(["6", "4 + 2 * number", "[3, 5][number % 2]"])
    options = [f'overhead=float("{density}")', f"resume={resume!r}"]
    if draw.random() < 0.5:
        options.append('params={"fold": number}')
    training = _TRAINING.format(
        optimizer=draw.choice(
            [
                "Adam(model.parameters(), lr=0.01)",
                "SGD(model.parameters(), lr=0.01, momentum=0.9)",
            ]
        ),
        name=draw.choice(['"fold"', 'f"fold{number}"', '"first" if number == 0 else "later"']),
        options=", ".join(options),
        leaving=draw.choice(["", "", "if number % 2 and epoch == 1: break"]),
        epochs=epochs,
        steps=steps,
    )
    body = {
        "nested": _NESTED.format(runs=runs, width=width) + indent(training, "    "),
        "function": _IN_FUNCTION.format(runs=runs, width=width, training=indent(training, "    ")),
        "tuning": _TUNING.format(runs=runs, fixed=6, training=indent(training, "    ")),
        "sequence": "model = network(6)\n"
        + "".join(_SEQUENCE.format(number=number, training=training) for number in range(runs)),
    }[shape]
    text = _HEAD.format(seed=seed) + body + _TAIL
    return ProgramOfRuns(
        text,
        runs,
        min(epochs, 2) * steps,
        epochs * steps,
        density == "inf",
        density != "0",
        f"{shape} {density} {width}",
    )
