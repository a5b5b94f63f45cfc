"""What recording adds to a long training: recorded and plain epochs take turns within one process.

    python benchmarks/steady.py                     all workloads, 60 s each
    python benchmarks/steady.py mlp --seconds 120

Two processes that train the same differ by several percent, because their memory is at other addresses and the speed
of a shared machine drifts (`overhead.py` compares processes).  Here both ways use the same model, loader and memory:
epochs are recorded or plain in random order, and each recorded epoch is compared with the plain ones before and after
it.  What florlog does between epochs counts as recorded time.  During a plain epoch the clock of florlog's policy
stands still, so that images are as frequent as in a training that is recorded throughout.  An epoch that begins while
an image is being persisted is a recorded one, so that the slowdown is charged where it belongs.  *Overhead* is the sum
of all recorded time divided by the time of the neighbouring plain epochs, with the quartiles of single epochs and the
interval that contains 90 % of resampled sums.  *Images* is the part of it that is their stalls.  What is paid once
(import, opening, the first image, the end) is given in seconds.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import tempfile
import time
import warnings
from pathlib import Path

import torch
from _workloads import TITLES, WORKLOADS


def measure(workload: str, seconds: float, folder: Path) -> str:
    torch.manual_seed(0)
    task = WORKLOADS[workload](1)
    for batch in task.loader:  # imports what torch imports late, and makes the optimizer's state
        task.step(batch)
        break
    began = time.perf_counter()
    import florlog

    order = random.Random(0)
    epochs: list[tuple[bool, float]] = []  # whether recorded, and the seconds
    between: list[float] = []
    queue: list[bool] = []
    with florlog.run("steady", store=folder) as run:
        states = run._states
        run.track(model=task.model, optimizer=task.optimizer)
        once = time.perf_counter() - began
        ends_at = time.perf_counter() + seconds
        before = time.perf_counter()
        for epoch in run.loop("epoch", range(1_000_000)):
            gap = time.perf_counter() - before
            if epoch == 0:
                once += gap  # the first image
            else:
                between.append(gap)
            if not queue:
                queue = order.sample([True, False], 2)
            recorded = True if states._imager.pending else queue.pop(0)
            started = time.perf_counter()
            if recorded:
                for batch in run.loop("step", task.loader):
                    run.log(loss=task.step(batch).item())
            else:
                for batch in task.loader:
                    task.step(batch).item()
            took = time.perf_counter() - started
            if epoch:
                epochs.append((recorded, took))
            if not recorded:
                states._started += took
            if time.perf_counter() > ends_at:
                break
            before = time.perf_counter()
        ended = time.perf_counter()
    once += time.perf_counter() - ended
    from florlog_wal import CheckpointEnd

    with florlog.open(folder) as log:
        images = [e.record for e in log.records() if isinstance(e.record, CheckpointEnd)]
    plain = [took for recorded, took in epochs if not recorded]
    # The gaps behind plain epochs are as many again as a training would have.
    behind = statistics.fmean(between) if between else 0.0
    pairs = []
    for place, (recorded, took) in enumerate(epochs):
        sides = [next((t for r, t in side if not r), None) for side in (epochs[place::-1], epochs[place:])]
        near = [t for t in sides if t is not None]
        if recorded and near:
            pairs.append((took + behind, statistics.fmean(near)))
    overhead = sum(took for took, _ in pairs) / sum(beside for _, beside in pairs) - 1
    ratios = statistics.quantiles([took / beside - 1 for took, beside in pairs], n=4)
    sums = []
    for _ in range(2000):
        some = order.choices(pairs, k=len(pairs))
        sums.append(sum(took for took, _ in some) / sum(beside for _, beside in some) - 1)
    interval = statistics.quantiles(sums, n=20)
    stalled = sum(end.snapshot_seconds for end in images[1:]) / sum(took for took, _ in pairs)
    steps = len(task.loader)
    cells = (
        TITLES[workload], f"{1e3 * statistics.median(plain) / steps:.2f} ms", f"{len(pairs)} of {steps} steps",
        f"{overhead:+.2%} ({interval[0]:+.2%} .. {interval[-1]:+.2%})",
        f"{ratios[1]:+.2%} ({ratios[0]:+.2%} .. {ratios[2]:+.2%})",
        f"{stalled:.2%}", f"{len(images)}", f"{once:.2f} s",
    )  # fmt: skip
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("workloads", nargs="*", choices=[*WORKLOADS, []], help="default: all")
    parser.add_argument("--seconds", type=float, default=60.0, help="of each, about")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    print(
        f"torch {torch.__version__}, threads: {args.threads}, cores: {os.cpu_count()}, load: {os.getloadavg()[0]:.1f}"
    )
    print(
        "\n| workload | step | epochs | overhead (90 %) | median epoch (quartiles) | images | number | once |"
    )
    print("|---" * 8 + "|")
    for workload in args.workloads or WORKLOADS:
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            print(measure(workload, args.seconds, Path(folder)), flush=True)


if __name__ == "__main__":
    main()
