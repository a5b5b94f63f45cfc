"""A cell is recorded and asked as a script is; what cannot be repeated is refused with one line."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

import florlog
from tests.end_to_end.harness import environment, python

pytestmark = pytest.mark.drawn_in_file(4)

pytest.importorskip("IPython")

SETUP = """\
import torch
from torch import nn
!true
torch.manual_seed(3)
data = torch.utils.data.TensorDataset(torch.randn(24, 4), torch.randn(24, 2))
loader = torch.utils.data.DataLoader(data, 4, shuffle=True)
"""
FAILED = "torch.rand(1) / nothing\n"  # draws from the generator before it fails
MODEL = """\
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 2)
        self.drop = nn.Dropout(0.3)
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        y = self.linear(x)
        # IN FORWARD
        return self.drop(y)


model = Net()
optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)


def train(x, y):
    loss = nn.functional.mse_loss(model(x), y)
    optimizer.zero_grad()
    loss.backward()
    # IN FUNCTION
    optimizer.step()
    return loss.item()


def fit(epochs):
    losses = []
    for epoch in range(epochs):
        for x, y in loader:
            losses.append(train(x, y))
        print("epoch", epoch, "loss", losses[-1])
        # BEHIND LOOP
    return losses
"""
RUN = "losses = fit(4)\n"
EXPLICIT = """\
with florlog.run("explicit", overhead=float("inf")) as run:
    run.track(model=model, optimizer=optimizer)
    for epoch in run.loop("epoch", range(3)):
        for x, y in run.loop("step", loader):
            run.log(loss=train(x, y))
            # IN CELL
        run.log(last=model.calls)
