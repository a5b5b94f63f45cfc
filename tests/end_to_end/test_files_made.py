"""A script that goes another way if its own checkpoint, cache or results are there is asked all the same."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from florlog_wal import RunLog, encode_value

from florlog.following.files_made import files_made, made_at
from florlog.program.stores import tree_of
from tests.run_directories import run_directory

from .harness import Nursery, logged, python

pytestmark = pytest.mark.drawn_in_file(4)

LOOKS = {
    "exists": "if os.path.exists('out/state.pt'):\n    load(torch.load('out/state.pt'))",
    "path": "if Path('out', 'state.pt').is_file():\n    load(torch.load(Path('out') / 'state.pt'))",
    "glob": "for found in sorted(glob.glob('out/*.pt')):\n    load(torch.load(found))",
    "listed": "if 'out' in os.listdir():\n    load(torch.load('out/state.pt'))",
    "tried": "try:\n    with open('out/state.pt', 'rb') as file:\n        load(torch.load(file))\n"
    "except FileNotFoundError:\n    pass",
    "made": "os.makedirs('out')",
    "cached": "if not os.path.exists('data.pt'):\n    torch.save(torch.randn(8, 3), 'data.pt')\n"
    "x = torch.load('data.pt')",
    "entry": "if any(entry.name == 'out' for entry in os.scandir('.')):\n    load(torch.load('out/state.pt'))",
}
PROGRAM = """
import glob, os
from pathlib import Path
import torch
from torch import nn

torch.manual_seed(0)
first = 0
model = nn.Linear(3, 1)
optimizer = torch.optim.SGD(model.parameters(), 0.1)
x = torch.randn(8, 3)


def load(state):
    global first
    model.load_state_dict(state["model"])
    first = state["epoch"] + 1


LOOK
for epoch in range(first, 5):
    for step in range(4):
        loss = (model(x + torch.randn(8, 3)) - 1).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        # ASKED
    os.makedirs("out", exist_ok=True)
    torch.save({"model": model.state_dict(), "epoch": epoch}, "out/state.pt")
    assert torch.load("out/state.pt")["epoch"] == epoch
    print("epoch", epoch, loss.item())
"""


def ask(nursery: Nursery, store: Path, script: Path, code: int = 0) -> list[dict[str, object]]:
    """The values of a question about one step."""
    where = ("--where", "epoch == 3 and step == 2", "--format", "json")
    nursery.run(store, "florlog", "replay", script, *where, code=code)
    output = (nursery.directory / "output.txt").read_text()
    return next(
        (list(json.loads(line)["values"]) for line in output.splitlines() if line.startswith("{")), []
    )


@pytest.mark.parametrize("look", LOOKS)
def test_a_look_at_what_the_run_itself_has_made_is_answered_as_when_it_began(
    look: str, nursery: Nursery, tmp_path: Path
) -> None:
    folder = tmp_path / "program"
    folder.mkdir()
    script, store = folder / "train.py", folder / ".florlog"
    text = PROGRAM.replace("LOOK", LOOKS[look])
    script.write_text(text)
    nursery.run(store, "florlog", "record", script)
    script.write_text(text.replace("# ASKED", "print('grad', model.weight.grad.sum().item())"))
    values = ask(nursery, store, script)
    truth = tmp_path / "truth"
    truth.mkdir()
    nursery.run(truth / ".florlog", "florlog", "record", script)
    place = (("epoch", 3), ("step", 2))
    expected = next(v for v in logged(truth / ".florlog") if v.name == "grad" and v.path == place)
    assert [(v["path"], v["trust"]) for v in values] == [(dict(place), "PROVEN")]
    assert encode_value(values[0]["value"]) == expected.bits


def test_only_what_was_made_while_the_run_was_recorded_is_not_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("florlog.following.files_made.ENDING_SECONDS", 0.1)
    if made_at(str(tmp_path)) < 0:
        pytest.skip("the file system does not say when a file was made")
    (tmp_path / "before.txt").write_text("")
    (tmp_path / "written.txt").write_text("")
    script = tmp_path / "train.py"
    script.write_text(
        "import os\nimport florlog\nwith florlog.run('made') as run:\n    for step in run.loop('step', range(2)):\n"
        "        os.makedirs('made/deep', exist_ok=True)\n        open('made/deep/x.txt', 'w').close()\n"
        "        open('y.txt', 'w').close()\n        open('module.py', 'w').close()\n"
        "        open('written.txt', 'a').write('more')\n        os.makedirs('.hidden', exist_ok=True)\n"
    )
    store = tmp_path / "store"
    python(store, script)
    time.sleep(0.5)
    (tmp_path / "after.txt").write_text("")
    with RunLog.open(run_directory(store)) as log:
        made = files_made(log, tree_of(log), [str(tmp_path)])
    assert {str(Path(path).relative_to(tmp_path)) for path in made} == {"made", "y.txt"}
