"""What is said at the start, and loops in a package of the user's that lies elsewhere."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.end_to_end.harness import environment, logged

pytestmark = pytest.mark.drawn_in_file(1)

TRAINER = """\
import os
import torch
from .data import batches
SEEN = 0

class Trainer:
    def __init__(self, model, epochs):
        self.model, self.epochs, self.step = model, epochs, 0
        self.optimizer = torch.optim.AdamW(model.parameters())

    def fit(self, data):
        for _ in range(self.epochs):
            self.run_epoch(data)
            print("epoch ended", self.step, SEEN)

    def run_epoch(self, data):
        global SEEN
        for x in batches(data):
            loss = self.model(x).pow(2).mean()
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            self.step += 1
            SEEN += len(x)
            if self.step == 25 and os.environ.get("DIE"):
                os._exit(9)
            # ADD print("loss", loss)
"""
FILES = {
    "__init__.py": "from .trainer import Trainer\nprint('imported')\n",
    "trainer.py": TRAINER,
    "data.py": "def batches(data):\n    for rows in data.split(8):\n        yield rows\n",
    "train.py": "import torch\nfrom pkg import Trainer\ntorch.manual_seed(0)\n"
    "Trainer(torch.nn.Linear(4, 1), 4).fit(torch.randn(80, 4))\n",
}
LIBRARY = """\
class Engine:
    def __init__(self, function):
        self.function = function
    def run(self, data):
        for x in data:
            self.function(self, x)
"""
ITS_USER = """\
import torch
from catalyst.engine import Engine
model = torch.nn.Linear(4, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
def update(engine, x):
    optimizer.zero_grad()
    model(x).pow(2).mean().backward()
    optimizer.step()
print("the script starts", flush=True)
Engine(update).run([torch.randn(8, 4) for _ in range(20)])
"""


def run(store: Path, path: Path, *command: str | Path, die: bool = False) -> tuple[int, str]:
    """Run florlog with a directory on PYTHONPATH: its exit code, and what it printed."""
    variables = environment(store)
    variables["PYTHONPATH"] = os.pathsep.join([str(path), variables.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-m", "florlog", *map(str, command)], env=variables | ({"DIE": "1"} if die else {}),
        cwd=store.parent, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, timeout=300,
    )  # fmt: skip
    return done.returncode, done.stdout


def test_a_trainer_of_the_users_own_package_is_recorded_resumed_and_asked(tmp_path: Path) -> None:
    source = tmp_path / "src"
    (source / "pkg").mkdir(parents=True)
    for name, text in FILES.items():
        (source / "pkg" / name).write_text(text)
    for place in ("whole", "killed"):
        (tmp_path / place).mkdir()
    whole, killed = tmp_path / "whole" / "s", tmp_path / "killed" / "s"
    code, said = run(whole, source, "record", "-m", "pkg.train")
    assert code == 0, said
    assert "loops: epoch (trainer.py:12), x (trainer.py:18)" in said
    assert said.count("imported") == 1
    assert run(killed, source, "record", "-m", "pkg.train", die=True)[0] == 9
    script = source / "pkg" / "train.py"
    code, said = run(killed, source, "resume", script)
    assert code == 0, said
    assert logged(killed) == logged(whole)
    shutil.rmtree(tmp_path / "whole")
    (source / "pkg" / "trainer.py").write_text(TRAINER.replace("# ADD ", ""))
    code, said = run(killed, source, "replay", script, "--where", "epoch == 3 and x == 9", "--format", "json")
    (value,) = json.loads(said[said.index('{"run"') :].splitlines()[0])["values"]
    assert value["path"] == {"epoch": 3, "x": 9}
    assert value["trust"] in ("PROVEN", "CONSISTENT")


def test_without_a_loop_that_is_said_before_the_script_starts(tmp_path: Path) -> None:
    library = tmp_path / "site-packages"
    (library / "catalyst").mkdir(parents=True)
    (library / "catalyst" / "__init__.py").write_text("")
    (library / "catalyst" / "engine.py").write_text(LIBRARY)
    script = tmp_path / "train.py"
    script.write_text(ITS_USER)
    _, said = run(tmp_path / "s", library, "record", script)
    before = said[: said.index("the script starts")]
    assert "loops: none found in train.py. So there are no images: a crash starts over" in before
    assert "If catalyst runs the training loop, write `with florlog.iteration('step', NUMBER):`" in before
    assert "not understood: nothing" not in said

    # The advice is taken, and works.
    text = ITS_USER.replace("import torch\n", "import torch, florlog\nnumber = -1\n", 1)
    text = text.replace(
        "    optimizer.zero_grad()\n    model(x).pow(2).mean().backward()\n    optimizer.step()\n",
        "    global number\n    number += 1\n"
        "    with florlog.iteration('step', number):\n        optimizer.zero_grad()\n"
        "        loss = model(x).pow(2).mean()\n        loss.backward()\n        optimizer.step()\n"
        "        print('loss', loss.item())\n",
    )
    script.write_text(text)
    code, said = run(tmp_path / "s", library, "record", script)
    assert code == 0, said
    assert [value.path for value in logged(tmp_path / "s", "loss")] == [(("step", n),) for n in range(20)]


FAILS_TO_BE_CAPTURED = """\
import hashlib, os, time
import torch
model = torch.nn.Linear(4, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
digest = hashlib.sha256()
for step in range(40):
    optimizer.zero_grad()
    loss = model(torch.ones(8, 4)).pow(2).mean()
    loss.backward()
    optimizer.step()
    digest.update(b'x')
    time.sleep(0.02)
    print("loss", loss.item(), flush=True)
    if step == 20 and os.environ.get("DIE"):
        os._exit(9)
"""


def test_what_keeps_images_away_and_a_resume_that_starts_over_are_said_at_the_start(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(FAILS_TO_BE_CAPTURED)
    _, said = run(tmp_path / "s", tmp_path, "record", script, die=True)
    assert said.index("no images are taken while there is digest") < said.index("loss")
    code, said = run(tmp_path / "s", tmp_path, "resume", script)
    assert code == 0
    before = said[: said.index("loss")]
    assert "starts over: " in before
    assert "are executed again and compared; no images are taken while there is digest" in before
