"""Frameworks whose loaders have worker processes: killed in the middle of an epoch, and resumed there."""

from __future__ import annotations

import importlib
import random
from pathlib import Path

import pytest
from florlog_wal import RunLog

from florlog.program.stores import tree_of
from tests.end_to_end.harness import Nursery
from tests.frameworks.programs import ACCELERATE, LIGHTNING, TRAINER
from tests.frameworks.recorded import RECORD
from tests.run_directories import run_directory

pytestmark = pytest.mark.drawn_in_file(2)

LINES = {
    "transformers": ("        Watch.steps += 1\n", "Watch.steps"),
    "lightning": ("        self.steps += 1\n", "self.steps"),
    "accelerate": ("            history.append(loss.item())\n", "len(history)"),
}
"""A line after which the process may be killed, and how many steps there were."""
PACKAGES = {
    "transformers": ("transformers.trainer", "transformers.models.gpt2"),
    "lightning": ("lightning.pytorch",),
    "accelerate": ("accelerate",),
}


def program(framework: str, *, persistent: bool, kill: int) -> str:
    """A program whose loaders have two workers, and whose data set draws random numbers there."""
    more = f"num_workers=2, persistent_workers={persistent}"
    match framework:
        case "transformers":
            text = TRAINER.replace(
                "use_cpu=True", f"use_cpu=True, dataloader_{more.replace(', ', ', dataloader_')}"
            )
            items = "(self.items[index] + torch.randint(0, 2, ())).clamp(max=60)"
            text = text.replace('"input_ids": self.items[index]', f'"input_ids": {items}')
        case "lightning":
            text = LIGHTNING.replace('num_workers=options["workers"]', more)
        case _:
            text = ACCELERATE.replace("shuffle=True)", f"shuffle=True, {more})")
            text = text.replace("batch_size=8)", f"batch_size=8, {more})")
    line, count = LINES[framework]
    indent = line[: len(line) - len(line.lstrip())]
    dies = f'{indent}if {count} == {kill} and os.path.exists(sys.argv[1] + ".kill"):\n'
    assert text.count(line) == 1
    return text.replace(line, f"{line}{dies}{indent}    os.kill(os.getpid(), 9)\n")


@pytest.mark.crash
@pytest.mark.parametrize("persistent", [False, True])
@pytest.mark.parametrize("framework", LINES)
def test_it_goes_on_in_the_middle_of_an_epoch(
    nurseries: dict[str, Nursery],
    framework: str,
    persistent: bool,
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    pytest.importorskip(PACKAGES[framework][0])
    if framework not in nurseries:
        nurseries[framework] = Nursery(tmp_path_factory.mktemp("nursery"), *PACKAGES[framework])
    nursery = nurseries[framework]
    ended = importlib.import_module(f"tests.frameworks.test_{framework}").ended
    options = importlib.import_module("tests.frameworks.test_one_line").options_of_lightning()
    given = options if framework == "lightning" else ()
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    kill = random.Random(seed).randint(9, 13)
    script, store, out = tmp_path / "train.py", tmp_path / "store", tmp_path / "out"
    script.write_text(program(framework, persistent=persistent, kill=kill))
    nursery.run(tmp_path / "unused", script, tmp_path / "plain", *given)
    (tmp_path / "out.kill").touch()
    nursery.run(store, *RECORD, script, out, *given, dense=True, code=-9)
    said = nursery.output.read_text()
    with RunLog.open(run_directory(store)) as log:
        inner = [loop for loop in tree_of(log).loops() if not loop.name.startswith("epoch")]
        assert any(0 < index < loop.count for loop in inner for index in loop.images)
    (tmp_path / "out.kill").unlink()
    nursery.run(store, "florlog", "resume", script, out, *given, dense=True)
    said += nursery.output.read_text()
    assert "no images" not in said
    assert "resumed from" in said
    assert ended(out) == ended(tmp_path / "plain")
