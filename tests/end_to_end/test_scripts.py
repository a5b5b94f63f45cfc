"""Twelve training scripts of different make: recorded, killed, resumed, and asked for what they did not log.

Every script in ``scripts/`` names its added statements in comments that start with ``# ADD``; without the mark
they are statements.  All of them observe only, so one full run with all of them is the truth for each.
"""

from __future__ import annotations

import json
import random
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import florlog
from florlog.images.imager import SavedState

from .harness import Nursery, logged
from .test_hindsight import answers, instrumented
from .test_resume import committed, has_run, recorded_seconds

pytestmark = pytest.mark.drawn_in_file(2)

SCRIPTS = Path(__file__).with_name("scripts")
NAMES = sorted(path.stem for path in SCRIPTS.glob("*.py"))
KILLS = 3
ALONE = 3  # statements that are asked for by themselves
ADD = re.compile(r"# ADD ")

Values = dict[tuple[str, tuple[Any, ...]], list[Any]]


@dataclass
class Recorded:
    """A script, its recorded run, and what a full run with every statement logs."""

    script: Path
    text: str
    store: Path
    truth: Values
    places: int


def with_statements(text: str, *places: int) -> str:
    """The script with the added statements of some places, of all by default."""
    number = iter(range(text.count("# ADD ")))
    return ADD.sub(lambda mark: "" if next(number) in places or not places else mark.group(), text)


def ask(nursery: Nursery, recorded: Recorded, text: str, *options: str) -> dict[str, Any]:
    """The answer of a replay of the script with a changed text."""
    recorded.script.write_text(text)
    store = recorded.store.with_name("asked")  # a copy each time: what was found once is not executed again
    shutil.copytree(recorded.store, store)
    nursery.run(store, "florlog", "replay", recorded.script, "--format", "json", *options)
    shutil.rmtree(store)
    output = (nursery.directory / "output.txt").read_text()
    answer: dict[str, Any] = json.loads(
        next(line for line in reversed(output.splitlines()) if line.startswith("{"))
    )
    return answer


def check(answer: dict[str, Any], truth: Values, what: str) -> None:
    """Every value is that of the full run, and proven.

    The set-up's may be CONSISTENT: nothing tells what it drew from an RNG that the script does not seed.
    """
    found = answers(answer)
    wrong = {key: (values, truth.get(key)) for key, values in found.items() if truth.get(key) != values}
    assert not wrong, (what, next(iter(wrong.items())))
    labels = {value["trust"] for value in answer["values"] if value["path"] or value["trust"] != "CONSISTENT"}
    assert labels <= {"PROVEN"}, (what, labels)


@pytest.fixture(scope="module")
def recordings() -> dict[str, Recorded]:
    return {}


@pytest.fixture
def recorded(
    name: str,
    recordings: dict[str, Recorded],
    nursery: Nursery,
    tmp_path_factory: pytest.TempPathFactory,
) -> Recorded:
    """The script's recording, made once for all its tests."""
    if name not in recordings:
        directory = tmp_path_factory.mktemp(name)
        text = (SCRIPTS / f"{name}.py").read_text()
        script = directory / "train.py"
        script.write_text(with_statements(text))
        truth = instrumented(nursery, directory / "truth", script)
        script.write_text(text)
        nursery.run(directory / "store", script)
        recordings[name] = Recorded(script, text, directory / "store", truth, text.count("# ADD "))
    return recordings[name]


@pytest.mark.drawn(3)
@pytest.mark.parametrize("name", NAMES)
def test_every_added_statement_has_its_values_of_a_full_run(
    name: str, recorded: Recorded, nursery: Nursery
) -> None:
    everything = ask(nursery, recorded, with_statements(recorded.text))
    check(everything, recorded.truth, "all places")
    asked = set(answers(everything))
    assert len({key[0] for key in asked}) >= recorded.places
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    for place in random.Random(seed).sample(range(recorded.places), ALONE):
        answer = ask(nursery, recorded, with_statements(recorded.text, place))
        check(answer, recorded.truth, f"place {place}")
        names = {key[0] for key in answers(answer)}
        assert names
        assert set(answers(answer)) == {key for key in asked if key[0] in names}, f"place {place}"


@pytest.mark.drawn(3)
@pytest.mark.parametrize("name", NAMES)
def test_one_iteration_alone_has_its_values_of_a_full_run(
    name: str, recorded: Recorded, nursery: Nursery
) -> None:
    text = with_statements(recorded.text)
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    paths = sorted(
        {path for _, path in recorded.truth if len(path) == max(len(p) for _, p in recorded.truth)}
    )
    for path in random.Random(seed).sample(paths, 1):
        condition = " and ".join(f"{loop} == {index}" for loop, index in path)
        answer = ask(nursery, recorded, text, "--where", condition)
        check(answer, recorded.truth, condition)
        assert {tuple(value["path"].items()) for value in answer["values"]} == {path}
    outer, index = random.Random(seed).choice(paths)[0]
    answer = ask(nursery, recorded, text, "--where", f"{outer} == {index}")
    check(answer, recorded.truth, f"{outer} == {index}")
    assert {value["path"][outer] for value in answer["values"]} == {index}


@pytest.mark.parametrize("name", ["kfold"])
def test_a_value_behind_a_loop_whose_body_makes_what_it_tracks_is_proven(
    name: str, recorded: Recorded, nursery: Nursery
) -> None:
    answer = ask(nursery, recorded, with_statements(recorded.text, recorded.places - 1))
    check(answer, recorded.truth, "the last place")
    assert answer["plan"]["iterations_redone"] == 0
    assert [value["trust"] for value in answer["values"]] == ["PROVEN"]


@pytest.mark.drawn(3)
@pytest.mark.crash
@pytest.mark.parametrize("name", NAMES)
def test_killed_and_resumed_a_run_is_the_same(
    name: str, recorded: Recorded, nursery: Nursery, tmp_path: Path
) -> None:
    recorded.script.write_text(recorded.text)
    expected, final = logged(recorded.store), final_state(recorded.store)
    seconds = recorded_seconds(recorded.store)
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    instants = random.Random(seed)
    killed = 0
    for number in range(10 * KILLS):
        if killed == KILLS:
            break
        store = tmp_path / f"store{number}"
        dead, _ = nursery.run(store, recorded.script, kill=instants.uniform(0.05, 0.95) * seconds)
        if not dead:  # it came too late: the recorded run was slower, maybe by other load
            seconds = recorded_seconds(store)
        if not dead or not has_run(store) or committed(store)[1]:
            continue
        killed += 1
        before = committed(store)[0]
        nursery.run(store, "florlog", "resume", recorded.script)
        assert logged(store) == expected, f"killed after {before} iterations"
        assert final_state(store) == final, f"killed after {before} iterations"
    assert killed == KILLS


def final_state(store: Path) -> dict[str, Any]:
    """The pages of the state behind the last loop: tracked objects and carried variables.

    Not the RNGs: one that the script does not seed is another in every process.
    """
    with florlog.open(store) as log:
        loop = log.run().tree().root.loops[-1]
        assert loop.count in loop.images
        table = SavedState(log.run().log, loop.images[loop.count].table).table
        return {name: entry for name, entry in table.items() if not name.startswith(("/rng", "/entry"))}
