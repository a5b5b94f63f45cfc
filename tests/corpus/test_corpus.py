"""Unmodified scripts of different styles, recorded hands-free: killed, resumed, and asked for what they did not print.

A comment that starts with ``# ADD`` is a print that observes only; the truth is a recording of the script with all
of them.  A script that is refused stands in `REFUSED` with a part of the reason.
"""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
from florlog_recovery import Loop, Node

import florlog
from tests.end_to_end.harness import Logged, Nursery, logged
from tests.end_to_end.test_resume import committed, has_run, recorded_seconds

SCRIPTS = Path(__file__).with_name("scripts")
NAMES = sorted(
    path.name for path in SCRIPTS.iterdir() if path.suffix == ".py" or (path / "train.py").exists()
)
REFUSED: dict[str, str] = {}
NEEDS = {"accelerate_loop.py": "accelerate", "yaml_config.py": "yaml"}
"""Script -> what it imports and florlog does not."""
CLOCKS = {"argparse_main.py": {"took"}, "print_time.py": {"in", "of"}}
"""Script -> the values that it reads from a clock."""
TABLE = Path(__file__).parents[2] / "docs" / "hindsight.md"
HEADER = (
    "| script | captured | refused with reason | replayed equal | redone / needed |\n|---|---|---|---|---|\n"
)
NOT_IN_THE_LAST_STEP = {"a2c_profile.py", "print_time.py"}
"""Scripts without an added statement in their innermost iterations."""
BEYOND = {
    "accelerate_loop.py": "a `with` may swallow an exception, so images lack what is bound in it",
    "distill.py": "an image in the second training is reached through a short loop without an image at its end",
    "joblib_seeds.py": "of five trainings in a row, each of a tenth of a second, not every one has an image at its end",
    "ppo_vector.py": "an image in the second loop of an iteration is reached through the first one",
}
"""Scripts whose questions may redo more than there is since the nearest image, and why."""
KILLS = 1

Values = dict[tuple[str, tuple[tuple[str, int], ...]], list[Any]]


def placed(name: str, directory: Path) -> Path:
    """A copy of a script, with its package; the file to run."""
    directory.mkdir(parents=True)
    if (SCRIPTS / name).is_dir():
        shutil.copytree(SCRIPTS / name, directory / "program", ignore=shutil.ignore_patterns("__pycache__"))
        return directory / "program" / "train.py"
    shutil.copy(SCRIPTS / name, directory / "train.py")
    return directory / "train.py"


def add(script: Path, only: int | None = None) -> int:
    """Make comments statements, all or one; how many there are."""
    number = 0
    for path in sorted(script.parent.rglob("*.py")):
        lines = path.read_text().splitlines(keepends=True)
        for index, line in enumerate(lines):
            if "# ADD " in line:
                if only in (None, number):
                    lines[index] = line.replace("# ADD ", "")
                number += 1
        path.write_text("".join(lines))
    return number


def values_of(store: Path, loops: set[str] | None = None) -> Values:
    """What the newest run logged, by name and path; paths end where they leave ``loops``."""
    from florlog.reading.render import jsonable
    from florlog.state.logged_values import plain

    found: Values = {}
    with florlog.open(store) as log:
        for value in log.run().logged():
            path = tuple(p for p in value.path if loops is None or p[0].split("#")[0] in loops)
            found.setdefault((value.name, path), []).append(
                json.dumps(jsonable(plain(value.value)), default=str)
            )
    return found


def check(nursery: Nursery, store: Path, script: Path, truth: Values, already: Values) -> str:
    """Replay a script with added statements: equal to the truth, or refused; the worst trust."""
    with florlog.open(store) as log:
        run = log.run().id
    output = nursery.directory / "output.txt"
    nursery.run(store, "florlog", "replay", script, "--run", run, "--format", "json")
    answer = json.loads(
        next(line for line in reversed(output.read_text().splitlines()) if line.startswith("{"))
    )
    found: Values = {}
    for value in answer["values"]:
        key = (value["name"], tuple(value["path"].items()))
        found.setdefault(key, []).append(json.dumps(value["value"], default=str))
    assert found
    wrong = {key: (held, truth.get(key)) for key, held in found.items() if truth.get(key) != held}
    assert not wrong, next(iter(wrong.items()))
    names = {name for name, _ in found}
    assert {k for k in truth if k[0] in names and k not in already} <= set(found)
    labels = {value["trust"] for value in answer["values"]}
    assert "DIVERGED" not in labels, output.read_text()
    return next(label for label in ("UNVERIFIED", "CONSISTENT", "PROVEN") if label in labels)


def repeatable(name: str, store: Path) -> list[Logged]:
    """What the newest run logged, without what a script reads from a clock."""
    return [value for value in logged(store) if value.name not in CLOCKS.get(name, ())]


