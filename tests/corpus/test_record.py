"""``florlog record`` runs a script as ``python`` does, and says what it did."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import florlog
from tests.end_to_end.harness import Nursery, environment, flor

from .test_corpus import placed

pytestmark = pytest.mark.drawn_in_file(4)

SCRIPT = """\
import os
import sys

import helper


def fail(step):
    if step == 3:
        raise ValueError("no more")


if __name__ == "__main__":
    print(sys.argv[1:], os.getcwd(), __file__, sys.path[0], __name__, helper.WHO, __package__)
    for step in range(5):
        print("step", step)
        if sys.argv[1] == "fail":
            fail(step)
    sys.exit(int(sys.argv[2]))
"""


@pytest.fixture
def program(tmp_path: Path) -> Path:
    directory = tmp_path / "somewhere"
    directory.mkdir()
    (directory / "train.py").write_text(SCRIPT)
    (directory / "helper.py").write_text("WHO = __name__\n")
    return directory / "train.py"


def both(
    program: Path, *arguments: str, module: bool = False
) -> tuple[subprocess.CompletedProcess[str], ...]:
    """The script under python, and recorded."""
    store = program.parent.parent / "store"
    target = ["-m", program.stem] if module else [str(program)]
    cwd = program.parent if module else program.parent.parent
    return tuple(
        subprocess.run(
            [sys.executable, "-B", *command, *target, *arguments],
            env=environment(store), cwd=cwd, capture_output=True, text=True, check=False,
        )
        for command in ([], ["-m", "florlog", "record"])
    )  # fmt: skip


def theirs(stderr: str) -> str:
    """What is not florlog's own on stderr."""
    return "".join(line for line in stderr.splitlines(keepends=True) if not line.startswith("florlog: "))


@pytest.mark.parametrize("module", [False, True])
@pytest.mark.parametrize("arguments", [("well", "0"), ("well", "7"), ("fail", "0")])
def test_output_exit_code_and_traceback_are_those_of_python(
    program: Path, arguments: tuple[str, ...], module: bool
) -> None:
    before = sorted(program.parent.rglob("*"))
    plain, recorded = both(program, *arguments, module=module)
    assert recorded.stdout == plain.stdout
    assert recorded.returncode == plain.returncode
    if module:  # python -m shows runpy's frames too
        assert theirs(recorded.stderr).splitlines()[-1:] == plain.stderr.splitlines()[-1:]
    else:
        assert theirs(recorded.stderr) == plain.stderr
    assert sorted(program.parent.rglob("*")) == before
    with florlog.open(program.parent.parent / "store") as log:
        steps = [v.value for v in log.run().logged() if v.name == "step"]
    assert steps == list(range(3 if arguments[0] == "fail" else 5))  # the pass that failed is undone


def test_changed_code_is_named_and_nothing_is_replayed(nursery: Nursery, tmp_path: Path) -> None:
    script, store = placed("module_level.py", tmp_path / "a"), tmp_path / "store" / "s"
    store.parent.mkdir()
    nursery.run(store, "florlog", "record", script)
    script.write_text(script.read_text().replace("lr=0.1", "lr=0.2").replace("# ADD ", ""))
    nursery.run(store, "florlog", "replay", script, code=2)
    output = (nursery.directory / "output.txt").read_text()
    assert "train.py, line 9: `opt = torch.optim.SGD(model.parameters(), lr=0.1" in output


def test_an_added_print_that_draws_random_numbers_draws_copies(nursery: Nursery, tmp_path: Path) -> None:
    script, store = placed("module_level.py", tmp_path / "a"), tmp_path / "store" / "s"
    store.parent.mkdir()
    nursery.run(store, "florlog", "record", script)
    script.write_text(script.read_text().replace('# ADD print("grad", ', 'print("grad", torch.rand(1) + '))
    nursery.run(store, "florlog", "replay", script)
    output = (nursery.directory / "output.txt").read_text()
    assert "added code draws random numbers (train.py:" in output
    assert "DIVERGED" not in output


