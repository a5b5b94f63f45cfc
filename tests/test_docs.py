"""The documentation points at things that exist, and its Python does what it says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted(
    page
    for page in ROOT.rglob("*.md")
    if not any(part.startswith(".") for part in page.relative_to(ROOT).parts)
)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
PYTHON = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)

# What the README leaves to the reader's imagination, in the smallest size that lets its lines run.
IMAGINED = """
import torch
from torch import nn

def build():
    torch.manual_seed(0)
    model = nn.Linear(4, 2)
    optimizer = torch.optim.Adam(model.parameters())
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1000)
    data = torch.utils.data.TensorDataset(torch.randn(36, 4), torch.randn(36, 2))
    return model, optimizer, scheduler, torch.utils.data.DataLoader(data, 2, shuffle=True)

def train_step(model, optimizer, x, y):
    loss = nn.functional.mse_loss(model(x), y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss

def evaluate(model):
    return float(model.weight.sum())
"""


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_link_inside_the_repository_leads_somewhere(page: Path) -> None:
    links = [link.partition("#")[0] for link in LINK.findall(page.read_text(encoding="utf-8"))]
    inside = [link for link in links if link and "://" not in link]
    assert [link for link in inside if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_python_block_parses(page: Path) -> None:
    for block in PYTHON.findall(page.read_text(encoding="utf-8")):
        compile(block, name(page), "exec")


def test_the_readme_is_among_the_pages_checked() -> None:
    assert ROOT / "README.md" in PAGES


def python(folder: Path, *command: str) -> str:
    environment = {key: value for key, value in os.environ.items() if key != "FLORLOG_STORE"}
    done = subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_readme_s_lines_record_replay_and_read(tmp_path: Path) -> None:
    recording, reading = PYTHON.findall((ROOT / "README.md").read_text(encoding="utf-8"))
    # An epoch that lasts milliseconds gets no image by itself.
    recording = recording.replace("params=", "overhead=float('inf'), params=")
    script = tmp_path / "train.py"
    script.write_text(IMAGINED + recording)
    python(tmp_path, "train.py")

    added = "loss.backward()\n    florlog.log(grad_norm=model.weight.grad.norm())"
    script.write_text((IMAGINED + recording).replace("loss.backward()", added))
    python(tmp_path, "-m", "florlog", "replay", "train.py", "--where", "epoch == 7")

    (tmp_path / "read.py").write_text(
        f"{reading}\n"
        "frame = run.values('loss', 'accuracy', 'grad_norm')\n"
        "print(len(frame), frame['grad_norm'].notna().sum(), set(run.state_at(epoch=3)))\n"
    )
    rows, norms, state = python(tmp_path, "read.py").split(maxsplit=2)
    assert (int(rows), int(norms)) == (20 * 18 + 20, 18)
    assert "'model'" in state
