"""PyTorch Lightning: its loops are recorded, killed runs go on bit-exactly, statements are asked afterwards."""

from __future__ import annotations

import importlib
import json
import random
import re
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.harness import Nursery, newest
from tests.frameworks.programs import LIGHTNING, OPTIONS
from tests.frameworks.recorded import of_another_version
from tests.frameworks.test_transformers import asked, rows

pytestmark = pytest.mark.drawn_in_file(4)

torch = pytest.importorskip("torch")

PACKAGES = [name for name in ("lightning.pytorch", "pytorch_lightning") if find_spec(name.partition(".")[0])]
if not PACKAGES:
    pytest.skip("neither lightning nor pytorch-lightning is installed", allow_module_level=True)

ADDED = {
    "training_step": (
        "        return loss\n",
        'print("asked", batch_idx, loss.item(), self.optimizers().param_groups[0]["lr"])',
    ),
    "forward": ("        return self.layers(x)\n", 'print("asked", x.sum().item(), self.training)'),
    "validation_step": (
        '        self.log("val_loss", loss)\n',
        'print("asked", batch_idx, loss.item(), self.trainer.sanity_checking)',
    ),
    "callback": (
        "        self.steps += 1\n",
        'print("asked", self.steps, trainer.global_step, float(trainer.callback_metrics["train_loss"]))',
    ),
}
"""Where a statement is added, before a line of the program, and the statement."""
STEPS, VALIDATED, BATCHES = 8, 3, 3
"""Of an epoch the steps, the first step after which it is validated, and the batches of that."""


def options_as(**others: Any) -> str:
    """The program's options, some of them other ones."""
    return json.dumps({**OPTIONS, **others})


def ended(directory: Path) -> Any:
    """What a training has left: weights bit for bit, metrics, the table of its logger, names of its checkpoints."""
    left = torch.load(directory / "end.pt")
    weights = {
        when: {name: weight.numpy().tobytes() for name, weight in held.items()} for when, held in left.items()
    }
    kept = sorted(path.name for path in (directory / "kept").glob("*.ckpt"))
    table = (directory / "csv" / "version_0" / "metrics.csv").read_text()
    return weights, json.loads((directory / "end.json").read_text()), table, kept


def with_statement(place: str, text: str = LIGHTNING) -> str:
    """The program with a statement added at a place."""
    line, statement = ADDED[place]
    return text.replace(line, f"        {statement}\n{line}", 1)


