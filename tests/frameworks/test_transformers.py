"""Hugging Face's Trainer: its loops are recorded, killed runs go on bit-exactly, statements are asked afterwards."""

from __future__ import annotations

import json
import random
import re
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import florlog
from tests.end_to_end.harness import Nursery, newest, python
from tests.frameworks.programs import TRAINER
from tests.frameworks.recorded import of_another_version

pytestmark = pytest.mark.drawn_in_file(5)

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

TIMES = ("_runtime", "_per_second")
ADDED = {
    "compute_loss": (
        "        return (loss, outputs)",
        "self.state.global_step, loss.item(), float(self._tr_loss)",
    ),
    "callback": ("        Watch.steps += 1\n", 'Watch.steps, kwargs["lr_scheduler"].get_last_lr()[0]'),
    "forward": (
        "        return super().forward",
        "input_ids.sum().item(), self.lm_head.weight.norm().item()",
    ),
}
"""Where a statement is added: before or after a line of the program, and what it prints."""
MICRO = 2  # batches of a step


def ended(directory: Path) -> Any:
    """What a training has left: its history without times, and its weights, bit for bit."""
    history = json.loads((directory / "history.json").read_text())
    left = torch.load(directory / "end.pt")
    weights = {name: weight.numpy().tobytes() for name, weight in left["weights"].items()}
    lines = [{key: value for key, value in line.items() if not key.endswith(TIMES)} for line in history]
    return lines, weights, left["steps"], left["told"]


def with_statement(place: str) -> str:
    """The program with a statement added at a place."""
    line, printed = ADDED[place]
    statement = f'        print("asked", {printed})\n'
    return TRAINER.replace(line, line + statement if line.endswith("\n") else statement + line, 1)


