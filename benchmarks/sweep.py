"""What recording adds to a sweep: many processes at once on few cores, all recorded into one store or none.

    python benchmarks/sweep.py                        8 processes, 4 rounds of each way, in turns
    python benchmarks/sweep.py --processes 4 --epochs 20

Every process trains the MLP of `steady.py` with one thread.  All of a round wait for each other before the first step,
so neither import nor set-up is in the figures; opening the run, its end and its images are.  *Wall* is from the first
step to the end of the last process, *CPU* that of all processes.  Every recorded run is read back: it must be complete,
with the losses of the process alone.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CHILD = """
import json, sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import torch
from _workloads import WORKLOADS

torch.set_num_threads(1)
bytes(31 << 20)  # both ways train with the same threshold of malloc
epochs, seed, recorded, folder = int(sys.argv[2]), int(sys.argv[3]), sys.argv[4] == "recorded", Path(sys.argv[5])
torch.manual_seed(seed)
task = WORKLOADS["mlp"](epochs)
if recorded:
    import florlog
    import florlog.recording.session
(folder / f"ready{seed}").touch()
while not (folder / "go").exists():
    time.sleep(0.001)
cpu = time.process_time()
losses = []
if recorded:
    with florlog.run("sweep", store=folder / "store", params={"seed": seed}, audit=False) as run:
        run.track(model=task.model, optimizer=task.optimizer)
        for epoch in run.loop("epoch", range(epochs)):
            for batch in run.loop("step", task.loader):
                run.log(loss=task.step(batch).item())
else:
    for epoch in range(epochs):
        for batch in task.loader:
            losses.append(task.step(batch).item())
print(json.dumps({"cpu": time.process_time() - cpu, "losses": losses}))
"""


def together(way: str, processes: int, epochs: int) -> tuple[float, float, dict[int, list[float]]]:
    """Wall and CPU seconds of a round, and the losses of each seed."""
    with tempfile.TemporaryDirectory() as held:
        folder = Path(held)
        words = [sys.executable, "-c", CHILD, str(Path(__file__).parent), str(epochs)]
        children = [
            subprocess.Popen([*words, str(seed), way, held], stdout=subprocess.PIPE, text=True)
            for seed in range(processes)
        ]
        while len(list(folder.glob("ready*"))) < processes:
            time.sleep(0.01)
        began = time.perf_counter()
        (folder / "go").touch()
        said = [json.loads(child.communicate()[0]) for child in children]
        wall = time.perf_counter() - began
        assert all(child.returncode == 0 for child in children)
        losses = {seed: found["losses"] for seed, found in enumerate(said)}
        if way == "recorded":
            losses = _read(folder / "store")
        return wall, sum(found["cpu"] for found in said), losses


def _read(store: Path) -> dict[int, list[float]]:
    import florlog

    with florlog.open(store) as log:
        assert all(run.summary()["status"] == "complete" for run in log.runs)
        return {run.params["seed"]: run.values("loss")["loss"].tolist() for run in log.runs}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--processes", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=30, help="of 57 steps")
    parser.add_argument("--rounds", type=int, default=4)
    options = parser.parse_args()
    order = random.Random(0)
    found: dict[str, list[tuple[float, float]]] = {"plain": [], "recorded": []}
    expected: dict[int, list[float]] = {}
    for _ in range(options.rounds):
        for way in order.sample(["plain", "recorded"], 2):
            wall, cpu, losses = together(way, options.processes, options.epochs)
            expected = expected or losses
            assert losses == expected, "a run has other losses"
            found[way].append((wall, cpu))
            print(f"{way:<9} wall {wall:6.2f} s  CPU {cpu:6.2f} s", flush=True)
    for number, name in enumerate(("wall", "CPU")):
        plain, recorded = (
            statistics.median(pair[number] for pair in found[way]) for way in ("plain", "recorded")
        )
        print(f"{options.processes} processes, {name}: {100 * (recorded / plain - 1):+.1f} %")


if __name__ == "__main__":
    main()
