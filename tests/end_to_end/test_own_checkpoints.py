"""A killed script that goes on from its own checkpoint, where there is one, is resumed as if there were none."""

from __future__ import annotations

import random
import shutil
import textwrap
import time
from pathlib import Path

import pytest
import torch
from florlog_wal import RunLog

import florlog
from florlog.following.files_made import files_made, files_of_loops
from florlog.program.stores import tree_of
from tests.run_directories import run_directory

from .harness import Nursery, logged, python
from .test_resume import committed, has_run

pytestmark = pytest.mark.drawn_in_file(4)

LOOKS = {
    "exists": "if os.path.exists(CKPT):\n    load(CKPT)",
    "isfile": "if os.path.isfile(CKPT):\n    load(CKPT)",
    "stat": "try:\n    if os.stat(CKPT).st_size:\n        load(CKPT)\nexcept OSError:\n    pass",
    "access": "if os.access(CKPT, os.R_OK):\n    load(CKPT)",
    "opened": "try:\n    with open(CKPT, 'rb'):\n        pass\n    load(CKPT)\nexcept FileNotFoundError as e:\n"
    "    print('fresh', e)",
    "listed": "if os.path.basename(CKPT) in os.listdir(os.path.dirname(CKPT) or '.'):\n    load(CKPT)",
    "scanned": "if any(e.name in CKPT and e.is_file() for e in os.scandir(os.path.dirname(CKPT) or '.')\n"
    "       if e.name.startswith('state')):\n    load(CKPT)",
    "glob": "for found in glob.glob(CKPT[:-3] + '*'):\n    load(CKPT)",
    "path": "if Path(CKPT).exists():\n    load(Path(CKPT))",
    "pathglob": "for found in sorted(Path('.').rglob('state*')):\n    load(found)",
    "tried": "try:\n    load(CKPT)\nexcept Exception:\n    print('fresh')",
    "created": "if not os.path.exists(CKPT):\n    write(-1)\nload(CKPT)",
}
SAVES = {
    "torch": (
        "state.pt",
        "torch.save(full(epoch), CKPT)",
        "put(torch.load(path))",
    ),
    "replaced": (
        "state.pt",
        "torch.save(full(epoch), CKPT + '.new')\n    os.replace(CKPT + '.new', CKPT)",
        "put(torch.load(path))",
    ),
    "json": (
        "state.js",
        "with open(CKPT, 'w') as file:\n        json.dump(flat(epoch), file)",
        "with open(path) as file:\n        put(wide(json.load(file)))",
    ),
    "numpy": (
        "state.np",
        "with open(CKPT, 'wb') as file:\n        np.save(file, np.array(flat(epoch)))",
        "put(wide(np.load(path).tolist()))",
    ),
}
DIRECTORIES = {
    "here": ("", "os.makedirs(os.path.dirname(CKPT) or '.', exist_ok=True)"),
    "first": ("out/", "os.makedirs('out')"),
    "late": ("out/deep/", ""),
    "again": ("out/", "shutil.rmtree('out', ignore_errors=True)\nos.mkdir('out')"),
}
PROGRAM = """
import glob, json, os, shutil
from os import listdir
from pathlib import Path
import numpy as np
import torch
from torch import nn
IMPORTS

CKPT = "WHERE"
torch.manual_seed(0)
first = 0
model = nn.Linear(3, 1)
optimizer = torch.optim.SGD(model.parameters(), 0.1)
x = torch.randn(64, 3)


def full(epoch):
    return {"model": model.state_dict(), "epoch": epoch}


def flat(epoch):
    return [epoch] + [v for p in model.parameters() for v in p.detach().flatten().tolist()]


def wide(values):
    state = {"weight": torch.tensor([values[1:4]]), "bias": torch.tensor(values[4:5])}
    return {"model": state, "epoch": int(values[0])}


def put(state):
    global first
    model.load_state_dict(state["model"])
    first = state["epoch"] + 1


def load(path):
    READ


def write(epoch):
    os.makedirs(os.path.dirname(CKPT) or ".", exist_ok=True)
    WRITE


"""
BODY = """
DIRECTORY
with open("rows.csv", "w") as rows:
    rows.write("epoch,total\\n")
with open("best.json", "w") as best:
    json.dump(1e9, best)
if not os.path.exists("cache.pt"):
    torch.save(torch.randn(64, 3), "cache.pt")
x = x + torch.load("cache.pt")
LOOK
for epoch in EPOCHS:
    total = 0.0
    for step in STEPS:
        loss = (model(x + torch.randn(64, 3)) - 1).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += loss.item()
    write(epoch)
    if total < json.loads(Path("best.json").read_text()):
        Path("best.json").write_text(json.dumps(total))
    SAY
with open("end.json", "w") as end:
    json.dump(flat(epoch) + [len(listdir("."))], end)
"""