"""
IN_FORWARD = ("        # IN FORWARD", "        print('out', y.sum().item())")
BEHIND = ("        # BEHIND LOOP", "        print('drawn', torch.get_rng_state().sum().item())")
IN_CELL = ("            # IN CELL", "            run.log(bias=model.linear.bias.sum())")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("notebook")


def session(folder: Path, *cells: str | tuple[str, str], killed: bool = False) -> list[dict[str, Any]]:
    """Run cells in a new shell; a cell may have an identity.  ``killed``: it kills itself."""
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("shell.py")],
        input=json.dumps([cell if isinstance(cell, tuple) else (cell, None) for cell in cells]),
        env=environment(folder / "store") | {"IPYTHONDIR": str(folder / "ipython")},
        cwd=folder, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == (-9 if killed else 0), done.stderr
    if killed:
        return []
    answers: list[dict[str, Any]] = json.loads(done.stdout)
    return answers


def said(folder: Path, word: str, *cells: str) -> list[float]:
    """What cells print behind a word when Python runs them as one script."""
    script = folder / "rerun.py"
    script.write_text("\n".join(cell.replace("!true\n", "") for cell in cells))
    printed = python(folder / "store", script).stdout
    return [float(found) for found in re.findall(rf"^{word} (\S+)", printed, re.MULTILINE)]


FAILED_SCRIPT = "try:\n    torch.rand(1) / nothing\nexcept NameError:\n    pass\n"


def test_a_cell_is_recorded_with_what_earlier_cells_define_and_asked(folder: Path) -> None:
    model, again = MODEL.replace(*IN_FORWARD), MODEL.replace(*BEHIND)
    before = "held = {k: id(v) for k, v in globals().items() if k[0] != '_'}; rng = torch.get_rng_state()"
    after = (
        "print({k: id(v) for k, v in globals().items() if k in held} == held, "
        "torch.equal(rng, torch.get_rng_state()), '__florlog__' in dir(__import__('builtins')))"
    )
    *_, recorded, _, _, first, same, _, second = session(
        folder, "%load_ext florlog", SETUP, FAILED, (MODEL, "model"),
        (f"%%florlog cells --overhead inf\n{RUN}len(losses)", "run"),
        (model, "model"), before,
        ("%%florlog replay --where 'epoch == 2'\n" + RUN + "len(losses)", "run"), after,
        (again, "model"),
        ("%%florlog replay\n" + RUN + "print('count', len(losses))\nlen(losses)", "run"),
    )  # fmt: skip
    assert "Out[5]: 24" in recorded["out"], recorded
    assert [line.partition(":")[2].split()[0] for line in recorded["err"].splitlines()] == [
        "images", "recording", "loops:", "tracked:", "statements:", "not",
    ]  # fmt: skip
    assert "tracked: model, optimizer" in recorded["err"]
    assert first["raised"] == second["raised"] == ""
    assert "6 values from 6 of 24 iterations" in first["out"]
    assert "5 values" in second["out"]
    assert same["out"].split() == ["True", "True", "False"]
    with florlog.open(folder / "store") as log:
        found = log.values("out", "drawn", "count")
    program = SETUP, FAILED_SCRIPT
    assert found["out"].dropna().tolist() == said(folder, "out", *program, model, RUN)[12:18]
    assert found["drawn"].dropna().tolist() == said(folder, "drawn", *program, again, RUN)
    assert set(found["trust"]) == {"PROVEN"}


def test_a_cell_with_a_run_of_its_own_needs_no_extension(folder: Path) -> None:
    """Also where the same cell ran before, which a replay executes as set-up and does not take for the run."""
    *_, loaded, asked, changed = session(
        folder, SETUP + "import florlog", MODEL, EXPLICIT,
        "%%time\n" + EXPLICIT, "%load_ext florlog",
        "%%florlog replay --where 'epoch == 1'\n" + EXPLICIT.replace(*IN_CELL),
        "%%florlog replay\n" + EXPLICIT.replace("range(3)", "range(4)").replace(*IN_CELL),
    )  # fmt: skip
    assert loaded["raised"] == "", loaded
    assert "6 values from 6 of 18 iterations" in asked["out"], asked
    with florlog.open(folder / "store") as log:
        run = log.run()
        found = run.values("bias")
        state = run.state_at(epoch=1)
    assert set(found["trust"]) == {"PROVEN"}
    whole = EXPLICIT.replace(
        "            # IN CELL", "            print('bias', model.linear.bias.sum().item())"
    )
    program = SETUP + "import florlog\n", MODEL
    assert found["bias"].map(float).tolist() == said(folder, "bias", *program, EXPLICIT, whole)[6:12]
    assert state["model"]["linear.weight"].shape == (2, 4)
    assert changed["raised"] == "UsageError"
    assert "range(3)" in changed["out"] + changed["err"]


def test_each_of_several_runs_of_a_cell_is_asked_at_its_place_in_it(tmp_path: Path) -> None:
    """Runs of earlier cells do not count, also of the same cell when it ran before."""
    cell = "for part in range(2):\n" + textwrap.indent(EXPLICIT, "    ")
    asked = cell.replace("    " + IN_CELL[0], "    " + IN_CELL[1])
    cells = [SETUP + "import florlog", MODEL, EXPLICIT, cell, cell, "%load_ext florlog"]
    session(tmp_path, *cells)
    with florlog.open(tmp_path / "store") as log:
        runs = [run.id for run in log.runs]
        assert [len(run.tree().begin.earlier) for run in log.runs] == [0, 0, 1, 0, 1]
    *_, first, second = session(
        tmp_path, *cells[:2], "%load_ext florlog",
        *(f"%%florlog replay --run {run} --where 'epoch == 1'\n" + asked for run in runs[-2:]),
    )  # fmt: skip
    counted = asked.replace("run.log(bias=", "print('bias', ").replace("sum())", "sum().item())")
    truth = said(tmp_path, "bias", SETUP + "import florlog\n", MODEL, EXPLICIT, cell, counted)
    for answer, number, run in ((first, 0, runs[-2]), (second, 6, runs[-1])):
        assert answer["raised"] == "", answer
        with florlog.open(tmp_path / "store") as log:
            found = log.run(run).values("bias")
        assert set(found["trust"]) == {"PROVEN"}
        assert found["bias"].map(float).tolist() == truth[number * 3 :][6:12]


TEXTS = {
    "a line magic": ("%timeit -n1 -r1 1", "uses %timeit"),
    "a cell magic": ("%%prun\nf()", "uses %%prun"),
    "a magic's result": ("files = %lsmagic", "uses %lsmagic"),
    "a command's output": ("files = !ls", "uses get_ipython()"),
    "the shell": ("get_ipython().run_cell('x = 1')", "uses get_ipython()"),
    "await": ("import asyncio\nawait asyncio.sleep(0)", "awaits at its top level"),
    "a display magic": ("x = 1\n%matplotlib inline\nif x:\n    !ls\n", ""),
    "an earlier recording": ("%%florlog name --overhead 1\nx = 1", ""),
    "a timed cell": ("%%time\nx = 1", ""),
}


@pytest.mark.parametrize("case", TEXTS)
def test_a_cell_is_python_on_the_same_lines_or_has_an_obstacle(case: str) -> None:
    from IPython.core.inputtransformer2 import TransformerManager

    from florlog.program.cell_history import understood

    raw, obstacle = TEXTS[case]
    found = understood(TransformerManager().transform_cell, raw)
    assert found is not None
    assert found.obstacle.startswith(obstacle)
    assert bool(found.obstacle) == bool(obstacle)
    compile(found.text, case, "exec")
    body = raw.partition("\n")[2] if raw.startswith("%%") else raw
    if not obstacle:
        assert len(found.text.rstrip("\n").split("\n")) == len(body.rstrip("\n").split("\n"))
        namespace: dict[str, Any] = {}
        exec(found.text, namespace)
        assert namespace["x"] == 1


def test_what_cannot_be_repeated_is_recorded_and_refused_with_one_line(folder: Path) -> None:
    cell = "for epoch in range(2):\n    print('epoch', epoch)\n"
    asked = "%%florlog replay\n" + cell + "    print('square', epoch * epoch)\n"
    awaiting, interrupt = "import asyncio\nawait asyncio.sleep(0)", "raise KeyboardInterrupt"
    *_, recorded, refused = session(
        folder, "%load_ext florlog", interrupt, awaiting, "%%florlog bad\n" + cell, asked
    )
    assert recorded["raised"] == ""
    assert refused["raised"] == "UsageError"
    line = next(x for x in (refused["out"] + refused["err"]).splitlines() if "cannot be replayed" in x)
    assert "cell In [2] was interrupted" in line


def test_a_killed_kernel_is_resumed_in_a_new_one(tmp_path: Path) -> None:
    die = "    if len(steps) == 14 and Path('die').exists():\n        os.kill(os.getpid(), 9)\n    steps.append(1)\n"
    model = MODEL.replace("    # IN FUNCTION\n", die)
    cells = ["%load_ext florlog", "import os\nfrom pathlib import Path\nsteps = []\n" + SETUP, model]
    fit = RUN + "print('sum', sum(losses), len(losses))\n"
    (tmp_path / "die").touch()
    session(tmp_path, *cells, "%%florlog cells --overhead inf\n" + fit, killed=True)
    (tmp_path / "die").unlink()
    last = session(tmp_path, *cells, "%%florlog cells --overhead inf --resume\n" + fit)[-1]
    resumed = last["out"].splitlines()
    assert "resuming run cells-" in last["err"]
    assert "all equal to the recording" in last["err"]
    whole = session(tmp_path, *cells, fit)[-1]["out"].splitlines()
    assert resumed == whole[-len(resumed) :]
    assert not any(line.startswith("epoch 0 ") for line in resumed)  # of epochs 0 and 1, one is not run again
    with florlog.open(tmp_path / "store") as log:
        assert len(log.runs) == 1


def test_several_runs_are_asked_each_from_its_own_cells(tmp_path: Path) -> None:
    cell = "total = start\nfor epoch in range(3):\n    total = total * 2\n    print('epoch', epoch)\n"
    later = cell.replace("* 2", "* 3")
    session(tmp_path, "%load_ext florlog", "start = 1", "%%florlog one\n" + cell)
    session(tmp_path, "%load_ext florlog", "start = 5", "%%florlog two\n" + later)
    with florlog.open(tmp_path / "store") as log:
        runs = ",".join(run.id for run in log.runs)
    asked = f"%%florlog replay --run {runs}\n" + later.replace(
        "print('epoch', epoch)", "print('epoch', epoch)\n    print(total)"
    )
    answer = session(tmp_path, "%load_ext florlog", asked)[-1]
    assert [int(x) for x in re.findall(r"(\d+) +[A-Z]+$", answer["out"], re.MULTILINE)] == [
        2,
        4,
        8,
        15,
        45,
        135,
    ], answer


def test_a_refused_cell_runs_nothing_and_is_no_part_of_later_programs(folder: Path) -> None:
    cell = "for epoch in range(2):\n    print('epoch', epoch)\n"
    wrong = [
        "%%florlog --nonsense\nx = 1", "%%florlog\nx = %pwd\n", "%%florlog\nx = 1\nawait x", "%%florlog\nx = = 1",
        "%%florlog replay --run nowhere-0\nx = 1",
    ]  # fmt: skip
    answers = session(
        folder, "%load_ext florlog", *wrong, "print('x' in globals())", "%%florlog good\n" + cell,
        "%%florlog replay\n" + cell + "    print('square', epoch * epoch)\n",
    )  # fmt: skip
    for answer in answers[1:-3]:
        assert answer["raised"] == "UsageError"
        assert len((answer["out"] + answer["err"]).strip().splitlines()) == 1
    assert answers[-3]["out"].split() == ["False"]
    assert "2 values from 2 of 2 iterations" in answers[-1]["out"], answers[-1]


def test_a_cell_runs_unrecorded_where_its_store_cannot_be_opened(folder: Path) -> None:
    cell = "%%florlog --store /dev/null/x\nx = 1\nfor epoch in range(2):\n    print('epoch', epoch)\n"
    answers = session(folder, "%load_ext florlog", cell, "print(x)")
    assert answers[1]["raised"] == ""
    assert "is not recorded" in answers[1]["out"] + answers[1]["err"]
    assert answers[2]["out"].split() == ["1"]


def test_importing_florlog_imports_no_ipython(tmp_path: Path) -> None:
    told = python(tmp_path / "store", "-c", "import florlog, sys; print('IPython' in sys.modules)")
    assert told.stdout.split() == ["False"]
