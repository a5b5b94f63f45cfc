"""A run that does not repeat itself: a value that differs is never labelled PROVEN, and the difference is named."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import florlog

from .harness import Nursery, environment, flor, python
from .programs import write

pytestmark = pytest.mark.drawn_in_file(5)

PROGRAM = """
import os
import random
import time
from pathlib import Path

import torch

import florlog

BEFORE


def main():
    torch.manual_seed(1)
    w = torch.zeros(3)
    with florlog.run("trust", overhead=float("inf")) as run:
        run.track(w=w)
        for epoch in run.loop("epoch", range(4)):
            for step in run.loop("step", range(3)):
                w += CHANGE
                run.log(total=w.sum(), first=w[0])
                # ADD
        run.log(end=w.sum())


main()
"""

DATA = "(Path(__file__).parent / 'data.txt').read_text()"

KINDS = {
    "unseeded RNG": ("", "random.SystemRandom().random()"),
    "time": ("", "time.time_ns() % 1000003"),
    "logged wall clock": ("", "time.perf_counter() % 1"),
    "changed data file": ("", f"float({DATA})"),
    "data read before the run": (f"START = float({DATA})", "START"),
    "changed environment variable": ("", "float(os.environ['SCALE'])"),
    "set order": (
        (
            "class Key:\n"
            "    def __init__(self, number):\n"
            "        self.number = number\n\n"
            "    def __hash__(self):\n"
            "        return hash((os.getpid(), self.number))\n"
        ),
        "[key.number for key in {Key(i) for i in range(50)}][0] + 50 * (os.getpid() % 7)",
    ),
    "mutated global": (
        "SCALE = [0.0]\n\n\ndef grow():\n    SCALE[0] += random.SystemRandom().random()\n    return SCALE[0]\n",
        "grow()",
    ),
}
KINDS |= {
    "thread races": (
        (
            "import threading\n\n\n"
            "def work(number, done):\n"
            "    time.sleep(random.SystemRandom().random() * 0.01)\n"
            "    done.append(number)\n\n\n"
            "def race():\n"
            "    done = []\n"
            "    threads = [threading.Thread(target=work, args=(i, done)) for i in range(6)]\n"
            "    [t.start() for t in threads]\n"
            "    [t.join() for t in threads]\n"
            "    return sum(number * 6**place for place, number in enumerate(done))\n"
        ),
        "race()",
    ),
    "atomics, whose sums depend on the order": (
        (
            "def total():\n"
            "    parts = list(torch.linspace(0.1, 1e4, 300) ** 2)\n"
            "    random.SystemRandom().shuffle(parts)\n"
            "    return sum(parts)\n"
        ),
        "total()",
    ),
}
RESTORED = {"data read before the run"}  # a global that is in the images: the recorded value comes back


@pytest.mark.parametrize("kind", KINDS)
def test_a_differing_value_is_never_proven(
    kind: str, nursery: Nursery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, change = KINDS[kind]
    text = PROGRAM.replace("BEFORE", before).replace("CHANGE", change)
    data, store = tmp_path / "data.txt", tmp_path / "store"
    data.write_text("1.25")
    script = write(tmp_path / "train.py", text)
    if kind == "changed environment variable":
        monkeypatch.setenv("SCALE", "1.25")
        python(store, script)
    else:
        nursery.run(store, script)
    with florlog.open(store) as log:
        recorded = {value.path: value.value for value in log.run().logged() if value.name == "first"}
    data.write_text("2.5")
    write(script, text.replace("# ADD", "run.log(added=w[0])"))
    command = ("replay", script, "--format", "json")
    if kind == "changed environment variable":
        monkeypatch.setenv("SCALE", "2.5")
        done = flor(store, *command, check=False)
        assert done.returncode == 1
        output = [*done.stdout.splitlines(), *done.stderr.splitlines()]
    else:
        nursery.run(store, "florlog", *command, code=0 if kind in RESTORED else 1)
        output = (nursery.directory / "output.txt").read_text().splitlines()
    values = json.loads(next(line for line in output if line.startswith("{")))["values"]
    assert len(values) == len(recorded) == 12
    differing = [value for value in values if value["value"] != recorded[tuple(value["path"].items())]]
    assert "PROVEN" not in {value["trust"] for value in differing}
    if kind not in RESTORED:
        assert differing
        named = next(line for line in output if "differs from the recording" in line)
        assert "first" in named or "total" in named or "state differs" in named


LEAVING = """
import random
import time

import torch

import florlog


def disturb(w):
    w += DISTURBANCE


def main():
    torch.manual_seed(1)
    w = torch.zeros(3)
    with florlog.run("leaving", overhead=float("inf")) as run:
        run.track(w=w)
        for epoch in run.loop("epoch", range(3)):
            started = time.time()
            disturb(w)
            # BEFORE
            for step in run.loop("step", range(3)):
                w += torch.rand(3)
                disturb(w)
                time.sleep(0.02)  # more than a restore
                # INSIDE
                run.log(total=w.sum())
            run.log(seconds=time.time() - started)