TELLING = """\
import torch

torch.manual_seed(0)
x = torch.randn(32, 4)
w = torch.zeros(4, requires_grad=True)
optimizer = torch.optim.SGD([w], lr=0.1)
for epoch in range(3):
    for step in range(4):
        loss = (x[step::4] @ w - x[step::4].sum(1)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_([w], 1.0)
        optimizer.step()
    print(f"epoch {epoch} loss {loss.item():.3f}")
"""


def test_a_recorded_print_may_tell_more_and_a_recorded_value_may_get_a_name(
    nursery: Nursery, tmp_path: Path
) -> None:
    script, store = tmp_path / "train.py", tmp_path / "store"
    script.write_text(TELLING)
    nursery.run(store, "florlog", "record", script)
    text = TELLING.replace("        torch.nn.utils.clip", "        norm = torch.nn.utils.clip")
    text = text.replace(
        'loss {loss.item():.3f}")', '{loss.item()}, weight {w.sum():.2f}, norm", norm.item())'
    )
    script.write_text(text)
    nursery.run(store, "florlog", "replay", script)
    truth = tmp_path / "truth"
    nursery.run(truth, "florlog", "record", script)
    with florlog.open(store) as found, florlog.open(truth) as expected:
        values = found.values("loss", "w", "norm")
        assert set(values["trust"]) == {"PROVEN"}
        for name in ("loss", "w", "norm"):
            assert values[name].tolist() == expected.values("loss", "w", "norm")[name].tolist()


def test_a_record_of_nothing_is_refused(tmp_path: Path) -> None:
    done = flor(tmp_path / "store", "record", "nowhere.py", check=False)
    assert done.returncode == 2
    assert "there is no script" in done.stderr
    assert not (tmp_path / "store").exists()


TOLD = """\
import logging

from tqdm import tqdm

from .part import double

log = logging.getLogger("train")
for epoch in range(2):
    bar = tqdm(range(3))
    for step in bar:
        loss = double(step)
        # ADD
        bar.set_postfix(loss=loss, best=min(loss, 1))
        bar.set_description(f"step {step}")
    log.warning("epoch %d ended at %.1f", epoch, loss)
    print(f"sum: {epoch + loss}")
"""


def test_a_script_that_opens_a_run_itself_is_told_so(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text("import florlog\nwith florlog.run('mine') as run:\n    pass\n")
    done = flor(tmp_path / "store", "record", str(script), check=False)
    assert done.returncode != 0
    assert "the program opens run 'mine' itself" in done.stderr


def test_print_logging_and_progress_bars_of_a_module_are_statements(nursery: Nursery, tmp_path: Path) -> None:
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "part.py").write_text("def double(x):\n    return 2 * x\n")
    (package / "train.py").write_text(TOLD)
    store = tmp_path / "store"
    nursery.run(store, "florlog", "record", "-m", "package.train")
    with florlog.open(store) as log:
        told = {(v.name, v.path): v.value for v in log.run().logged()}
    for epoch in range(2):
        assert told["sum", (("epoch", epoch),)] == epoch + 4
        assert told["loss", (("epoch", epoch),)] == 4
        for step in range(3):
            path = (("epoch", epoch), ("step", step))
            assert [told[name, path] for name in ("loss", "best", "step")] == [
                2 * step,
                min(2 * step, 1),
                step,
            ]
    (package / "train.py").write_text(TOLD.replace("# ADD", "bar.set_postfix(half=loss / 4)"))
    nursery.run(store, "florlog", "replay", package / "train.py", "--format", "json")
    answer = (nursery.directory / "output.txt").read_text()
    assert answer.count('"name": "half"') == 6


def test_a_statement_whose_changes_cannot_be_known_is_named_at_the_start(
    nursery: Nursery, tmp_path: Path
) -> None:
    script = tmp_path / "train.py"
    script.write_text(
        "def train(callback, seen):\n    for step in range(3):\n        callback(seen)\n"
        "        print(step, len(seen))\n\ntrain(lambda seen: seen.append(1), [])\n"
    )
    nursery.run(tmp_path / "store", "florlog", "record", script)
    said = (nursery.directory / "output.txt").read_text()
    assert "florlog: not understood: train.py:3 what `callback(seen)` changes\n" in said