@pytest.fixture(scope="module")
def recorded(lightnings: Nursery, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the script, ``plain`` as python left it, and a store with a run that has all images."""
    place = tmp_path_factory.mktemp("recorded")
    script, options = place / "train.py", options_as()
    script.write_text(LIGHTNING.replace("lightning.pytorch", PACKAGES[0]))
    lightnings.run(place / "unused", script, place / "plain", options)
    command = "florlog", "record", "--no-audit", script, place / "recorded", options
    lightnings.run(place / "store", *command, dense=True)
    (place / "said.txt").write_text(lightnings.output.read_text())
    return place


def test_its_loops_are_named_and_the_training_is_not_changed(recorded: Path) -> None:
    assert ended(recorded / "recorded") == ended(recorded / "plain")
    said = [line for line in re.split(r"[\r\n]", (recorded / "said.txt").read_text()) if "florlog: " in line]
    assert re.search(
        r"loops: epoch \(fit_loop.py:\d+\), step \(training_epoch_loop.py:\d+\), val \(evaluation_loop.py:\d+\), "
        r"predict \(prediction_loop.py:\d+\)$",
        said[2],
    )
    assert said[-1] == "florlog: not understood: nothing"


def drawn(chance: random.Random) -> dict[str, Any]:
    """A training as somebody might set it up."""
    return {
        "seed": chance.randrange(99),
        "count": chance.choice([40, 43]),
        "workers": chance.choice([0, 0, 2]),
        "dropout": chance.choice([0.0, 0.3]),
        "scheduler": chance.choice(["warm-up", "warm-up", "plateau"]),
        "accumulate": chance.choice([1, 2, 3]),
        "val_check_interval": chance.choice([0.5, 1.0, 3]),
        "clip": chance.choice([None, 0.5]),
        "patience": chance.choice([1, 9]),
        "kept": chance.choice([1, 2, -1]),
    }


@pytest.mark.crash
@pytest.mark.long
@pytest.mark.parametrize("case", range(20))
def test_killed_at_any_instant_it_goes_on_bit_exactly(lightnings: Nursery, tmp_path: Path, case: int) -> None:
    chance = random.Random(case)
    script, store, out = (tmp_path / name for name in ("train.py", "store", "out"))
    options, dense = options_as(**drawn(chance)), chance.random() < 0.5
    script.write_text(LIGHTNING.replace("lightning.pytorch", PACKAGES[case % len(PACKAGES)]))
    _, took = lightnings.run(tmp_path / "unused", script, tmp_path / "plain", options)
    seconds = chance.random() * took * (2.0 if dense else 1.0)
    command = "florlog", "record", "--no-audit", script, out, options
    killed, _ = lightnings.run(store, *command, kill=seconds, dense=dense)
    if killed:
        lightnings.run(store, "florlog", "resume", script, out, options, dense=dense, code=None)
        said = lightnings.output.read_text()
        if "florlog: no run in" in said:  # it was killed before the run began
            lightnings.run(store, *command, dense=dense)
        assert "the run differs" not in said
    assert ended(out) == ended(tmp_path / "plain"), f"killed after {seconds} s, with {options}"


@pytest.mark.crash
@pytest.mark.long
@pytest.mark.parametrize("forgotten", [None, "_batches_that_stepped", "wait_count", "last_epoch", "steps"])
def test_a_number_that_images_forget_is_noticed(
    lightnings: Nursery, tmp_path: Path, forgotten: str | None
) -> None:
    script, store, out, kill = (tmp_path / name for name in ("train.py", "store", "out", "out.kill"))
    line = "        self.steps += 1\n"
    dies = 'self.steps == 15 and os.path.exists(trainer.default_root_dir + ".kill")'
    died = f"        if {dies}: os.kill(os.getpid(), 9)\n"
    script.write_text(LIGHTNING.replace("lightning.pytorch", PACKAGES[0]).replace(line, line + died))
    options = options_as(patience=4, lr=0.1)
    lightnings.run(tmp_path / "unused", script, tmp_path / "plain", options)
    kill.touch()
    command = "florlog", "record", "--no-audit", script, out, options
    assert lightnings.run(store, *command, dense=True, forget=forgotten)[0]
    kill.unlink()
    lightnings.run(store, "florlog", "resume", script, out, options, dense=True, forget=forgotten, code=None)
    differs = "the run differs" in lightnings.output.read_text()
    equal = (out / "end.pt").exists() and ended(out) == ended(tmp_path / "plain")
    assert (equal and not differs) is (forgotten is None)


@pytest.mark.drawn(1)
@pytest.mark.parametrize("place", ADDED)
def test_a_statement_is_asked_afterwards(
    lightnings: Nursery, recorded: Path, tmp_path: Path, place: str
) -> None:
    script = recorded / "train.py"
    text = script.read_text()
    store = shutil.copytree(recorded / "store", tmp_path / "store")
    left = {path: path.read_bytes() for path in (recorded / "recorded").rglob("*") if path.is_file()}
    try:
        script.write_text(with_statement(place, text))
        lightnings.run(tmp_path / "unused", script, tmp_path / "full", options_as())
        printed = re.findall(r"asked (.*)", lightnings.output.read_text())
        one = asked(lightnings, store, script, "--where", f"epoch == 1 and step == {VALIDATED}")
        every = asked(lightnings, store, script)
    finally:
        script.write_text(text)
    assert 1 <= one["plan"]["iterations_redone"] <= STEPS - VALIDATED + BATCHES
    assert {value["trust"] for value in [*one["values"], *every["values"]]} == {"PROVEN"}
    assert rows(every["values"]) == printed
    at = [v for v in every["values"] if (v["path"].get("epoch"), v["path"].get("step")) == (1, VALIDATED)]
    assert rows(one["values"]) == rows(at) != []
    assert left == {path: path.read_bytes() for path in (recorded / "recorded").rglob("*") if path.is_file()}


def test_what_is_logged_is_recorded_and_an_added_log_call_is_a_question(
    lightnings: Nursery, recorded: Path, tmp_path: Path
) -> None:
    import florlog

    script = recorded / "train.py"
    text = script.read_text()
    store = shutil.copytree(recorded / "store", tmp_path / "store")
    with florlog.open(store) as log:
        losses = [value.value for value in log.run().logged() if value.name == "train_loss"]
    assert len(losses) == 3 * STEPS
    line, twice = "        return loss\n", '        self.log("twice", 2 * loss)\n'
    try:
        script.write_text(text.replace(line, twice + line))
        found = asked(lightnings, store, script, "--where", "epoch == 1 and step == 5")
    finally:
        script.write_text(text)
    assert [(v["name"], v["value"], v["trust"]) for v in found["values"]] == [
        ("twice", 2 * losses[STEPS + 5], "PROVEN")
    ]
    assert found["plan"]["iterations_redone"] == 1


@pytest.mark.parametrize("package", PACKAGES)
@pytest.mark.parametrize("edited", ["fit_loop", "training_epoch_loop", "evaluation_loop", "prediction_loop"])
def test_a_copy_that_somebody_has_edited_is_not_recorded_and_not_replayed(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    package: str,
    edited: str,
) -> None:
    from florlog.errors import SourceChangedError
    from florlog.programs import adoption
    from florlog.source.names.excerpts import excerpt_of

    text = LIGHTNING.replace("lightning.pytorch", package)
    adopted = adoption.adoptions([text]).modules
    assert [part.module.rpartition(".")[2] for part in adopted.values()] == [
        "fit_loop",
        "training_epoch_loop",
        "evaluation_loop",
        "prediction_loop",
    ]
    texts = {path: part.text for path, part in adopted.items()}
    origins = [origin for text in texts.values() if (origin := excerpt_of(text))]
    facts = {origin.module: (origin.version, origin.digest) for origin in origins}
    assert adoption.adopted_again(texts) == adopted
    found = adoption._file_of

    def other(module: str) -> str | None:
        file = found(module)
        if file is None or not module.endswith(f".{edited}"):
            return file
        copy = tmp_path / f"{edited}.py"
        copy.write_text(Path(file).read_text() + "\n")
        return str(copy)

    monkeypatch.setattr(adoption, "_file_of", other)
    assert not adoption.adoptions([text]).modules
    framework = package.partition(".")[0]
    assert (
        f"{framework} 2.6.6 is not as it was published: its loops are recorded by its hooks"
        in capsys.readouterr().err
    )
    with pytest.raises(SourceChangedError, match=rf"recorded with {framework} 2\.6\.6"):
        adoption.adopted_again(texts)
    with pytest.raises(SourceChangedError, match=rf"recorded with {framework} 2\.6\.6"):
        adoption.check_adopted({"adopted": facts})


def test_in_an_unknown_version_a_line_says_how_its_loops_are_recorded(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from florlog.programs import adoption

    text = LIGHTNING.replace("lightning.pytorch", PACKAGES[0])
    assert adoption.adoptions(
        ["import lightning.fabric\nfabric = lightning.fabric.Fabric()"]
    ) == adoption.Adoptions({}, {})
    monkeypatch.setattr(adoption, "MANIFESTS", of_another_version())
    assert not adoption.adoptions([text]).modules
    assert "2.6.6 is not known (known: 9.9.9): its loops are recorded by its hooks" in capsys.readouterr().err


@pytest.mark.long
def test_a_framework_that_somebody_has_patched_trains_as_it_is(
    lightnings: Nursery, recorded: Path, tmp_path: Path
) -> None:
    patch = f"""
from {PACKAGES[0]}.loops.fit_loop import _FitLoop
held = _FitLoop.advance
_FitLoop.advance = lambda self: held(self)
"""
    script, out = tmp_path / "train.py", tmp_path / "out"
    text = (recorded / "train.py").read_text()
    script.write_text(text.replace("\n\nclass Watch", f"{patch}\n\nclass Watch", 1))
    lightnings.run(tmp_path / "store", "florlog", "record", "--no-audit", script, out, options_as())
    assert ended(out) == ended(recorded / "plain")
    assert newest(tmp_path / "store")


@pytest.mark.parametrize("package", PACKAGES)
def test_a_timer_that_is_put_back_has_taken_as_long_as_it_had(
    package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from florlog.state.heap.capture import capture
    from florlog.state.heap.compare import difference
    from florlog.state.heap.restore import restore

    module = importlib.import_module(f"{package}.callbacks.timer")
    trained, restarted = module.Timer("00:00:10:00"), module.Timer("00:00:10:00")
    monkeypatch.setattr(module.time, "monotonic", lambda: 5000.0)
    trained.on_train_start(None, None)
    trained.on_validation_start(None, None)
    monkeypatch.setattr(module.time, "monotonic", lambda: 5100.0)
    trained.on_validation_end(None, None)
    graph = capture({"module __main__": {"timer": trained}})
    assert not graph.missing
    monkeypatch.setattr(module.time, "monotonic", lambda: 7.0)  # the machine has been started anew
    restore(graph, {"module __main__": {"timer": restarted}})
    monkeypatch.setattr(module.time, "monotonic", lambda: 12.0)
    assert restarted.time_elapsed("train") == 105.0
    assert restarted.time_remaining("train") == 495.0
    assert restarted.time_elapsed("validate") == 100.0
    assert restarted.start_time("test") is None
    assert not difference(graph, capture({"module __main__": {"timer": restarted}}))
