"""What a log statement reads from outside through names, attributes, functions and conditions of the program."""

from __future__ import annotations

import pytest

from florlog.source.reach.regions import Location, ProgramAnalysis

PROGRAM = """
import datetime
import os
import random
import time
from pathlib import Path

import numpy as np
import torch

import florlog
import settings
import torchvision
import wandb
from settings import BOOTED

STARTED = time.time()
CONFIG = open("config.json").read()
LEVEL = os.environ.get("LEVEL")
SEEDED = np.random.default_rng(7)
UNSEEDED = np.random.default_rng()
RUN = time.strftime("run-%H%M%S")
LABEL = f"{STARTED}" + ".pt"
WORDS = {"red", "green"}
NUMBERS = {1, 2, 3}


class Named:
    def __init__(self, name):
        self.name = name
        self.net = torch.nn.Linear(1, 1)


class Timer:
    def __init__(self, began):
        self.began = began
        self.laps = []
        self.rounds = 0

    def lap(self):
        self.laps.append(time.perf_counter())
        self.rounds += 1


class Meter:
    def __init__(self):
        self.sum = 0.0
        self.ticks = time.perf_counter
        self.median = self.urandom = 0

    def update(self, value, n=1):
        self.sum += value * n
        self.mean = self.sum / n
        self.median = value


class Files:
    def __getitem__(self, index):
        return Path(str(index)).read_text()


def elapsed():
    return time.time() - STARTED


def double(value):
    return 2 * value


def stamp(table, when):
    table["when"] = when


def names_of(words):
    return [word for word in words]


def read_late():
    return open("late.txt").read()


def main(model, loader):
    timer = Timer(time.time())
    meter = Meter()
    seen, shelf = {}, []
    alias = shelf
    files = Files()
    named = Named(RUN)
    bought = torchvision.Network(f"{RUN}/net", width=3)
    tracked = wandb.init(name=RUN)
    stamp(seen, time.time())

    alias.append(time.time())
    with florlog.run("noise") as run:
        for epoch in run.loop("epoch", range(3)):
            begun = time.time()
            slow = late = False
            for x, y in run.loop("step", loader):
                loss = model(x).sum()
                loss.backward()
                if time.time() - begun > 3:
                    slow = True
                for word in WORDS:
                    last = word
                while time.time() < begun:
                    waited = 1
                for index in range(9):
                    if index > begun:
                        break
                    tries = index
                for text in files:
                    first = text
            parts = late, begun
            _, when = parts
            clock = time.time
            total = sum(x for x in NUMBERS)
            timer.lap()
            meter.update(time.time() - begun)
            print(f"{time.time() - begun} s")
            run.log(loss=loss, spent=time.time() - begun, ADDED)
"""
SETTINGS = """
import time
BOOTED = time.time()
SIZE = 3
"""