def program(look: str, save: str, directory: str, form: str) -> str:
    """A script whose set-up looks for its checkpoint; ``form``: who opens its run."""
    name, writing, reading = SAVES[save]
    folder, made = DIRECTORIES[directory]
    body = BODY.replace("DIRECTORY", made).replace("LOOK", LOOKS[look])
    opening, loops, say = "", ("range(first, 6)", "range(40)"), "print('epoch', epoch, total)"
    if form != "hands-free":
        resume = "auto" if form == "auto" else "never"
        opening = f"with florlog.run('own', resume={resume!r}) as run:\n"
        loops = 'run.loop("epoch", range(first, 6))', 'run.loop("step", range(40))'
        say = "run.log(total=total)"
        body = textwrap.indent(body, "    ")
    text = PROGRAM.replace("WRITE", writing).replace("READ", reading).replace("WHERE", folder + name)
    text = text.replace("IMPORTS", "" if form == "hands-free" else "import florlog")
    return text + opening + body.replace("EPOCHS", loops[0]).replace("STEPS", loops[1]).replace("SAY", say)


def left(folder: Path) -> dict[str, bytes]:
    """What a script's directory has when it has ended."""
    files = (path for path in folder.rglob("*") if path.is_file() and ".florlog" not in path.parts)
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.mark.crash
@pytest.mark.parametrize("look", LOOKS)
@pytest.mark.parametrize("form", ["hands-free", "own", "auto"])
def test_a_killed_script_does_not_see_its_own_checkpoint(
    look: str, form: str, nursery: Nursery, tmp_path: Path
) -> None:
    save = random.choice(list(SAVES))
    there = look not in ("listed", "scanned")  # which need the directory
    directory = random.choice([name for name in DIRECTORIES if there or name != "late"])
    print(save, directory)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for folder in (whole, killed):
        folder.mkdir()
        (folder / "train.py").write_text(program(look, save, directory, form))
    record = ("florlog", "record") if form == "hands-free" else ()
    resume = () if form == "auto" else ("florlog", "resume")
    _, seconds = nursery.run(whole / ".florlog", *record, whole / "train.py")
    script, store = killed / "train.py", killed / ".florlog"
    command, kills = record, 0
    while True:
        kill = random.uniform(0.2, 1) * seconds if kills < 3 else None
        was_killed, _ = nursery.run(store, *command, script, kill=kill)
        if not was_killed:
            break
        kills += 1
        if has_run(store) and committed(store)[1]:
            break
        if not has_run(store):  # it was killed before florlog could know of it
            shutil.rmtree(killed)
            killed.mkdir()
            script.write_text(program(look, save, directory, form))
        command = resume if has_run(store) else record
    assert left(killed) == left(whole)
    assert logged(store) == logged(whole / ".florlog")
    with florlog.open(store) as log:
        assert len(log.runs) == 1


DYING = """
import json, os, time
import torch
from torch import nn

torch.manual_seed(0)
model, x, first = nn.Linear(3, 1), torch.randn(8, 3), 0
optimizer = torch.optim.SGD(model.parameters(), 0.1)
LOOK
for epoch in range(first, 6):
    for step in range(5):
        loss = (model(x + torch.randn(8, 3)) - 1).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    SAVE
    if epoch == 3 and "DIE" in os.environ:
        time.sleep(0.5)
        os.kill(os.getpid(), 9)
    print("epoch", epoch, loss.item())
torch.save(model.state_dict(), "end.pt")
"""
GOES_ON = (
    "if os.path.exists('state.pt'):\n    state = torch.load('state.pt')\n    model.load_state_dict(state['model'])\n"
    "    first = state['epoch'] + 1"
)
KEEPS = "torch.save({'model': model.state_dict(), 'epoch': epoch}, 'state.pt')"
SEEING = """
import sys
from florlog.commands import main
from florlog.following.hidden_files import HiddenFiles

hide = HiddenFiles.__init__
HiddenFiles.__init__ = lambda self, made: hide(self, ())
sys.exit(main(sys.argv[1:]))
"""


