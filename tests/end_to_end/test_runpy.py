"""A script that runpy starts by a relative path is asked as any other; its code then has that path as its file."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from .harness import environment, replay

TRAINING = """
import torch, florlog

torch.manual_seed(0)
model = torch.nn.Linear(8, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
with florlog.run("relative") as run:
    run.track(model=model, optimizer=optimizer)
    for step in run.loop("step", range(6)):
        loss = model(torch.randn(4, 8)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        run.log(loss=loss)
        # ADD
"""


def test_a_script_with_a_relative_path_is_proven(tmp_path: Path) -> None:
    script, store = tmp_path / "sub" / "train.py", tmp_path / "store"
    script.parent.mkdir()
    script.write_text(TRAINING)
    start = "import runpy; runpy.run_path('sub/train.py', run_name='__main__')"
    subprocess.run(
        [sys.executable, "-c", start], cwd=tmp_path, env=environment(store), check=True, timeout=120
    )
    script.write_text(TRAINING.replace("# ADD", "run.log(norm=model.weight.norm())"))
    answer = replay(store, script)
    assert [value["trust"] for value in answer["values"]] == ["PROVEN"] * 6