@pytest.fixture(scope="module")
def recorded(trainers: Nursery, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the script, ``plain`` as python left it, and a store with a run that has all images."""
    place = tmp_path_factory.mktemp("recorded")
    script = place / "train.py"
    script.write_text(TRAINER)
    trainers.run(place / "unused", script, place / "plain")
    trainers.run(place / "store", "florlog", "record", "--no-audit", script, place / "recorded", dense=True)
    (place / "said.txt").write_text(trainers.output.read_text())
    return place


def test_its_loops_are_named_and_the_training_is_not_changed(recorded: Path) -> None:
    assert ended(recorded / "recorded") == ended(recorded / "plain")
    said = [line for line in re.split(r"[\r\n]", (recorded / "said.txt").read_text()) if "florlog: " in line]
    assert re.search(
        r"loops: epoch \(trainer.py:\d+\), step \(trainer.py:\d+\), micro \(trainer.py:\d+\), eval \(trainer.py:\d+\)$",
        said[2],
    )
    assert "tracked: model, optimizer, lr_scheduler" in said[3]


def test_what_it_logs_is_recorded_where_it_is_logged(recorded: Path) -> None:
    history = json.loads((recorded / "recorded" / "history.json").read_text())
    with florlog.open(recorded / "store") as log:
        logged = list(log.run().logged())
    for name in ("loss", "grad_norm", "learning_rate", "eval_loss", "train_runtime"):
        expected = [line[name] for line in history if name in line]
        assert [value.value for value in logged if value.name == name] == expected != []
    first = next(value for value in logged if value.name == "eval_loss")
    assert dict(first.path) == {"epoch": 0, "step": 3, "micro": 1}
    assert not {"epoch", "step"} & {value.name for value in logged}


@pytest.mark.crash
@pytest.mark.drawn(2)
@pytest.mark.parametrize("case", range(20))
def test_killed_at_any_instant_it_goes_on_bit_exactly(
    trainers: Nursery, recorded: Path, tmp_path: Path, case: int
) -> None:
    chance = random.Random(case)
    script, store, out = recorded / "train.py", tmp_path / "store", tmp_path / "out"
    dense = chance.random() < 0.5
    seconds = chance.random() * (6.0 if dense else 1.5)
    killed, _ = trainers.run(store, "florlog", "record", "--no-audit", script, out, kill=seconds, dense=dense)
    if killed:
        trainers.run(store, "florlog", "resume", script, out, dense=dense, code=None)
        if "florlog: no run in" in trainers.output.read_text():  # it was killed before the run began
            trainers.run(store, "florlog", "record", "--no-audit", script, out, dense=dense)
    assert ended(out) == ended(recorded / "plain"), f"killed after {seconds} s"


@pytest.mark.crash
@pytest.mark.drawn(1)
@pytest.mark.parametrize("forgotten", [None, "_total_loss_scalar", "_globalstep_last_logged", "global_step"])
def test_a_number_that_images_forget_is_noticed(
    trainers: Nursery, recorded: Path, tmp_path: Path, forgotten: str | None
) -> None:
    script, store, out, kill = (tmp_path / name for name in ("train.py", "store", "out", "out.kill"))
    line = "        Watch.steps += 1\n"
    died = '        if state.global_step == 12 and os.path.exists(args.output_dir + ".kill"): os.kill(os.getpid(), 9)\n'
    script.write_text(TRAINER.replace(line, line + died))
    kill.touch()
    command = "florlog", "record", "--no-audit", script, out
    assert trainers.run(store, *command, dense=True, forget=forgotten)[0]
    kill.unlink()
    trainers.run(store, "florlog", "resume", script, out, dense=True, forget=forgotten, code=None)
    differs = "the run differs" in trainers.output.read_text()
    equal = (out / "end.pt").exists() and ended(out) == ended(recorded / "plain")
    assert (equal and not differs) is (forgotten is None)


@pytest.mark.drawn(1)
@pytest.mark.parametrize("place", ADDED)
def test_a_statement_is_asked_afterwards(
    trainers: Nursery, recorded: Path, tmp_path: Path, place: str
) -> None:
    script = recorded / "train.py"
    store = shutil.copytree(recorded / "store", tmp_path / "store")
    try:
        script.write_text(with_statement(place))
        trainers.run(tmp_path / "unused", script, tmp_path / "full")
        printed = re.findall(r"asked (.*)", trainers.output.read_text())
        one = asked(trainers, store, script, "--where", "epoch == 1 and step == 3")
        every = asked(trainers, store, script)
    finally:
        script.write_text(TRAINER)
    assert one["plan"]["iterations_redone"] == MICRO
    assert {value["trust"] for value in [*one["values"], *every["values"]]} == {"PROVEN"}
    assert rows(every["values"]) == printed
    at = [value for value in every["values"] if (value["path"]["epoch"], value["path"].get("step")) == (1, 3)]
    assert rows(one["values"]) == rows(at)


def asked(trainers: Nursery, store: Path, script: Path, *options: str) -> Any:
    """What a replay answers; it writes nothing of the script's."""
    trainers.run(store, "florlog", "replay", script, "--format", "json", *options)
    said = trainers.output.read_text()
    return json.loads(next(line for line in said.splitlines() if line.startswith("{")))


def rows(values: list[dict[str, Any]]) -> list[str]:
    """The values of each execution of the statement, as print shows them."""
    names = list(dict.fromkeys(value["name"] for value in values))
    columns = [[str(value["value"]) for value in values if value["name"] == name] for name in names]
    return [" ".join(row) for row in zip(*columns, strict=True)]


def test_a_batch_of_an_evaluation_is_asked(trainers: Nursery, recorded: Path, tmp_path: Path) -> None:
    script = recorded / "train.py"
    store = shutil.copytree(recorded / "store", tmp_path / "store")
    line = "        loss, outputs = super().compute_loss(model, inputs, True, num_items_in_batch)\n"
    added = '        if not model.training:\n            print("asked", loss.item(), model.training)\n'
    try:
        script.write_text(TRAINER.replace(line, line + added))
        trainers.run(tmp_path / "unused", script, tmp_path / "full")
        printed = re.findall(r"asked (.*)", trainers.output.read_text())
        one = asked(trainers, store, script, "--where", "epoch == 1 and step == 4 and eval == 1")
    finally:
        script.write_text(TRAINER)
    assert rows(one["values"]) == [printed[2 * 2 + 1]]
    assert one["plan"]["iterations_redone"] == 1
    assert {value["trust"] for value in one["values"]} == {"PROVEN"}


def test_a_value_of_the_clock_is_not_proven(trainers: Nursery, recorded: Path, tmp_path: Path) -> None:
    script = recorded / "train.py"
    store = shutil.copytree(recorded / "store", tmp_path / "store")
    line = "        Watch.steps += 1\n"
    add = '        last = state.log_history[-1] if state.log_history else {}\n        print("last", last)\n'
    more = '        took = last.get("eval_runtime")\n        print("took", took)\n'
    try:
        script.write_text(TRAINER.replace(line, line + add + more))
        found = asked(trainers, store, script, "--where", "epoch == 1 and step == 1")
    finally:
        script.write_text(TRAINER)
    assert {value["trust"] for value in found["values"]} == {"CONSISTENT"}


@pytest.mark.parametrize("command", ["resume", "replay"])
def test_another_version_of_the_framework_is_refused(
    trainers: Nursery, recorded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    from florlog.errors import SourceChangedError
    from florlog.program.recorded_sources import recorded_sources
    from florlog.program.stores import open_log, tree_of
    from florlog.programs import adoption

    with open_log(recorded / "store" / "runs" / newest(recorded / "store")) as log:
        tree = tree_of(log)
        texts = {source.path: source.text for source in recorded_sources(log, tree)}
    file = adoption._file_of("transformers.trainer")
    assert file is not None
    edited = tmp_path / "trainer.py"
    edited.write_text(Path(file).read_text().replace("step += 1", "step += 2"))
    assert adoption.adopted_again(texts)
    adoption.check_adopted(tree.begin.environment)
    monkeypatch.setattr(adoption, "_file_of", lambda module: str(edited))
    asked_again = partial(adoption.adopted_again, texts)
    resumed = partial(adoption.check_adopted, tree.begin.environment)
    with pytest.raises(SourceChangedError, match=r"recorded with transformers 5\.24\.0"):
        (asked_again if command == "replay" else resumed)()


def test_in_an_unknown_version_a_line_says_how_its_loops_are_recorded(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from florlog.programs import adoption

    assert [adopted.module for adopted in adoption.adoptions([TRAINER]).modules.values()] == [
        "transformers.trainer"
    ]
    assert adoption.adoptions(
        ["import transformers\ntokens = transformers.AutoTokenizer"]
    ) == adoption.Adoptions({}, {})
    monkeypatch.setattr(adoption, "MANIFESTS", of_another_version())
    assert not adoption.adoptions([TRAINER]).modules
    assert (
        "transformers 5.24.0 is not known (known: 9.9.9): its loops are recorded by its hooks"
        in capsys.readouterr().err
    )


def test_a_framework_that_somebody_has_patched_trains_as_it_is(
    monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    from transformers import trainer

    from florlog.programs.adoption import adopting, adoptions
    from florlog.source.edit.instrument import Instrumenter

    seen = []
    held = trainer.Trainer._run_epoch
    train = trainer.Trainer.train.__code__
    monkeypatch.setattr(trainer.Trainer, "_run_epoch", lambda self, *args: (seen, held)[0])
    with adopting(adoptions([TRAINER]).modules, Instrumenter()):
        assert trainer.Trainer.train.__code__ is train
    assert "the loops of transformers.trainer are not recorded" in str(recwarn[0].message)


ONE_LINE = TRAINER.replace(
    "    trainer.train()\n",
    '    with florlog.transformers.record(trainer, overhead=float("inf"), audit=False):\n        trainer.train()\n',
).replace("import torch\n", "import florlog\nimport torch\n", 1)


@pytest.fixture(scope="module")
def one_line(trainers: Nursery, recorded: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a script that opens its run around the Trainer's, and the store of a run that was killed in
    the middle of an accumulation group and resumed; ``whole`` is what an uninterrupted one left."""
    place = tmp_path_factory.mktemp("one_line")
    script, kill = place / "train.py", place / "cut.kill"
    line = "        Watch.steps += 1\n"
    died = '        if state.global_step == 12 and os.path.exists(args.output_dir + ".kill"): os.kill(os.getpid(), 9)\n'
    script.write_text(ONE_LINE.replace(line, line + died))
    trainers.run(place / "unused", script, place / "whole")
    kill.touch()
    assert trainers.run(place / "store", script, place / "cut", code=-9)
    kill.unlink()
    trainers.run(place / "store", "florlog", "resume", script, place / "cut")
    (place / "said.txt").write_text(trainers.output.read_text())
    return place


def test_a_run_that_the_script_opens_has_the_same_loops_and_goes_on_bit_exactly(
    recorded: Path, one_line: Path
) -> None:
    assert ended(one_line / "whole") == ended(recorded / "plain")
    assert ended(one_line / "cut") == ended(recorded / "plain")
    assert "resumed from epoch=1, step=" in (one_line / "said.txt").read_text()
    with florlog.open(one_line / "store") as log:
        logged = list(log.run().logged())
    assert {"loss", "eval_loss", "train_runtime"} <= {value.name for value in logged}


def test_such_a_run_answers_what_is_logged_in_compute_loss(
    trainers: Nursery, one_line: Path, tmp_path: Path
) -> None:
    script = one_line / "train.py"
    store = shutil.copytree(one_line / "store", tmp_path / "store")
    text = script.read_text()
    line, printed = ADDED["compute_loss"]
    names = (
        printed.replace("self.state.global_step", "now=self.state.global_step")
        .replace("loss.item()", "loss=loss.item()")
        .replace("float(", "so_far=float(")
    )
    added = text.replace(line, f'        florlog.log({names})\n        print("asked", {printed})\n{line}', 1)
    try:
        script.write_text(added)
        trainers.run(tmp_path / "unused", script, tmp_path / "full")
        full = re.findall(r"asked (.*)", trainers.output.read_text())
        script.write_text(re.sub(r'        print\("asked".*\n', "", added))
        one = asked(trainers, store, script, "--where", "epoch == 1 and step == 3")
        every = asked(trainers, store, script)
    finally:
        script.write_text(text)
    assert one["plan"]["iterations_redone"] == MICRO
    assert {value["trust"] for value in [*one["values"], *every["values"]]} == {"PROVEN"}
    assert rows(every["values"]) == full


def test_importing_florlog_imports_no_framework(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(
        "import sys, florlog\nfrom florlog import transformers\nprint(transformers.record)\n"
        "assert florlog.transformers is transformers\nassert 'transformers' not in sys.modules\n"
    )
    assert python(tmp_path / "store", script).returncode == 0


def test_with_an_unknown_version_a_run_that_the_script_opens_says_so_and_has_what_it_logs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    from florlog.programs import adoption

    monkeypatch.setattr(adoption, "MANIFESTS", of_another_version())
    with florlog.transformers.record(None, "unknown", store=tmp_path / "store", audit=False) as run:
        run.log(value=1)
    assert (
        "transformers 5.24.0 is not known (known: 9.9.9): its loops are recorded by its hooks"
        in capsys.readouterr().err
    )
    with florlog.open(tmp_path / "store") as log:
        assert [value.value for value in log.run().logged()] == [1]
