"""Values of a clock in unmodified scripts: recorded, never PROVEN, and no reason to leave out anything else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import florlog

from .harness import flor, replay, shared_nursery

SCRIPT = """
import os
import time
from datetime import datetime

import torch


class Trainer:
    def __init__(self, name):
        self.name, self.model = name, torch.nn.Linear(4, 1)
        self.began = time.monotonic()


torch.manual_seed(0)
run_name = f"exp_{int(time.time() * 1000)}"
stamp = datetime.now().strftime("%Y%m%d-%H%M%S-%f")
os.makedirs(os.path.join("out", run_name))
trainer = Trainer(run_name)
model = trainer.model
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for epoch in range(3):
    begun = time.perf_counter()
    for step in range(8):
        loss = model(torch.randn(8, 4)).pow(2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    took = time.perf_counter() - begun
    print(f"epoch {epoch} loss {loss.item():.6f} took {took:.3f} s of {time.monotonic() - trainer.began:.1f} s")
    torch.save(model.state_dict(), f"out/{run_name}/{epoch}.pt")
    # ADD
"""


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = tmp_path_factory.mktemp("clocks") / "store"
    script = store.parent / "train.py"
    script.write_text(SCRIPT)
    shared_nursery().run(store, "florlog", "record", script, dense=True)
    return store


def asked(store: Path, added: str) -> dict[str, set[str]]:
    """The labels of each value that an added line logs."""
    script = store.parent / "train.py"
    script.write_text(SCRIPT.replace("# ADD", added))
    found: dict[str, set[str]] = {}
    answer: dict[str, Any] = replay(store, script)
    for value in answer["values"]:
        found.setdefault(value["name"], set()).add(value["trust"])
    return found


def test_all_values_of_a_statement_are_recorded(recorded: Path) -> None:
    with florlog.open(recorded) as log:
        run = log.run()
        assert [len(run.values(name)) for name in ("epoch", "loss", "took")] == [3, 3, 3]


def test_in_one_statement_only_what_comes_from_the_clock_loses_its_label(recorded: Path) -> None:
    found = asked(
        recorded,
        'print("norm", model.weight.norm(), "now", time.perf_counter() - begun, "name", run_name, "bias",\n'
        '        trainer.model.bias.norm(), "when", stamp, "half", took / 2, "same", loss.item())',
    )
    assert found == {
        "norm": {"PROVEN"}, "bias": {"PROVEN"}, "same": {"PROVEN"},
        "now": {"CONSISTENT"}, "name": {"CONSISTENT"}, "when": {"CONSISTENT"}, "half": {"CONSISTENT"},
    }  # fmt: skip


def test_a_name_that_added_code_binds_to_the_time_is_followed_to_the_value(recorded: Path) -> None:
    found = asked(
        recorded, 'now = time.time(); later = now + 1\n    print("later", later, "norm", model.weight.norm())'
    )
    assert found == {"later": {"CONSISTENT"}, "norm": {"PROVEN"}}


def test_recorded_values_of_a_clock_are_no_difference(recorded: Path) -> None:
    (recorded.parent / "train.py").write_text(SCRIPT)
    done = flor(recorded, "audit")
    assert "the whole state was equal" in done.stderr


NAMED = """
import os, time, uuid
import torch, florlog
torch.manual_seed(0)
weight = torch.zeros(3)
with florlog.run(f"exp_{NAME}", overhead=float("inf")) as run:
    run.track(weight=weight)
    for epoch in run.loop("epoch", range(4)):
        weight += torch.randn(3)
        run.log(total=weight.sum().item())
        if epoch == 2 and os.path.exists("kill"):
            time.sleep(0.5)
            os.kill(os.getpid(), 9)
"""


@pytest.mark.parametrize(
    "name", ["time.time_ns()", "time.strftime('%Y-%m-%d_%H-%M-%S')", "uuid.uuid4().hex[:8]"]
)
def test_a_run_named_by_a_clock_is_resumed_and_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    nursery, script, store = shared_nursery(), tmp_path / "train.py", tmp_path / "store"
    script.write_text(NAMED.replace("NAME", name))
    (tmp_path / "kill").touch()
    nursery.run(store, script, code=-9)
    (tmp_path / "kill").unlink()
    nursery.run(store, "florlog", "resume", script)
    script.write_text(script.read_text().replace("run.log(", "run.log(most=weight.max().item()); run.log("))
    answer = replay(store, script, "--where", "epoch == 3")
    nursery.run(tmp_path / "full", script)
    with florlog.open(store) as log, florlog.open(tmp_path / "full") as full:
        assert len(log.runs) == 1
        assert log.values("total")["total"].tolist() == full.values("total")["total"].tolist()
        assert answer["values"][0]["value"] == full.values("most")["most"][3]
