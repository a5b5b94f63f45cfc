"""Each rule of trust is needed: without it, a value that differs from the recorded run's is labelled PROVEN.

A driver switches one rule off, by taking it out of the table that a replay goes by, and then replays.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from florlog.following.trust import RULES
from florlog.source.names.outside import ENTROPY, HASHES, NETWORK, SOURCES

from .harness import Nursery
from .programs import write
from .test_outside import command
from .test_skipping import MEAN, SECRET, ask

pytestmark = pytest.mark.drawn_in_file(4)

DRIVER = """
import sys

from florlog.following import trust
from florlog.source.names import outside

switched_off = sys.argv[1]
trust.RULES.pop(switched_off, None)
for name, kind in list(outside.SOURCES.items()):
    if kind == switched_off:
        outside.SOURCES[name] = ""

from florlog.commands import main

sys.exit(main(["replay", *sys.argv[2:], "--format", "json"]))
"""

NESTED = """
import os
import random
import sys
import time
from pathlib import Path

import torch

import florlog

DATA = Path(__file__).with_name("data.txt")
torch.manual_seed(1)


def number(index):
    return float(DATA.read_text().split()[index])


class Items:
    def __init__(self, size):
        self.size = size

    def __len__(self):
        return 3

    def __getitem__(self, index):
        if index == 3:
            raise IndexError
        item = torch.zeros(self.size)
        item[1] = number(index)
        return item


def disturb(w):
    w += DISTURBANCE
    aside[0] = ASIDE


w = torch.zeros(2)
aside = [0.0]
with florlog.run("rules", overhead=float("OVERHEAD")) as run:
    run.track(w=w)
    for epoch in run.loop("epoch", range(2)):
        disturb(w)
        # BEFORE
        for x in run.loop("step", torch.utils.data.DataLoader(Items(SIZE), None)):
            w += torch.rand(2) + x[0]
            time.sleep(0.02)
            # INSIDE
            run.log(total=w.sum())
        # AFTER
"""


STEADY = (
    NESTED.replace("DISTURBANCE", "1").replace("ASIDE", "1").replace("OVERHEAD", "inf").replace("SIZE", "2")
)
HIDDEN = "sys.modules['random'].SystemRandom().random()"
"""A number that is another one in each process, which the source does not show."""


@dataclass(frozen=True)
class Case:
    """A value that is not the recorded run's, because of data that change after the recording or of what disturbs.

    ``place``: where the statement is added.  ``disturbance``: of what is tracked; ``aside``: of another variable.
    ``goes_on``: the replay executes more after it.
    """

    added: str
    place: str = "AFTER"
    where: str = "epoch < 2"
    disturbance: str = "1"
    aside: str = "1"
    goes_on: bool = False
    data: str = "1 7 3"
    size: int = 2
    overhead: str = "inf"


CASES = {
    "outside": Case("time.time()"),
    "variable": Case("aside[0]", "BEFORE", "epoch == 1", aside=HIDDEN, goes_on=True, data="1 2 3"),
    "sampled": Case("x.sum()", "INSIDE", size=1 << 19),
    "unsteady": Case("w[0]", "BEFORE", "epoch == 1", disturbance=HIDDEN),
    "unread": Case("x[1]", "INSIDE", "epoch == 0 and step == 1", overhead="0"),
}


def asked(nursery: Nursery, directory: Path, case: Case, switched_off: str) -> set[str]:
    """The labels of the values of a case in a replay without a rule."""
    text = NESTED.replace("DISTURBANCE", case.disturbance).replace("OVERHEAD", case.overhead)
    text = text.replace("SIZE", str(case.size)).replace("ASIDE", case.aside)
    script, store, driver = (
        directory / "train.py",
        directory / "store",
        write(directory / "driver.py", DRIVER),
    )
    if not store.exists():
        write(directory / "data.txt", "1 2 3")
        write(script, text)
        nursery.run(store, script)
        write(directory / "data.txt", case.data)
        text = text.replace(f"# {case.place}", f"run.log(added={case.added})")
        write(script, text.replace("# INSIDE", "run.log(later=w[0])") if case.goes_on else text)
    nursery.run(store, driver, switched_off, script, "--where", case.where)
    output = (nursery.directory / "output.txt").read_text().splitlines()
    answer = json.loads(next(line for line in output if line.startswith("{")))
    return {value["trust"] for value in answer["values"] if value["name"] == "added"}


def test_every_rule_has_a_case() -> None:
    """`skipped` has a test of its own below."""
    assert {*CASES, "skipped"} == set(RULES)


@pytest.mark.parametrize("rule", CASES)
def test_without_a_rule_a_differing_value_would_be_proven(
    rule: str, nursery: Nursery, tmp_path: Path
) -> None:
    for name, allowed in (("with", "none"), ("without", rule)):
        (tmp_path / name).mkdir()
        labels = asked(nursery, tmp_path / name, CASES[rule], allowed)
        assert ("PROVEN" in labels) is (name == "without"), (name, labels)


def test_without_its_rule_what_a_skipped_loop_changed_in_secret_would_be_proven(
    nursery: Nursery, tmp_path: Path
) -> None:
    driver = write(tmp_path / "driver.py", DRIVER)
    for switched_off in ("none", "skipped"):
        (tmp_path / switched_off).mkdir()
        replay = (driver, switched_off)
        asked = ask(
            nursery, tmp_path / switched_off, MEAN, "--where", "epoch == 2",
            secret=SECRET, images=False, replay=replay,
        )  # fmt: skip
        wrong = [
            value["trust"]
            for value in asked.answer["values"]
            if asked.truth[value["name"], tuple(value["path"].items())] != [value["value"]]
        ]
        assert wrong
        assert ("PROVEN" in wrong) is (switched_off == "skipped"), wrong


KINDS = {
    "the clock": "time.time()",
    ENTROPY: "os.urandom(3)",
    "the process and the machine": "os.getpid()",
    "other threads or processes": "os.system('exit 3')",
    "files": "os.path.getsize(DATA)",
    "the environment": "os.environ['FLORLOG_STORE']",
    "addresses of objects": "id(w)",
    "counters of memory and time": "torch.cuda.memory_allocated()",
    HASHES: "hash('red')",
}


def test_every_kind_of_source_has_a_case() -> None:
    """A test may not use the network."""
    assert {*KINDS, NETWORK, ""} == set(SOURCES.values())


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a recorded run, whose text has other hashes than any replay's."""
    directory = tmp_path_factory.mktemp("kinds")
    write(directory / "data.txt", "1 2 3")
    write(directory / "driver.py", DRIVER)
    write(directory / "train.py", STEADY)
    command(directory / "store", directory / "train.py")
    return directory


@pytest.mark.parametrize("kind", KINDS)
def test_without_a_kind_of_source_what_is_read_from_it_would_be_proven(kind: str, recorded: Path) -> None:
    """`test_outside.py` shows that with it the same is not."""
    store, script = recorded / "store", recorded / "train.py"
    write(script, STEADY.replace("# AFTER", f"run.log(added={KINDS[kind]})"))
    answer = json.loads(command(store, recorded / "driver.py", kind, script))
    assert "PROVEN" in {value["trust"] for value in answer["values"]}
