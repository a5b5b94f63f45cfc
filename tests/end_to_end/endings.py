"""Interrupt a small training at its records, by one signal or two, resume it, and compare with the uninterrupted run.

``python -m tests.end_to_end.endings --rounds 2000`` (``make crash``) draws the rounds from a seed, which it prints.
Each process of a round, the first and the resumes, has a *script* of what happens to it: at its n-th record, inside
`RunLog.append` or in the next step after it, it is sent SIGINT, SIGTERM or SIGKILL.  The training meets them in one of
the ways of `KINDS`.
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from florlog_wal import verify

import florlog
from tests.run_directories import run_directory

from .harness import Logged, Nursery, logged
from .programs import write

TRAINING = """
import os
import signal
import sys
import time

import torch
from florlog_wal import RunLog

import florlog

KIND = sys.argv[1]
os.environ["_SENT"] = sys.argv[2]  # images do not carry variables of such names
os.environ["_RECORD"] = "0"
os.environ["_WAITING"] = os.environ["_STOP"] = ""
append, settle = RunLog.append, RunLog.commit


def happens(place):
    for waiting in os.environ["_WAITING"].split(",") if place == "step" else ():
        if waiting:
            os.environ["_WAITING"] = ""
            os.kill(os.getpid(), int(waiting))
    if place == "record":
        os.environ["_RECORD"] = number = str(int(os.environ["_RECORD"]) + 1)
        for event in os.environ["_SENT"].split(","):
            at, _, how = event.partition(":")
            if at == number and how.startswith("later"):
                os.environ["_WAITING"] += how[5:] + ","
            elif at == number:
                os.kill(os.getpid(), int(how))


def interrupted(self, record, **place):
    happens("record")
    return append(self, record, **place)


def committed(self, *arguments):
    happens("record")
    return settle(self, *arguments)


def terminated(number, frame):
    if KIND == "flag":
        os.environ["_STOP"] = "1"
    else:
        sys.exit(0)


RunLog.append, RunLog.commit = interrupted, committed
signal.signal(signal.SIGTERM, terminated)
torch.manual_seed(3)
model = torch.nn.Linear(4, 4)
optimizer = torch.optim.Adam(model.parameters(), lr=0.1)


def train(run):
    for epoch in run.loop("epoch", range(4)):
        total = 0.0
        for step, _ in enumerate(run.loop("step", range(4))):
            loss = model(torch.randn(8, 4)).square().mean()
            optimizer.zero_grad()
            happens("step")
            loss.backward()
            optimizer.step()
            total += loss.item()
            time.sleep(0.002)
            run.log(loss=loss)
            if os.environ["_STOP"]:
                break
        if os.environ["_STOP"]:
            break
        for held in run.loop("check", range(5)):
            run.log(held=model.weight.sum() + held)
            if held == 2:
                break
        run.log(total=total)


with florlog.run("endings", overhead=float("inf")) as run:
    run.track(model=model, optimizer=optimizer)
    if KIND == "caught":
        try:
            train(run)
        except KeyboardInterrupt:
            print("interrupted")
    elif KIND == "finally":
        try:
            train(run)
        finally:
            happens("step")
            run.log(saved=1)
            happens("step")
    else:
        train(run)
    run.log(final=model.weight.sum())
"""

KINDS = ("plain", "caught", "finally", "flag")
SIGNALS = {"SIGINT": 2, "SIGTERM": 15, "SIGKILL": 9}
_RECORDS = 90
_MOST_RESUMES = 8


@dataclass(frozen=True)
class Round:
    """What happens to each process: ``12:2,13:later9`` is SIGINT at record 12, SIGKILL in the step after 13."""

    kind: str
    processes: tuple[str, ...]


def drawn(chance: random.Random) -> Round:
    """A random round."""
    processes = []
    for _ in range(chance.randint(1, 3)):
        at = chance.randint(1, _RECORDS)
        events = []
        for _ in range(chance.randint(1, 2)):
            how = chance.choice(["", "", "later"]) + str(chance.choice(list(SIGNALS.values())))
            events.append(f"{at}:{how}")
            at += chance.randint(0, 4)
        processes.append(",".join(events))
    return Round(chance.choice(KINDS), tuple(processes))


class Endings:
    """Runs rounds in a directory."""

    def __init__(self, nursery: Nursery, directory: Path) -> None:
        self._nursery, self._directory = nursery, directory
        self.script = write(directory / "train.py", TRAINING)
        self._expected: dict[str, list[Logged]] = {}

    def expected(self, kind: str) -> list[Logged]:
        """What the uninterrupted run logs."""
        if kind not in self._expected:
            store = self._directory / f"whole-{kind}"
            self._nursery.run(store, self.script, kind, "-", code=0)
            self._expected[kind] = logged(store)
        return self._expected[kind]

    def problem(self, this: Round, store: Path) -> str:
        """Run a round; what is wrong with its outcome, "" if nothing is."""
        expected = self.expected(this.kind)
        begun = False
        for number in range(len(this.processes) + _MOST_RESUMES):
            events = this.processes[number] if number < len(this.processes) else "-"
            arguments = (self.script, this.kind, events)
            if not begun:
                self._run(store, *arguments)
            else:
                self._run(store, "florlog", "resume", "--extend", self.script, "--", *arguments[1:])
            try:
                with florlog.open(store) as log:
                    begun = bool(log.runs)
                    tree = log.run().tree() if begun else None
            except florlog.FlorlogError:
                begun, tree = False, None
            if tree is None:
                continue
            if tree.problems:
                return f"analysis: {tree.problems[0]}"
            if tree.status == "complete" and not any(loop.left for loop in tree.root.loops):
                break
        else:
            return "it did not come to its end"
        found = logged(store)
        if sorted(found, key=_place) != sorted(expected, key=_place):
            lost, more = Counter(expected), Counter(found)
            return f"lost {list((lost - more).elements())[:3]}, wrong {list((more - lost).elements())[:3]}"
        with florlog.open(store) as log:
            if len(log.values("loss")) != sum(value.name == "loss" for value in expected):
                return f"the table has {len(log.values('loss'))} rows"
        return "" if verify(run_directory(store)).ok else str(verify(run_directory(store)))

    def _run(self, store: Path, *command: str | Path) -> None:
        self._nursery.run(store, *command, code=None)


def _place(value: Logged) -> tuple[str, str]:
    return value.name, str(value.path)


def main() -> int:
    """Run rounds; 1 if any has a problem."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--seed", type=int, default=random.randrange(2**32))
    options = parser.parse_args()
    chance = random.Random(options.seed)
    print(f"seed {options.seed}", flush=True)
    bad = 0
    with tempfile.TemporaryDirectory() as held:
        directory = Path(held)
        nursery = Nursery(directory)
        endings = Endings(nursery, directory)
        for number in range(options.rounds):
            this, store = drawn(chance), directory / f"round{number}"
            if found := endings.problem(this, store):
                bad += 1
                print(f"{this}: {found}", flush=True)
            shutil.rmtree(store, ignore_errors=True)
        nursery.close()
    print(f"{options.rounds} rounds, {bad} with a problem")
    return bool(bad)


if __name__ == "__main__":
    sys.exit(main())
