"""Nothing that a replayed script says or leaves behind reaches the terminal or its files, however it is said."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from .harness import environment, python

pytestmark = pytest.mark.drawn_in_file(2)

pytest.importorskip("tensorboard")
pytest.importorskip("rich")

SCRIPT = """
import atexit
import ctypes
import logging
import os
import subprocess
import sys
import threading
import time
import warnings

import torch
from rich.progress import track
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm
from tqdm.auto import tqdm as automatic

torch.manual_seed(0)
logging.basicConfig(level=logging.INFO)
writer = SummaryWriter("runs", flush_secs=1)
stream = sys.stderr


@atexit.register
def at_exit():
    print("AT EXIT", file=sys.stderr)
    open("exit.txt", "a").write("exit")
    raise RuntimeError("AT EXIT")


def chatter():
    while True:
        time.sleep(0.01)
        stream.write("CHATTER\\n")
        print("CHATTER", file=sys.stderr)


def late():
    time.sleep(LATE)
    open("late.txt", "a").write("late")
    raise ValueError("LATE")


threading.Thread(target=chatter, daemon=True).start()
threading.Thread(target=late).start()
data = DataLoader(TensorDataset(torch.randn(32, 4)), batch_size=8, num_workers=1)
model = torch.nn.Linear(4, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for epoch in automatic(range(2)):
    for (x,) in tqdm(data):
        loss = model(x).pow(2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        writer.add_scalar("loss", loss, epoch)
    ctypes.CDLL(None).puts(b"FROM C")
    os.write(1, b"DESCRIPTOR 1\\n")
    os.write(2, b"DESCRIPTOR 2\\n")
    subprocess.run(["sh", "-c", "echo CHILD; echo CHILD >&2"])
    warnings.warn("WARNED")
    logging.info("LOGGED")
    sys.__stderr__.write("ORIGINAL STREAM\\n")
    for _ in track(range(2), description="RICH"):
        pass
    # ADD
    print("epoch", epoch, loss.item())
"""
SAID = (
    "CHATTER",
    "AT EXIT",
    "FROM C",
    "DESCRIPTOR",
    "CHILD",
    "WARNED",
    "LOGGED",
    "ORIGINAL",
    "RICH",
    "it/s",
    "LATE",
)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = tmp_path_factory.mktemp("quiet") / "store"
    script = store.parent / "train.py"
    script.write_text(SCRIPT.replace("LATE)", "0.5)"))
    done = subprocess.run(
        [sys.executable, "-m", "florlog", "record", script],
        env=environment(store), cwd=store.parent, capture_output=True, text=True, check=False,
    )  # fmt: skip
    said = done.stdout + done.stderr
    assert [word for word in SAID if word not in said] == []  # a recording says all that
    assert (store.parent / "exit.txt").read_text() == "exit"
    assert (store.parent / "late.txt").read_text() == "late"
    return store


def trace(directory: Path) -> dict[str, int]:
    """The files that the script has made, with their sizes."""
    made = [*directory.glob("*.txt"), *(directory / "runs").rglob("*")]
    return {str(path): path.stat().st_size for path in made}


@pytest.mark.parametrize(
    "command",
    [("replay", "train.py", "--format", "json"), ("replay", "train.py", "--workers", "2"), ("audit",)],
    ids=["replay", "workers", "audit"],
)
def test_only_florlog_speaks_and_no_file_is_touched(recorded: Path, command: tuple[str, ...]) -> None:
    script = recorded.parent / "train.py"
    number = len(list(recorded.parent.glob("asked*")))
    (recorded.parent / f"asked{number}").touch()  # another question each time: none is answered from the log
    script.write_text(
        SCRIPT.replace("LATE)", "0.5)").replace("# ADD", f'print("norm", model.weight.norm() + {number})')
    )
    before = trace(recorded.parent)
    done = python(recorded, "-m", "florlog", *command)
    lines = done.stderr.splitlines()
    assert [line for line in lines if not line.startswith(("florlog: ", "plan for", "  "))] == []
    assert [word for word in SAID if word in done.stdout + done.stderr] == []
    assert trace(recorded.parent) == before


def test_an_error_of_the_script_is_one_line_of_ours(recorded: Path) -> None:
    script = recorded.parent / "train.py"
    script.write_text(SCRIPT.replace("LATE)", "0.5)").replace("# ADD", 'print("bad", model.weights.norm())'))
    done = python(recorded, "-m", "florlog", "replay", script, check=False)
    assert done.returncode == 2
    (error,) = [line for line in done.stderr.splitlines() if line.startswith("florlog: ")]
    assert "AttributeError at train.py:" in error
    assert "Traceback" not in done.stderr
