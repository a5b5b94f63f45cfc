"""A statement added today is placed into the source of earlier runs, and each is replayed from its own."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.harness import Nursery, newest
from tests.end_to_end.programs import NESTED, PLACES, add, write
from tests.end_to_end.test_hindsight import PACED, instrumented

pytestmark = pytest.mark.drawn_in_file(3)

FIRST = NESTED.replace("    right = 0\n", "    right = 0  # the first version\n")
SECOND = NESTED.replace("nn.Dropout(0.2)", "nn.Dropout(0.4)").replace(
    "            best = max(best, right)\n", "            best = max(best, right)\n            rate = 0.5\n"
)
OTHER = NESTED.replace("train_step", "one_step")  # has no function of that name
PRESENT = SECOND.replace("AdamW", "SGD")
ASKED = {"IN FUNCTION": PLACES["IN FUNCTION"], "AFTER INNER": PLACES["AFTER INNER"]}


def git(directory: Path, *command: str) -> str:
    named = ["-c", "user.name=a", "-c", "user.email=a@b"]
    return subprocess.run(
        ["git", *named, *command], cwd=directory, check=True, capture_output=True, text=True
    ).stdout


def untouched(directory: Path) -> dict[str, Any]:
    files = {str(p): p.read_bytes() for p in sorted(directory.rglob("*")) if p.is_file()}
    return {"files": files, "branch": git(directory, "status", "--branch", "--porcelain=v2")}


@pytest.fixture(scope="module")
def project(nursery: Nursery, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A git project whose script was recorded in three versions and has a fourth now; the runs."""
    directory = tmp_path_factory.mktemp("versions") / "project"
    directory.mkdir()
    store, script = directory.parent / "store", directory / "train.py"
    git(directory, "init", "-q", "-b", "work")
    runs = []
    for version in (FIRST, SECOND, OTHER):
        nursery.run(store, write(script, version))
        git(directory, "add", "train.py")
        git(directory, "commit", "-q", "-m", "a version")
        runs.append(newest(store))
    write(script, PRESENT)
    nursery.run(store, script)
    runs.append(newest(store))
    write(directory / "notes.py", "staged = 1\n")
    git(directory, "add", "notes.py")
    return directory, runs


def test_each_run_is_answered_from_its_own_source_and_the_work_tree_stays(
    project: tuple[Path, list[str]], nursery: Nursery, tmp_path: Path
) -> None:
    directory, runs = project
    store = directory.parent / "store"
    script = write(directory / "train.py", add(PRESENT, ASKED))
    before = untouched(directory)
    nursery.run(store, "florlog", "replay", script, "--all", "--format", "json", "--where", "epoch >= 2")
    output = (nursery.directory / "output.txt").read_text()
    answer = json.loads(next(line for line in output.splitlines() if line.startswith("{")))
    assert untouched(directory) == before
    assert [version["run"] for version in answer["runs"]] == runs
    assert "train_step" in answer["runs"][2]["refused"]
    assert (
        f"florlog: run {runs[2]} has no values: the code around it has no counterpart in train.py" in output
    )
    for number, text in ((0, FIRST), (1, SECOND), (3, PRESENT)):
        found: dict[tuple[str, tuple[Any, ...]], list[Any]] = {}
        for value in answer["runs"][number]["values"]:
            assert value["statement"]["file"] == str(directory / "train.py")
            assert value["trust"] in PACED
            found.setdefault((value["name"], tuple(value["path"].items())), []).append(value["value"])
        full = write(tmp_path / "train.py", add(text, ASKED))
        truth = instrumented(nursery, tmp_path / f"truth{number}", full)
        names = {"gnorm", "after", "last", "sum_"}
        assert found == {k: v for k, v in truth.items() if k[0] in names and k[1][0][1] >= 2}


def test_values_found_are_stored_beside_their_runs_and_not_asked_again(
    project: tuple[Path, list[str]], nursery: Nursery, tmp_path: Path
) -> None:
    directory, runs = project
    store = tmp_path / "store"
    shutil.copytree(directory.parent / "store", store)
    script = write(directory / "train.py", add(PRESENT, {"IN FUNCTION": PLACES["IN FUNCTION"]}))
    nursery.run(store, "florlog", "replay", script, "--run", f"{runs[1]},{runs[0]}", "--last", "3")
    output = (nursery.directory / "output.txt").read_text()
    rows = [line.split() for line in output.splitlines() if line.split()[:1] in ([runs[0]], [runs[1]])]
    assert [row[0] for row in rows] == [runs[1]] * 3 + [runs[0]] * 3
    assert {row[-1] for row in rows} <= {"PROVEN", "CONSISTENT"}
    assert [row[1:3] for row in rows[:3]] == [["3", "5"], ["3", "6"], ["3", "7"]]
    assert "gnorm" in output
    nursery.run(store, "florlog", "replay", script, "--run", f"{runs[1]},", "--last", "3", "--format", "json")
    answer = json.loads((nursery.directory / "output.txt").read_text().splitlines()[-1])
    assert answer["runs"][0]["plan"]["answered_from_log"] == 3
    assert answer["runs"][0]["plan"]["iterations_redone"] == 0


def test_a_statement_of_the_newest_run_is_asked_of_those_that_lack_it(
    project: tuple[Path, list[str]], nursery: Nursery, tmp_path: Path
) -> None:
    directory, runs = project
    store = tmp_path / "store"
    shutil.copytree(directory.parent / "store", store)
    script = write(directory / "train.py", add(PRESENT, {"END OF OUTER": PLACES["END OF OUTER"]}))
    nursery.run(store, script)
    command = ["replay", script, "--run", f"{runs[0]},{newest(store)}", "--format", "json"]
    nursery.run(store, "florlog", *command)
    output = (nursery.directory / "output.txt").read_text()
    first, last = json.loads(next(line for line in output.splitlines() if line.startswith("{")))["runs"]
    assert {value["name"] for value in first["values"]} == {"rate", "best_so_far"}
    assert last["refused"] == "its source has every log statement of the script"
    nursery.run(store, "florlog", "replay", script, "--run", f"{newest(store)},", code=2)
    assert "no log statement of" in (nursery.directory / "output.txt").read_text()
