"""A replay leaves no trace but its values: no file of the script's is touched, and a killed one says nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

import florlog

from .harness import Nursery, flor
from .programs import write

WRITING = """
import csv
import json
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
import torch

import florlog

here = Path(__file__).parent / "out"
(here / "checkpoints").mkdir(parents=True, exist_ok=True)
torch.manual_seed(5)
w = torch.zeros(3)
with florlog.run("writing") as run:
    run.track(w=w)
    with open(here / "steps.csv", "w", newline="") as file:
        csv.writer(file).writerow(["epoch", "sum"])
    for epoch in run.loop("epoch", range(4)):
        for step in run.loop("step", range(3)):
            w += torch.randn(3)
            run.log(total=w.sum())
            # ADD
        torch.save({"w": w, "pid": os.getpid()}, here / "checkpoints" / f"{epoch}.pt")
        torch.save(w, str(here / "last.pt.new"))
        os.replace(here / "last.pt.new", here / "last.pt")
        assert torch.equal(torch.load(here / "last.pt"), w)
        with open(here / "steps.csv", "a", newline="") as file:
            csv.writer(file).writerow([epoch, os.getpid()])
        assert f"{epoch},{os.getpid()}" in (here / "steps.csv").read_text()
        (here / "plot.png").write_bytes(b"\\x89PNG" + os.urandom(64))
        np.save(here / f"{epoch}.npy", w.numpy() * os.getpid())
        assert (np.load(here / f"{epoch}.npy") == w.numpy() * os.getpid()).all()
        shutil.copy(here / f"{epoch}.npy", here / "newest.npy")
        if epoch > 0:
            (here / "checkpoints" / f"{epoch - 1}.pt").unlink(missing_ok=True)
            assert not (here / "checkpoints" / f"{epoch - 1}.pt").exists()
        assert f"{epoch}.pt" in os.listdir(here / "checkpoints")
        assert any(path.name == f"{epoch}.pt" for path in (here / "checkpoints").glob("*.pt"))
        with tempfile.TemporaryDirectory(dir=here) as scratch:
            Path(scratch, "deep").mkdir()
            Path(scratch, "deep", "x.json").write_text(json.dumps([epoch]))
            shutil.rmtree(Path(scratch, "deep"))
            assert not Path(scratch, "deep").exists()
        run.log(end=w[0])
        # AFTER
"""


def files(directory: Path) -> dict[str, tuple[bytes, int]]:
    """Content and time of change of everything below a directory."""
    return {
        str(path): (path.read_bytes() if path.is_file() else b"", path.stat().st_mtime_ns)
        for path in sorted(directory.rglob("*"))
    }


@pytest.mark.wheel
def test_a_replay_leaves_every_file_of_the_script_as_it_was(nursery: Nursery, tmp_path: Path) -> None:
    script, store = write(tmp_path / "train.py", WRITING), tmp_path / "store"
    nursery.run(store, script)
    before = files(tmp_path / "out")
    assert {"steps.csv", "plot.png", "last.pt", "3.npy", "newest.npy"} <= {Path(name).name for name in before}
    write(script, WRITING.replace("# ADD", "run.log(added=w.sum())").replace("# AFTER", "run.log(z=w[0])"))
    nursery.run(store, "florlog", "replay", script)
    assert files(tmp_path / "out") == before
    with florlog.open(store) as log:
        values = log.values("added", "total", "z", "end").dropna(subset=["added"])
        assert values["added"].tolist() == values["total"].tolist()
        assert set(values["trust"]) <= {"PROVEN", "CONSISTENT"}  # a temporary directory's name differs


def test_a_resume_writes_the_files_of_the_script(nursery: Nursery, tmp_path: Path) -> None:
    die = "if epoch == 1 and not (here.parent / 'go').exists(): os.kill(os.getpid(), 9)"
    script, store = write(tmp_path / "train.py", WRITING.replace("# AFTER", die)), tmp_path / "store"
    killed, _ = nursery.run(store, script)
    assert killed
    (tmp_path / "go").touch()
    nursery.run(store, "florlog", "resume", script)
    assert (tmp_path / "out" / "3.npy").exists()
    assert (tmp_path / "out" / "steps.csv").read_text().splitlines()[-1].startswith("3,")


DYING = """
import os
import signal

from florlog_wal import Hindsight, RunLog

append = RunLog.append
os.environ["LEFT"] = "{left}"


def dying(self, record, **place):
    os.environ["LEFT"] = str(int(os.environ["LEFT"]) - 1)
    if os.environ["LEFT"] == "0":
        os.kill(os.getpid(), signal.SIGKILL)
    return append(self, record, **place)


RunLog.append = dying
"""


@pytest.mark.crash
def test_a_replay_killed_before_any_of_its_records_leaves_all_of_its_values_or_none(
    nursery: Nursery, tmp_path: Path
) -> None:
    script, store = write(tmp_path / "train.py", WRITING), tmp_path / "store"
    nursery.run(store, script)
    seen = []
    for left in range(1, 22):  # a session of 18 records: RunBegin, a statement, 12 values, notes, RunEnd
        added = WRITING.replace("# ADD", f"run.log(added=w.sum(), at={left})")
        write(script, added)
        # The module that kills is the script's own, imported by what was added: only a replay runs it.
        write(tmp_path / f"dying{left}.py", DYING.replace("{left}", str(left)))
        write(script, added.replace("import csv", f"import csv\nimport dying{left}", 1))
        killed, _ = nursery.run(store, "florlog", "replay", script)
        with florlog.open(store) as log:
            seen.append((killed, [v.value for v in log.run().logged() if v.name == "at"]))
    assert any(killed for killed, _ in seen)
    before: list[int] = []
    for left, (killed, values) in enumerate(seen, start=1):
        assert values == (before if killed else [left] * 12)
        before = values
    assert before
    assert flor(store, "verify").returncode == 0
