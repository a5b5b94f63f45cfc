"""Names that hold something before a loop, and that each iteration binds anew before it reads them.

Images between two iterations lack them, those of loops inside have them.  What they hold after a restore is of another
state, which is neither compared, nor taken, nor read.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from florlog_wal import encode_value

from .harness import Nursery, logged

pytestmark = pytest.mark.drawn_in_file(5)

HELD = {
    "a state_dict": ("model.state_dict()", "sum(float(part.sum()) for part in held.values())"),
    "clones": ("{key: part.clone() for key, part in model.state_dict().items()}", "float(held['0.bias'].sum())"),
    "gradients": ("[p.grad for p in model.parameters()]", "sum(0 if g is None else float(g.sum()) for g in held)"),
    "parts of a storage": ("list(together(model).split(5))", "sum(float(part.sum()) for part in held)"),
    "views": ("[part.detach()[:1] for part in model.parameters()]", "sum(float(part.sum()) for part in held)"),
    "an array": ("model[0].weight.detach().numpy()", "float(held.sum())"),
    "an object": ("Holder(model.state_dict())", "float(held.part['2.weight'].sum())"),
    "a model": ("copy.deepcopy(model)", "float(held[0].weight.sum())"),
    "numbers": ("[*model[0].bias.tolist()]", "sum(held)"),
}  # fmt: skip
WHERE = {
    "in a module": ("", ""),
    "in a function": ("def main():\n", "    "),
}
PROGRAM = """\
torch.manual_seed(3)
model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
optimizer = torch.optim.AdamW(model.parameters(), lr=0.05)
held = HELD
with florlog.run("anew", overhead=float("inf"), audit=False) as run:
    run.track(model=model, optimizer=optimizer)
    for epoch in run.loop("epoch", range(4)):
        for step in run.loop("step", range(3)):
            loss = model(torch.randn(8, 4)).square().mean()
            optimizer.zero_grad()
            loss.backward()
            # ASKED
            optimizer.step()
            florlog.log(loss=loss)
            if os.path.exists("stop") and open("stop").read() == f"{epoch},{step}":
                os.kill(os.getpid(), signal.SIGKILL)
        held = HELD
        for more in run.loop("more", range(2)):
            florlog.log(value=VALUE)
"""
BEFORE = """\
import copy, os, signal

import torch
from torch import nn

import florlog


def together(model):
    return torch.cat([part.detach().flatten() for part in model.parameters()])


class Holder:
    def __init__(self, part):
        self.part, self.number = part, float(sum(map(torch.sum, part.values())))


"""


def program(held: str, where: str, asked: str = "# ASKED") -> str:
    made, value = HELD[held]
    opening, indent = WHERE[where]
    text = (
        PROGRAM.replace("HELD", made)
        .replace("VALUE", value)
        .replace("# ASKED", asked.replace("VALUE", value))
    )
    lines = "".join(indent + line for line in text.splitlines(keepends=True))
    return BEFORE + opening + lines + ("\n\nmain()\n" if opening else "")


def answers(nursery: Nursery, store: Path, script: Path, where: str) -> dict[str, Any]:
    nursery.run(store, "florlog", "replay", script, "--format", "json", "--where", where, code=None)
    output = (nursery.directory / "output.txt").read_text()
    answer: dict[str, Any] = json.loads(next(line for line in output.splitlines() if line.startswith("{")))
    return answer


@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize("held", HELD)
@pytest.mark.parametrize("killed", [False, True], ids=["whole", "resumed"])
@pytest.mark.parametrize("asked", ["model[0].weight.grad.norm()", "VALUE"], ids=["of others", "of itself"])
def test_a_question_is_answered_as_if_it_had_been_there(
    nursery: Nursery, tmp_path: Path, held: str, where: str, asked: str, *, killed: bool
) -> None:
    script, store = tmp_path / "train.py", tmp_path / "store"
    script.write_text(program(held, where))
    if killed:
        for stop in ("1,0", "2,1"):
            (tmp_path / "stop").write_text(stop)
            assert nursery.run(store, *(["florlog", "resume"] if stop != "1,0" else []), script)[0]
        (tmp_path / "stop").unlink()
        nursery.run(store, "florlog", "resume", script)
        said = (nursery.directory / "output.txt").read_text()
        assert "differs" not in said, said
    else:
        nursery.run(store, script)
    script.write_text(program(held, where, f"florlog.log(asked={asked})"))
    nursery.run(tmp_path / "truth", script)
    expected = {value.path: value.bits for value in logged(tmp_path / "truth", "asked")}
    for question in ("epoch == 3", "epoch == 2 and step == 2", "epoch == 1 and step > 0"):
        answer = answers(nursery, store, script, question)
        assert answer["values"]
        for value in answer["values"]:
            assert encode_value(value["value"]) == expected[tuple(value["path"].items())], question
            assert value["trust"] == "PROVEN", (question, value)


@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize("read", [False, True])
def test_what_images_do_not_have_right_is_noticed_if_it_is_read_before(
    nursery: Nursery, tmp_path: Path, where: str, *, read: bool
) -> None:
    script, store = tmp_path / "train.py", tmp_path / "store"
    script.write_text(_program_that_may_read(where, "# ASKED", read=read))
    nursery.run(store, script, forget="number")
    script.write_text(
        _program_that_may_read(where, "florlog.log(asked=model[0].weight.grad.norm())", read=read)
    )
    asked = [answers(nursery, store, script, f"epoch == {epoch} and step > 0") for epoch in (1, 2, 3)]
    # An image that was skipped, as two were being written, is one from which nothing wrong is restored.
    assert all(value["trust"] == "PROVEN" for answer in asked for value in answer["values"]) is not read


def _program_that_may_read(where: str, asked: str, *, read: bool) -> str:
    text = program("an object", where, asked)
    return text.replace("florlog.log(loss=loss)", "florlog.log(loss=loss * held.number)") if read else text