def died(folder: Path, look: str, save: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The script of a run that was killed in its fourth epoch."""
    script = folder / "train.py"
    script.write_text(DYING.replace("LOOK", look).replace("SAVE", save))
    monkeypatch.setenv("DIE", "1")
    python(folder / ".florlog", "-m", "florlog", "record", script, check=False)
    monkeypatch.delenv("DIE")
    assert not (folder / "end.pt").exists()
    return script


def test_where_own_checkpoints_are_seen_such_a_resume_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = died(tmp_path, GOES_ON, KEEPS, monkeypatch)
    seeing = python(tmp_path / ".florlog", "-c", SEEING, "resume", script, check=False)
    assert seeing.returncode == 2
    assert "loop 'epoch' had 6 items when recorded and has 2 now" in seeing.stderr
    done = python(tmp_path / ".florlog", "-m", "florlog", "resume", script)
    assert "all equal to the recording" in done.stderr
    assert (tmp_path / "end.pt").exists()


def test_a_checkpoint_that_the_run_has_changed_and_not_made_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = {"weight": torch.zeros(1, 3), "bias": torch.zeros(1)}
    torch.save({"model": state, "epoch": -1}, tmp_path / "state.pt")
    (tmp_path / "untouched.txt").write_text("")
    script = died(tmp_path, GOES_ON, KEEPS, monkeypatch)
    refused = python(tmp_path / ".florlog", "-m", "florlog", "resume", script, check=False)
    assert refused.returncode == 2
    assert (
        f"{tmp_path / 'state.pt'} was there before the run began and has been written since" in refused.stderr
    )


def test_what_was_there_before_or_came_after_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data.json").write_text("[1]")
    look = "data = json.load(open('data.json'))"
    monkeypatch.setattr("florlog.following.files_made.ENDING_SECONDS", 0.1)
    script = died(tmp_path, look, "pass", monkeypatch)
    time.sleep(1)
    (tmp_path / "later.txt").write_text("")
    with RunLog.open(run_directory(tmp_path / ".florlog")) as log:
        made = files_made(log, tree_of(log), [str(tmp_path)])
    assert str(tmp_path / "later.txt") not in made
    python(tmp_path / ".florlog", "-m", "florlog", "resume", script)
    assert (tmp_path / "end.pt").exists()


def test_rows_that_a_file_has_are_not_lost_where_the_set_up_writes_its_head_if_it_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    look = "if not os.path.exists('rows.csv'):\n    with open('rows.csv', 'w') as rows:\n        rows.write('head\\n')"
    row = "with open('rows.csv', 'a') as rows:\n        rows.write(f'{epoch}\\n')"
    script = died(tmp_path, look, row, monkeypatch)
    python(tmp_path / ".florlog", "-m", "florlog", "resume", script)
    rows = (tmp_path / "rows.csv").read_text().split()
    assert list(dict.fromkeys(rows)) == ["head", *sorted(set(rows) - {"head"})]
    assert set(rows) == {"head", *"012345"}


def test_a_resume_that_restores_sees_what_the_set_up_made_and_not_what_was_written_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    look = (
        "os.makedirs('cache/deep')\nos.makedirs('out')\ntorch.save(x, 'cache/deep/x.pt')\n"
        "torch.save(x, 'state.pt')\ntime.sleep(0.3)"
    )
    died(tmp_path, look, f"{KEEPS}\n    torch.save(x, f'out/{{epoch}}.pt')", monkeypatch)
    with RunLog.open(run_directory(tmp_path / ".florlog")) as log:
        tree = tree_of(log)
        all_made, later = (find(log, tree, [str(tmp_path)]) for find in (files_made, files_of_loops))
    assert {str(Path(path).relative_to(tmp_path)) for path in all_made} == {"cache", "out", "state.pt"}
    assert {str(Path(path).relative_to(tmp_path)) for path in later} == {"out", "state.pt"}