def distance(nursery: Nursery, store: Path, script: Path) -> tuple[int, int] | None:
    """Of a question about a last innermost iteration: how many are redone, and how many since the nearest image.

    It is the last one of the loop, of those without loops inside, that comes last and in which an added statement
    stands.  None where there is no such loop.
    """
    with florlog.open(store) as log:
        run, tree = log.run().id, log.run().tree()
    ends: list[tuple[Loop, int]] = []  # the innermost iterations in their order
    images = [0]  # how many of them are before each image

    def walk(node: Node) -> None:
        for loop in node.loops:
            for index in range(loop.count + 1):
                if index in loop.images:
                    images.append(len(ends))
                if index in loop.nodes and loop.nodes[index].loops:
                    walk(loop.nodes[index])
                elif index < loop.count:
                    ends.append((loop, index))

    walk(tree.root)
    lasts = {loop.site: number for number, (loop, _) in enumerate(ends)}
    for number in sorted(lasts.values(), reverse=True):
        loop, index = ends[number]
        where = [f"loop[{name!r}] == {at}" for name, at in loop.path(index)]
        output = nursery.directory / "output.txt"
        command = ("explain", script, "--run", run, "--where", " and ".join(where), "--format", "json")
        nursery.run(store, "florlog", *command, code=None)
        answer = next((line for line in output.read_text().splitlines() if line.startswith("{")), None)
        if answer is None:
            assert "no recorded iteration that was asked for reaches" in output.read_text()
            continue
        plan = json.loads(answer)
        asked = [redo["to"] for segment in plan["segments"] for redo in segment["redo"] if redo["asked"]]
        if asked == [dict(loop.path(index))]:  # else the condition selects others, too
            before = max(image for image in images if image <= number)
            return plan["iterations_redone"], number + 1 - before
    return None


def figures(name: str) -> tuple[str, str]:
    """A script's line of the table in the docs, but for its last column, and that."""
    line = next(line for line in TABLE.read_text().splitlines() if line.startswith(f"| {name} |"))
    start, _, last = line.rstrip(" |").rpartition(" | ")
    return start, last


def test_the_table_in_the_docs_is_what_the_tests_hold_the_scripts_to() -> None:
    lines = TABLE.read_text().split(HEADER)[1].split("\n\n")[0].splitlines()
    assert [line.split(" | ")[0] for line in lines] == [f"| {name}" for name in NAMES]
    for name in NAMES:
        refused = REFUSED.get(name)
        start, last = figures(name)
        assert start == f"| {name} | yes | {refused or '-'} | {'no' if refused else 'yes'}"
        assert (last == "-") == (name in NOT_IN_THE_LAST_STEP)
        redone, needed = (0, 0) if last == "-" else map(int, last.split(" / "))
        assert redone <= needed or name in BEYOND


@pytest.mark.drawn(5)
@pytest.mark.parametrize("name", NAMES)
def test_hands_free_a_script_is_resumed_and_asked_afterwards(
    name: str, nursery: Nursery, tmp_path: Path
) -> None:
    if name in NEEDS:
        pytest.importorskip(NEEDS[name])
    script, store = placed(name, tmp_path / "original"), tmp_path / "store" / "s"
    store.parent.mkdir()
    nursery.run(store, "florlog", "record", script)
    output = (nursery.directory / "output.txt").read_text()
    assert sum(line.startswith("florlog: ") for line in output.splitlines()) == 6, output
    expected, already = repeatable(name, store), values_of(store)
    assert expected
    loops = {loop.split("#")[0] for value in expected for loop, _ in value.path}
    with florlog.open(store) as log:
        loops |= {loop.name.split("#")[0] for loop in log.run().tree().loops()}

    asked = placed(name, tmp_path / "asked")
    places = add(asked)
    if name in REFUSED:
        nursery.run(store, "florlog", "replay", asked, code=2)
        assert REFUSED[name] in (nursery.directory / "output.txt").read_text()
        return
    redone = distance(nursery, store, asked)
    assert (redone is None) == (name in NOT_IN_THE_LAST_STEP)
    assert redone is None or redone[0] <= redone[1] or name in BEYOND
    truth_store = tmp_path / "truth" / "s"
    truth_store.parent.mkdir()
    nursery.run(truth_store, "florlog", "record", asked)
    truth = values_of(truth_store, loops)
    print(name, "all", check(nursery, store, asked, truth, already))
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    place = random.Random(seed).randrange(places)
    one = placed(name, tmp_path / "one")
    add(one, place)
    print(name, place, check(nursery, store, one, truth, already))

    seconds = recorded_seconds(store)
    for attempt in range(12):
        died = tmp_path / f"killed{attempt}" / "s"
        died.parent.mkdir()
        when = random.Random(seed + attempt).uniform(0.05, 0.95) * seconds
        dead, _ = nursery.run(died, "florlog", "record", script, kill=when)
        if dead and has_run(died) and not committed(died)[1]:
            nursery.run(died, "florlog", "resume", script)
            assert repeatable(name, died) == expected
            return
    pytest.fail("never killed in its midst")