NOISY = {
    "STARTED": "the clock",
    "BOOTED": "the clock",
    "settings.BOOTED": "the clock",
    "elapsed()": "the clock",
    "double(begun)": "the clock",
    "clock()": "the clock",
    "max(begun, 3)": "the clock",
    "timer.began": "the clock",
    "timer.laps[0]": "the clock",
    "os.urandom(1)": "the system's random numbers",  # also where a field of that name holds a number
    "meter.sum": "the clock",
    "meter.mean": "the clock",
    "max(meter.sum, 1).conjugate()": "the clock",
    "meter.ticks()": "the clock",
    "meter.median.conjugate()": "the clock",
    "loss.median()": "the clock",  # the field may hold anything that `update` is given
    "seen['when']": "the clock",
    "shelf": "the clock",
    "slow": "the clock",
    "waited": "the clock",
    "tries": "the clock",
    "when": "the clock",
    "[n for n in range(3) if n < begun]": "the clock",
    "(lambda: STARTED)()": "the clock",
    "datetime.datetime.now().hour": "the clock",
    "model.one.elapsed_time(model.other)": "the clock",
    "RUN": "the clock",
    "LABEL": "the clock",
    "RUN.split('-')[1]": "the clock",
    "int(RUN[4:])": "the clock",
    "len(LABEL)": "the clock",
    "RUN.count('1')": "the clock",
    "os.path.join('out', RUN)": "the clock",
    "Path('out') / RUN": "the clock",
    "torch.zeros(len(LABEL))": "the clock",
    "torchvision.Network(width=len(LABEL))": "the clock",
    "torchvision.crc(LABEL)": "the clock",
    "torchvision.Network(width=loader.parse(LABEL))": "the clock",
    "torchvision.Network(width=torchvision.crc(LABEL))": "the clock",
    "torchvision.Network(width=int(RUN[4:]))": "the clock",
    "named.name": "the clock",
    "tracked.name": "the clock",
    "'%s' % STARTED": "the clock",
    "datetime.datetime.now().isoformat()": "the clock",
    "UNSEEDED.random()": "the system's random numbers",
    "random.Random().random()": "the system's random numbers",
    "read_late()": "files",
    "open('now.txt').read()": "files",
    "first": "files",
    "os.environ['HOME']": "the environment",
    "list(WORDS)": "hashes of text, or the order of a set",
    "names_of(WORDS)": "hashes of text, or the order of a set",
    "last": "hashes of text, or the order of a set",
    "', '.join(WORDS | {'blue'})": "hashes of text, or the order of a set",
    "WORDS.copy().pop()": "hashes of text, or the order of a set",
    "[*WORDS][0]": "hashes of text, or the order of a set",
    "f'{WORDS}'": "hashes of text, or the order of a set",
    "hash('a')": "hashes of text, or the order of a set",
}
QUIET = [
    "loss.item()", "loss.abs().sum()", "model(x).mean().item()",
    "epoch", "model(x).norm()", "settings.SIZE", "double(epoch)", "timer.rounds", "len(WORDS)",
    "sorted(WORDS)", "'red' in WORDS", "WORDS == {'red'}", "max(WORDS)", "any(w == 'red' for w in WORDS)", "total",
    "list(NUMBERS)", "len(WORDS - {'red'})", "SEEDED.random()", "np.random.default_rng(epoch).random()",
    "random.Random(1).random()", "torch.rand(3)", "CONFIG", "LEVEL", "late", "time.strptime('1', '%S')",
    "isinstance(WORDS, set)", "named.net(1)", "bought(loss)", "bought.width", "torchvision.Network(LABEL)",
    "sum(len(w) for w in WORDS)",
]  # fmt: skip


def analysed(added: str) -> tuple[ProgramAnalysis, Location]:
    """The program with a value ``added`` to its last log statement, and where that stands."""
    text = PROGRAM.replace("ADDED", f"added={added}")
    line = next(n for n, code in enumerate(text.splitlines(), 1) if "added=" in code)
    program = ProgramAnalysis({"/p/train.py": text, "/p/settings.py": SETTINGS}, "/p/train.py")
    return program, Location("/p/train.py", line, "main")


def read_of(added: str, *, same_hashes: bool = False) -> str:
    """What the added value reads from outside."""
    program, site = analysed(added)
    read = program.outside(site, ["added"], same_hashes=same_hashes).outside
    return "" if read is None else read.kind


@pytest.mark.parametrize("added", NOISY)
def test_a_value_that_depends_on_something_read_from_outside_names_it(added: str) -> None:
    assert read_of(added) == NOISY[added]


@pytest.mark.parametrize("added", QUIET)
def test_a_value_that_does_not_depend_on_it_names_nothing(added: str) -> None:
    assert read_of(added) == ""


@pytest.mark.parametrize("added", [name for name, kind in NOISY.items() if "hashes" in kind])
def test_the_order_of_a_set_is_no_noise_where_text_has_the_same_hashes(added: str) -> None:
    assert read_of(added, same_hashes=True) == ""


@pytest.mark.parametrize(
    ("added", "expected"),
    [
        ("x.mean()", True), ("loss.item()", True), ("double(y)", True), ("len(loader)", False),
        ("model.weight.grad.norm()", False), ("epoch", True), ("timer.rounds", False),
    ],
)  # fmt: skip
def test_values_that_come_from_the_items_of_a_loop_are_known(added: str, expected: bool) -> None:
    program, site = analysed(added)
    assert program.outside(site, ["added"], same_hashes=True).item is expected


def test_the_names_and_attributes_that_hold_noise_are_listed() -> None:
    program, _ = analysed("1")
    found = program.noisy(same_hashes=True)
    assert {("<module>", "STARTED"), ("main", "begun"), ("", "laps"), ("elapsed", "began")} & found == {
        ("<module>", "STARTED"),
        ("main", "begun"),
        ("", "laps"),
    }
    assert not {("main", "loss"), ("main", "x"), ("<module>", "CONFIG"), ("", "rounds")} & found