main()
"""


@pytest.mark.parametrize("place", ["BEFORE", "INSIDE"])
@pytest.mark.parametrize("steady", [True, False])
def test_a_value_behind_which_nothing_is_checked_is_proven_only_by_steady_code(
    place: str, steady: bool, nursery: Nursery, tmp_path: Path
) -> None:
    disturbance = "torch.rand(3) * random.random()" if steady else "random.SystemRandom().random()"
    text = LEAVING.replace("DISTURBANCE", disturbance)
    script, store = write(tmp_path / "train.py", text), tmp_path / "store"
    nursery.run(store, script)
    write(script, text.replace(f"# {place}", "run.log(added=w[0])"))
    condition = "epoch == 1" if place == "BEFORE" else "epoch == 1 and step == 1"
    nursery.run(store, "florlog", "replay", script, "--format", "json", "--where", condition)
    output = (nursery.directory / "output.txt").read_text().splitlines()
    answer = json.loads(next(line for line in output if line.startswith("{")))
    (value,) = answer["values"]
    assert value["trust"] == ("PROVEN" if steady else "CONSISTENT")
    if place == "INSIDE":
        assert [item["part"] for item in answer["plan"]["segments"][-1]["redo"]] == ["prefix"]


BRIEF = """
import time

import torch

import florlog


def main():
    torch.manual_seed(1)
    model = torch.nn.Linear(4, 1)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.rand(300, 4)))
    with florlog.run("brief") as run:
        run.track(model=model, optimizer=optimizer)
        for epoch in run.loop("epoch", range(2)):
            for (x,) in run.loop("step", data):
                loss = model(x).square().sum()
                optimizer.zero_grad()
                loss.backward()
                # ADD
                optimizer.step()
                time.sleep(0.0005)


main()
"""


def test_behind_a_step_too_short_for_fingerprints_the_walk_runs_on_to_one_that_has_them(
    nursery: Nursery, tmp_path: Path
) -> None:
    script, store = write(tmp_path / "train.py", BRIEF), tmp_path / "store"
    nursery.run(store, script)
    with florlog.open(store) as log:
        steps = next(
            loop for loop in log.run().tree().loops() if loop.name == "step" and loop.parent.index == 1
        )
        commits = [log.run().log.record(lsn).record for lsn in steps.commits]
    bare = [n for n, commit in enumerate(commits) if not commit.state and not commit.rng]
    telling = [n for n, commit in enumerate(commits) if commit.state]
    ahead = {n: next(t for t in telling if t > n) - n for n in bare}
    near = [n for n in bare if sum(steps.seconds[n + 1 : n + 1 + ahead[n]]) < 0.02]
    assert len(near) > 10
    write(script, BRIEF.replace("# ADD", "run.log(norm=model.weight.grad.norm())"))
    for step in (near[0], near[len(near) // 2]):
        nursery.run(
            store,
            "florlog",
            "replay",
            script,
            "--format",
            "json",
            "--where",
            f"epoch == 1 and step == {step}",
        )
        output = (nursery.directory / "output.txt").read_text().splitlines()
        (value,) = json.loads(next(line for line in output if line.startswith("{")))["values"]
        assert value["trust"] == "PROVEN", (step, output)


RECEIVING = """
import time

import torch
from torch.utils.data import DataLoader, TensorDataset

import florlog


def main():
    torch.manual_seed(1)
    w = TRACKED
    data = DataLoader(TensorDataset(torch.rand(6, 1)), 2)
    with florlog.run("receiving", overhead=float("OVERHEAD")) as run:
        run.track(w=w)
        for (x,) in run.loop("step", data):
            total = x.sum() * 2
            # ADD
            time.sleep(0.02)
            with torch.no_grad():
                (w.weight if isinstance(w, torch.nn.Module) else w).add_(total)
            run.log(total=total)


main()
"""


@pytest.mark.parametrize(
    ("overhead", "tracked", "value", "trust"),
    [
        ("inf", "torch.nn.Linear(1, 1)", "total * 2", "PROVEN"),
        ("0", "torch.nn.Linear(1, 1)", "w.weight * 2", "PROVEN"),
        ("0", "torch.nn.Linear(1, 1)", "total * 2", "PROVEN"),
        ("0", "torch.zeros(1)", "total * 2", "PROVEN"),
    ],
)
def test_a_step_whose_item_has_no_fingerprint_is_executed_to_its_end(
    overhead: str, tracked: str, value: str, trust: str, nursery: Nursery, tmp_path: Path
) -> None:
    """Without overhead only the first item gets one; what a value reads of the item need not show in a module's."""
    text = RECEIVING.replace("OVERHEAD", overhead).replace("TRACKED", tracked)
    script, store = write(tmp_path / "train.py", text), tmp_path / "store"
    nursery.run(store, script)
    write(script, text.replace("# ADD", f"run.log(added={value})"))
    nursery.run(store, "florlog", "replay", script, "--format", "json", "--where", "step == 1")
    output = (nursery.directory / "output.txt").read_text().splitlines()
    answer = json.loads(next(line for line in output if line.startswith("{")))
    assert [found["trust"] for found in answer["values"]] == [trust]


