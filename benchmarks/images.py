"""How many images a training of 13 million parameters gets at the default overhead.

    python benchmarks/images.py                            60 s of training, one round
    python benchmarks/images.py --before CHECKOUT          and the same with another version of florlog, in turns
    python benchmarks/images.py --seconds 120 --rounds 3

Each training is a process of its own: an MLP with Adam, one thread, epochs of 25 steps, a state of 209 MB with its
gradients.  An image is one of which the log says that it is complete.  Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

SCRIPT = """
import sys, time
import torch
from torch import nn
import florlog

torch.manual_seed(0)
torch.set_num_threads(1)
sizes = (784, 2400, 2400, 2000, 300, 10)
layers = [part for a, b in zip(sizes, sizes[1:]) for part in (nn.Linear(a, b), nn.ReLU())]
model = nn.Sequential(*layers[:-1])
optimizer = torch.optim.Adam(model.parameters())
x, y = torch.randn(4096, 784), torch.randint(10, (4096,))
ends_at = time.perf_counter() + float(sys.argv[2])
steps = 0
with florlog.run("images", store=sys.argv[1]) as run:
    run.track(model=model, optimizer=optimizer)
    for epoch in run.loop("epoch", range(1_000_000)):
        for step in run.loop("step", range(25)):
            batch = torch.randint(len(x), (64,))
            loss = nn.functional.cross_entropy(model(x[batch]), y[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            run.log(loss=loss.item())
            steps += 1
        if time.perf_counter() > ends_at:
            break
from florlog_wal import CheckpointEnd
with florlog.open(sys.argv[1]) as log:
    images = sum(isinstance(entry.record, CheckpointEnd) for entry in log.records())
print("FOUND", images, steps, epoch + 1, sum(p.numel() for p in model.parameters()))
"""


def train(seconds: float, version: Path | None) -> tuple[int, int, int, int]:
    """Images, steps, epochs and parameters of one training, with the florlog of a checkout or the installed one."""
    environment = {key: text for key, text in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    if version is not None:
        folders = [version, version / "wal", version / "recovery"]
        environment["PYTHONPATH"] = os.pathsep.join(map(str, folders))
    with tempfile.TemporaryDirectory(prefix="florlog-bench-") as folder:
        script = Path(folder) / "train.py"
        script.write_text(SCRIPT)
        command = [sys.executable, str(script), str(Path(folder) / "store"), str(seconds)]
        done = subprocess.run(
            command, env=environment, cwd=folder, capture_output=True, text=True, check=False
        )
    line = next((line for line in done.stdout.splitlines() if line.startswith("FOUND")), None)
    if line is None:
        raise SystemExit(done.stdout + done.stderr)
    images, steps, epochs, parameters = map(int, line.split()[1:])
    return images, steps, epochs, parameters


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--before", type=Path, help="a checkout of another version")
    options = parser.parse_args()
    ways = {"florlog": None} | ({} if options.before is None else {"before": options.before.resolve()})
    found: dict[str, list[tuple[int, int, int, int]]] = {way: [] for way in ways}
    for _ in range(options.rounds):
        for way, version in ways.items():
            found[way].append(train(options.seconds, version))
    print(f"\nload {os.getloadavg()[0]:.1f} at the end, {options.seconds:g} s each\n")
    print("| way | images | epochs | ms per step | parameters |\n|---|---|---|---|---|")
    for way, runs in found.items():
        images = ", ".join(str(run[0]) for run in runs)
        step = statistics.median(1e3 * options.seconds / run[1] for run in runs)
        print(f"| {way} | {images} | {runs[0][2]} | {step:.0f} | {runs[0][3]:,} |")


if __name__ == "__main__":
    main()
