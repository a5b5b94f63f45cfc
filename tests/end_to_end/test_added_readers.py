"""Added statements read what the recorded program computes and never reads: no image has it, and values are right.

Each case is a random program: names that are bound anywhere in its loops, statements of the recording that read some of
them, and added ones that read any.  Of the images that it could have, random ones are left.
"""

from __future__ import annotations

import json
import random
import shutil
import textwrap
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from florlog_wal import RunLog
from florlog_wal.stored_images import StoredImages

from tests.run_directories import run_directory

from .harness import Nursery

STEPS, VALS = 3, 2
NAMES = ("a", "b", "c", "d")
FRAMES = {
    "module": """
{start}
for epoch in range(5):
    {before}
    for step in range(3):
        weight += torch.randn(3)
        time.sleep(0.03)
        {inside}
        print("least", weight.min().item())
    {between}
    for val in range(2):
        {checked}
        print("sum", weight.sum().item() + val)
    {after}
    print("epoch", weight.sum().item())
""",
    "function": """
def main():
    {start}
    for epoch in range(5):
        {before}
        for step in range(3):
            weight += torch.randn(3)
            time.sleep(0.03)
            {inside}
            print("least", weight.min().item())
        {between}
        {after}
        print("epoch", weight.sum().item())
        {checked}


main()
""",
    "called": """
def train(weight, epoch, a, b, c, d):
    {before}
    for step in range(3):
        weight += torch.randn(3)
        time.sleep(0.03)
        {inside}
        print("least", weight.min().item())
    return a, b, c, d


{start}
for epoch in range(5):
    {between}
    a, b, _, _ = train(weight, epoch, a, b, c, d)
    {after}
    for val in range(2):
        {checked}
        print("sum", weight.sum().item() + val)
    print("epoch", weight.sum().item())
""",
}
START = "torch.manual_seed(0)\nweight, history = torch.zeros(3), []\na, b, c, d = -1.0, -2.0, -3.0, -4.0\nepoch = -1"
LOCAL = ("before", "inside", "between", "checked", "after")
"""Places for statements."""


def computation(draw: random.Random, form: str, place: str, read: Sequence[str]) -> str:
    """A statement that binds a name; ``read``: those that it may read."""
    name, other = draw.choice(NAMES), draw.choice(read)
    value = draw.choice(
        [
            f"weight.max().item() + {draw.randrange(9)}",
            f"{other} + epoch",
            f"{other} * 0.5 + 1",
            "float(epoch)",
        ]
    )
    if place == "checked" and form != "function":
        value = draw.choice([value, f"{other} + val"])
    binding = f"{name} = {value}"
    condition = draw.choice([None, None, "epoch % 2 == 0", "weight.sum() > 0", f"{other} < 1"])
    return binding if condition is None else f"if {condition}:\n    {binding}"


def program(seed: int) -> tuple[str, str, str]:
    """A random program, the same with added statements, and a condition on iterations."""
    draw = random.Random(seed)
    form = draw.choice([*FRAMES])
    recorded: dict[str, list[str]] = {"start": [START]}
    asked: dict[str, list[str]] = {"start": [START]}
    number = 0
    read = draw.sample(NAMES, draw.choice([1, 1, 2, 4]))  # the others the recorded program only binds
    for place in LOCAL:
        recorded[place], asked[place] = [], []
        for _ in range(draw.choice([0, 0, 1, 1, 2])):
            if (
                place == "before" or draw.random() < 0.65
            ):  # what prints before the steps keeps an epoch from being entered
                statement = computation(draw, form, place, read)
            else:
                statement = f'print("r{number}", {draw.choice(read)} + 0.0)'
                number += 1
            recorded[place].append(statement)
            asked[place].append(statement)
        if draw.random() < 0.45:
            at = draw.randrange(len(asked[place]) + 1)
            others = [name for name in NAMES if name not in read] or NAMES
            name = draw.choice(others if draw.random() < 0.7 else NAMES)
            asked[place].insert(at, f'print("x{number}", {name} + 0.0)')
            number += 1
    if recorded == asked:
        asked["after"].append('print("x", a + 0.0)')
    epoch = draw.choice([0, 1, 2, 2, 3, 3, 4, 4])
    where = draw.choice(
        [f"epoch == {epoch}", f"epoch >= {epoch}", f"epoch == {epoch} and step == {draw.randrange(STEPS)}"]
    )
    return _text(form, recorded), _text(form, asked), where


def _text(form: str, statements: dict[str, list[str]]) -> str:
    text = FRAMES[form]
    for place, some in statements.items():
        line = next(line for line in text.splitlines() if f"{{{place}}}" in line)
        column = len(line) - len(line.lstrip())
        inside = textwrap.indent("\n".join(some) or "pass", " " * column).strip()
        text = text.replace(f"{{{place}}}", inside)
    return "import time\nimport torch\n" + text


def truth(text: str) -> dict[str, list[float]]:
    """What a program prints under each name."""
    found: dict[str, list[float]] = defaultdict(list)
    exec(compile(text, "train.py", "exec"), {"print": lambda name, value: found[name].append(value)})
    return found


def leave(store: Path, draw: random.Random) -> None:
    """Remove random images; often all of the outermost loop, so that epochs are entered to reach those in them."""
    with RunLog.open(run_directory(store), mode="w") as log:
        held, share, inner = StoredImages(log), draw.choice([0.2, 0.5, 0.9]), draw.random() < 0.8
        outermost = min(image.loop for image in held.images)
        held.drop([
            image
            for image in held.images
            if not held.stays(image) and (draw.random() > share or (inner and image.loop == outermost))
        ])  # fmt: skip


def attempt(nursery: Nursery, folder: Path, seed: int) -> tuple[list[str], int]:
    """Record, ask; values that are wrong and not DIVERGED, and how many iterations were redone."""
    recorded, asked, where = program(seed)
    script, store = folder / "train.py", folder / "store"
    script.write_text(recorded)
    nursery.run(store, "florlog", "record", script, dense=True)
    leave(store, random.Random(seed))
    script.write_text(asked)
    nursery.run(store, "florlog", "replay", script, "--format", "json", "--where", where, code=None)
    output = (nursery.directory / "output.txt").read_text()
    shutil.rmtree(store)
    answer: dict[str, Any] | None = next(
        (json.loads(line) for line in output.splitlines() if line.startswith("{")), None
    )
    if answer is None:
        assert "no recorded iteration that was asked for reaches" in output, (seed, output)
        return [], 0
    expected = truth(asked)
    lines = [line.strip() for line in asked.splitlines()]
    wrong = []
    for value in answer["values"]:
        path, name = value["path"], value["name"]
        at = path["epoch"]
        statement = next(number for number, line in enumerate(lines) if line.startswith(f'print("{name}"'))
        assert statement + 1 == value["statement"]["line"]
        for loop, count in (("step", STEPS), ("val", VALS)):
            if loop in path:
                at = at * count + path[loop]
        if expected[name][at] != value["value"]:
            wrong.append(f"seed {seed}: {name} at {path} is {expected[name][at]}, got {value}")
    assert answer["values"]
    return wrong, answer["plan"]["iterations_redone"]


@pytest.mark.drawn(5)
@pytest.mark.parametrize("seed", range(400))
def test_values_are_those_of_a_full_run(nursery: Nursery, tmp_path: Path, seed: int) -> None:
    wrong, _ = attempt(nursery, tmp_path, seed)
    assert not wrong