LIBRARY = """
__version__ = "{version}"


def grow(x):
    return x + {step}


def measure(x):
    return x * {step}
"""

USING = """
import stepper
import torch

import florlog

with florlog.run("using", overhead=float("inf")) as run:
    w = torch.zeros(3)
    run.track(w=w)
    for step in run.loop("step", range(4)):
        w.copy_(stepper.grow(w))
        # ADD
        run.log(total=w.sum())
"""


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_a_changed_library_leaves_nothing_proven_also_where_what_was_recorded_comes_out_equal(
    version: str, tmp_path: Path
) -> None:
    library, store = tmp_path / "site-packages" / "stepper.py", tmp_path / "script" / "store"
    library.parent.mkdir()
    store.parent.mkdir()
    script = write(store.parent / "train.py", USING)
    library.write_text(LIBRARY.format(version="1.0", step=1.25))
    began = _run(store, [script], PYTHONPATH=str(library.parent))
    assert began.returncode == 0, began.stderr
    # The new version computes the recorded values as before, and what is asked for otherwise.
    if version == "1.1":
        library.write_text(LIBRARY.format(version=version, step=1.25).replace("x * 1.25", "x * 1.5"))
    write(script, USING.replace("# ADD", "run.log(added=stepper.measure(w))"))
    done = _run(
        store, ["-m", "florlog", "replay", script, "--format", "json"], PYTHONPATH=str(library.parent)
    )
    assert done.returncode == 0, done.stderr
    labels = {value["trust"] for value in json.loads(done.stdout)["values"]}
    if version == "1.0":
        assert "PROVEN" in labels
        assert "stepper was" not in done.stderr
    else:
        assert labels == {"CONSISTENT"}
        assert "stepper was 1.0, and is 1.1" in done.stderr


@pytest.mark.parametrize("workers", ["1", "2"])
def test_another_number_of_threads_is_told_or_not_taken(workers: str, tmp_path: Path) -> None:
    text = USING.replace("import stepper\n", "").replace("stepper.grow(w)", "w + torch.get_num_threads()")
    store, script = tmp_path / "store", write(tmp_path / "train.py", text)
    began = _run(store, [script], OMP_NUM_THREADS="2")
    assert began.returncode == 0, began.stderr
    write(script, text.replace("# ADD", "run.log(added=w[0])"))
    command = ["-m", "florlog", "replay", script, "--format", "json", "--workers", workers]
    done = _run(store, command, OMP_NUM_THREADS="1")
    assert done.returncode == 0, done.stderr
    values = json.loads(done.stdout)["values"]
    assert [value["value"] for value in values] == [2.0, 4.0, 6.0, 8.0]
    # One process has NumPy's libraries started with their threads; workers are started with the recorded number.
    assert {value["trust"] for value in values} == {"CONSISTENT" if workers == "1" else "PROVEN"}
    assert ("OMP_NUM_THREADS was 2, and is 1" in done.stderr) is (workers == "1")


def _run(store: Path, command: list[str | Path], **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *map(str, command)],
        env={**environment(store), **variables},
        cwd=store.parent,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


HIDDEN = """
import sys
import torch
import florlog

torch.manual_seed(0)
model = torch.nn.Linear(3, 1)
with florlog.run("hidden", overhead=float("inf")) as run:
    run.track(model=model)
    for epoch in run.loop("epoch", range(5)):
        for step in run.loop("step", range(3)):
            COUNTED
            if step == 0:
                run.log(limit=LIMIT)
            with torch.no_grad():
                model.weight += torch.randn(3)
            # ADD
"""
NOT_IN_IMAGES = ("sys.setrecursionlimit(sys.getrecursionlimit() + 1)", "sys.getrecursionlimit()")
IN_IMAGES = ("pass", "epoch")


@pytest.mark.parametrize(("counted", "limit"), [NOT_IN_IMAGES, IN_IMAGES])
def test_after_a_difference_that_the_state_does_not_show_nothing_is_proven(
    nursery: Nursery, tmp_path: Path, counted: str, limit: str
) -> None:
    script, store = tmp_path / "train.py", tmp_path / "store"
    text = HIDDEN.replace("COUNTED", counted).replace("LIMIT", limit)
    script.write_text(text)
    nursery.run(store, script)
    script.write_text(text.replace("# ADD", "run.log(norm=model.weight.norm().item())"))
    code = 0 if counted == "pass" else 1
    nursery.run(store, "florlog", "replay", script, "--format", "json", "--where", "epoch == 3", code=code)
    output = nursery.output.read_text().splitlines()
    answer = json.loads(next(line for line in output if line.startswith("{")))
    found = {value["path"]["step"]: value["trust"] for value in answer["values"]}
    if counted == "pass":
        assert set(found.values()) == {"PROVEN"}
    else:
        assert found == {0: "DIVERGED", 1: "CONSISTENT", 2: "CONSISTENT"}
