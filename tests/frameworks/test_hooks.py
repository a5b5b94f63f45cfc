"""A framework of a version that is not known: its loops are recorded by its hooks, for reading.

Each program prints in its callbacks, its model and its steps.  So where the hooks put what is printed is compared with
where the loops of the known version do.
"""

from __future__ import annotations

import csv
import importlib
import importlib.util
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import florlog
from florlog.errors import FlorlogError
from tests.end_to_end.harness import Logged, Nursery, logged
from tests.frameworks import programs
from tests.frameworks.recorded import RECORD
from tests.frameworks.test_one_line import SCRIPTS, options_of_lightning

pytest.importorskip("torch")
pytestmark = pytest.mark.drawn_in_file(2)

TIMES = ("_runtime", "_per_second", "dur")
Place = tuple[tuple[str, int], ...]
Row = tuple[str, Place, Any]


def of_skorch(out: Path) -> Iterator[Row]:
    """Its history."""
    for epoch, row in enumerate(json.loads((out / "end.json").read_text())):
        at = ("epoch", epoch)
        yield from ((name, (at,), value) for name, value in row.items() if name not in ("batches", "epoch"))
        for number, batch in enumerate(row["batches"]):
            trained = row["train_batch_count"]
            inner = ("batch", number) if number < trained else ("batch#2", number - trained)
            yield from ((name, (at, inner), value) for name, value in batch.items())


def of_ignite(out: Path) -> Iterator[Row]:
    """What its handlers noted: of each step, and of the evaluation after an epoch."""
    for entry in json.loads((out / "end.json").read_text()):
        at = ("epoch", entry[0] - 1)
        if len(entry) == 4:
            # From the second epoch on the first pass of the loop begins the data anew.
            path = (at, ("step", (entry[1] - 1) % 6 + (entry[0] > 1)))
            yield from (("output", path, entry[2]), ("running", path, entry[3]))
        else:
            yield from ((name, (at, ("epoch_", 0)), value) for name, value in entry[1].items())


def of_keras(out: Path) -> Iterator[Row]:
    """Its history."""
    history = json.loads((out / "end.json").read_text())
    for name, values in history.items():
        yield from ((name, (("epoch", epoch),), value) for epoch, value in enumerate(values))


def of_lightning(out: Path) -> Iterator[Row]:
    """The table of its logger: an epoch has 8 batches in 4 steps, and is validated after 4 batches and after 8."""
    validated = 0
    for row in csv.DictReader((out / "csv" / "version_0" / "metrics.csv").open()):
        epoch = ("epoch", int(row["epoch"]))
        if row["train_loss_step"]:
            yield "train_loss_step", (epoch, ("step", int(row["step"]) % 4 * 2 + 1)), row["train_loss_step"]
        if row["train_loss_epoch"]:
            yield "train_loss_epoch", (epoch,), row["train_loss_epoch"]
        if row["val_loss"]:
            within = validated < 6  # the last one is that of `validate`
            path = (("epoch", validated // 2), ("step", 3 + validated % 2 * 4)) if within else ()
            yield "val_loss", path, row["val_loss"]
            validated += 1


def of_transformers(out: Path) -> Iterator[Row]:
    """Its log: an epoch has 7 steps of two batches, the last of one."""
    for row in json.loads((out / "history.json").read_text()):
        epoch, step = divmod(row["step"] - 1, 7)
        path = (("epoch", epoch), ("step", step), ("micro", int(step < 6)))
        for name, value in row.items():
            if name not in ("epoch", "step"):
                yield name, () if "train_runtime" in row else path, value


@dataclass(frozen=True)
class Framework:
    """How a framework is tested."""

    program: str
    package: str
    own: Callable[[Path], Iterator[Row]]
    """What it says itself: name, path and value."""
    options: Callable[[], tuple[str, ...]] = tuple
    counted: str = ""  # a line of a callback, and a condition under which the process may be killed after it
    count: str = ""
    broken: str = ""  # a hook
    begun: str = ""  # a method of its callback, called when a step begins, and what it prints
    trained: str = ""  # the call that trains, and what the object has of callbacks afterwards
    left: str = ""


FRAMEWORKS = {
    "skorch": Framework(
        programs.SKORCH, "skorch", of_skorch, broken="on_batch_begin",
        counted=SCRIPTS["skorch"].counted, count=SCRIPTS["skorch"].count,
        begun="on_batch_begin(self, net, **kwargs): print('begun', len(net.history))",
        trained="    net.fit(X, y)\n", left="str([(name, type(held).__name__) for name, held in net.callbacks_])",
    ),
    "ignite": Framework(
        programs.IGNITE, "ignite.engine", of_ignite, broken="iteration_completed",
        counted=SCRIPTS["ignite"].counted, count=SCRIPTS["ignite"].count,
        trained="    trainer.run(train, max_epochs=4)\n",
        left="str({str(event): len(held) for event, held in trainer._event_handlers.items() if held})",
    ),
    "keras": Framework(
        programs.KERAS, "keras", of_keras, broken="on_train_batch_end",
        counted=SCRIPTS["keras"].counted, count=SCRIPTS["keras"].count,
        begun="on_train_batch_begin(self, batch, logs=None): print('begun', batch)",
    ),
    "lightning": Framework(
        programs.LIGHTNING, "lightning.pytorch", of_lightning, options_of_lightning, broken="on_train_batch_start",
        counted=SCRIPTS["lightning"].counted, count="self.steps == 14",
        begun="on_train_batch_start(self, trainer, module, batch, batch_idx): print('begun', batch_idx)",
        trained="    trainer.fit(net, train, val)\n", left="str([type(held).__name__ for held in trainer.callbacks])",
    ),
    "transformers": Framework(
        programs.TRAINER, "transformers.trainer", of_transformers, broken="on_log",
        counted="        Watch.steps += 1", count="state.global_step == 12",
        begun="on_step_begin(self, args, state, control, **kwargs): print('begun', state.global_step)",
        trained="    trainer.train()\n",
        left="str([type(held).__name__ for held in trainer.callback_handler.callbacks])",
    ),
}  # fmt: skip


def with_statements(framework: str) -> str:
    """Its program, which prints wherever its tests add a statement."""
    module, made = importlib.import_module(f"tests.frameworks.test_{framework}"), FRAMEWORKS[framework]
    text = made.program
    if made.begun:
        text = re.sub(r"(class Watch\(.*\):\n)", lambda found: f"{found[0]}    def {made.begun}\n\n", text)
    if made.trained:
        assert made.trained in text
        text = text.replace(made.trained, f"{made.trained}    print('left', {made.left})\n")
    for place, (line, printed) in module.ADDED.items():
        if framework in ("transformers", "lightning"):
            text = _with(text, line, printed, place)
        else:
            column = " " * (len(line) - len(line.lstrip()))
            text = text.replace(line, f'{line}\n{column}print("{place}", {printed})', 1)
    return text


def _with(text: str, line: str, printed: str, place: str) -> str:
    """As the tests of that framework add it: before the line, and after one that is given with its end."""
    column = " " * (len(line) - len(line.lstrip()))
    statement = printed if printed.startswith("print") else f'print("{place}", {printed})'
    made = f"{column}{statement}\n"
    after = line.endswith("\n") and not printed.startswith("print")
    return text.replace(line, line + made if after else made + line, 1)


@dataclass(frozen=True)
class Hooked:
    """A program's directory: ``plain`` as python left it, and stores of its runs, of the known version and by hooks."""

    framework: str
    nursery: Nursery
    directory: Path
    said: str

    @property
    def script(self) -> Path:
        """The program's file."""
        return self.directory / "train.py"

    @property
    def options(self) -> tuple[str, ...]:
        """What the program is given after its directory."""
        return FRAMEWORKS[self.framework].options()

    def ended(self, out: Path) -> Any:
        """What a training has left in a directory."""
        return importlib.import_module(f"tests.frameworks.test_{self.framework}").ended(out)

    def changed(self, place: Path, *changes: tuple[str, str]) -> Path:
        """The program with lines changed, in another directory."""
        script = place / "train.py"
        text = self.script.read_text()
        for line, instead in changes:
            assert line in text
            text = text.replace(line, instead, 1)
        script.write_text(text)
        return script


@pytest.fixture(scope="module", params=FRAMEWORKS)
def hooked(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hooked]:
    """The runs of one framework."""
    name = request.param
    if importlib.util.find_spec(FRAMEWORKS[name].package.partition(".")[0]) is None:
        pytest.skip(f"{name} is not installed")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("KERAS_BACKEND", "torch")  # the nursery imports it before the program says so
        nursery = Nursery(tmp_path_factory.mktemp("nursery"), FRAMEWORKS[name].package)
    place = tmp_path_factory.mktemp("hooked")
    made = Hooked(name, nursery, place, "")
    made.script.write_text(with_statements(name))
    nursery.run(place / "unused", made.script, place / "plain", *made.options)
    nursery.run(place / "known", *RECORD, made.script, place / "other", *made.options)
    nursery.run(place / "store", *RECORD, made.script, place / "out", *made.options, unknown=True)
    yield Hooked(name, nursery, place, nursery.output.read_text())
    nursery.close()


def without_eval(value: Logged) -> Logged:
    """Its place without the batch of an evaluation, of which the Trainer has no hook."""
    return Logged(value.name, tuple(part for part in value.path if part[0] != "eval"), value.bits)


def test_what_is_printed_is_where_it_is_with_the_known_version(hooked: Hooked) -> None:
    # Keras calls a model before the first loop, to build it, with memory that may hold anything.
    known = Counter(
        without_eval(value)
        for value in logged(hooked.directory / "known")
        if not value.name.endswith(TIMES) and (value.path or hooked.framework != "keras")
    )
    found = Counter(logged(hooked.directory / "store"))
    own = {(name, path) for name, path, _ in FRAMEWORKS[hooked.framework].own(hooked.directory / "out")}
    assert known
    assert known <= found
    names = {value.name for value in known}
    more = [value for value in found - known if value.name in names and value.path]
    assert all((value.name, value.path) in own for value in more)


def has_all_of(store: Path, own: Iterator[Row]) -> bool:
    """Whether the newest run has what a framework says itself, each at its place."""
    with florlog.open(store) as log:
        held: dict[tuple[str, Place], list[Any]] = {}
        for value in log.run().logged():
            held.setdefault((value.name, value.path), []).append(value.value)
    rows = list(own)
    for name, path, value in rows:
        as_text = isinstance(value, str)  # of a table, as the logger writes it
        found = [str(float(each)) if as_text else each for each in held.get((name, path), ())]
        assert value in found, (name, path, value, found)
    return bool(rows)


def test_what_the_framework_logs_is_recorded_where_it_is_logged(hooked: Hooked) -> None:
    own = FRAMEWORKS[hooked.framework].own(hooked.directory / "out")
    assert has_all_of(hooked.directory / "store", own)


def test_the_training_is_not_changed(hooked: Hooked) -> None:
    assert hooked.ended(hooked.directory / "out") == hooked.ended(hooked.directory / "plain")


def test_the_first_line_says_what_cannot_be_promised(hooked: Hooked) -> None:
    lines = [line for line in re.split(r"[\r\n]", hooked.said) if line.startswith("florlog: ")]
    assert re.search(
        r" is not known \(known: 9\.9\.9\): its loops are recorded by its hooks, for reading", lines[0]
    )
    assert re.search(r"^florlog: loops: those of .*, by its hooks$", "\n".join(lines), re.MULTILINE)
    assert hooked.said.count("hooks, for reading") == 1
    assert "no images are taken" in lines[0]
    with florlog.open(hooked.directory / "store") as log:
        assert not [entry for entry in log.run().records() if "Checkpoint" in type(entry.record).__name__]


@pytest.mark.crash
def test_what_was_committed_before_a_kill_is_read_and_nothing_else_is_promised(
    hooked: Hooked, tmp_path: Path
) -> None:
    made, nursery, store = FRAMEWORKS[hooked.framework], hooked.nursery, tmp_path / "store"
    column = " " * (len(made.counted) - len(made.counted.lstrip()))
    script = hooked.changed(
        tmp_path, (f"{made.counted}\n", f"{made.counted}\n{column}if {made.count}: os.kill(os.getpid(), 9)\n")
    )
    killed = nursery.run(store, *RECORD, script, tmp_path / "out", *hooked.options, unknown=True, code=None)
    assert killed[0]
    whole = Counter(logged(hooked.directory / "store"))
    found = Counter(value for value in logged(store) if value.path)
    assert {value.path[0] for value in found} >= {("epoch", 0)}
    timeless = Counter({value: n for value, n in found.items() if not value.name.endswith(TIMES)})
    assert timeless <= whole
    first = {value for value in whole if value.path[:1] == (("epoch", 0),) and not value.name.endswith(TIMES)}
    assert first <= set(found)

    for command in (("resume", script), ("replay", script), ("explain", script)):
        order = nursery.order(store, "florlog", *command)
        said = nursery.output.read_text().strip()
        assert order["code"] == 2
        assert "can be read, and neither resumed nor replayed: the loops of" in said
        assert len(said.splitlines()) == 1
    nursery.run(store, "florlog", "runs")
    assert "train-" in nursery.output.read_text()
    nursery.run(store, "florlog", "inspect", "tree")
    assert re.search(
        "^for reading alone: loops of .* were recorded by its hooks$", nursery.output.read_text(), re.M
    )
    with florlog.open(store) as log, pytest.raises(FlorlogError, match="neither resumed nor replayed"):
        log.run().state_at(epoch=0)


def test_a_hook_that_fails_leaves_the_training_alone(hooked: Hooked, tmp_path: Path) -> None:
    made = FRAMEWORKS[hooked.framework]
    broken = f"""
import florlog.bridges.hooks.{hooked.framework}


def _fails(*_, **__):
    raise AttributeError("it is gone")


florlog.bridges.hooks.{hooked.framework}._Hooks.{made.broken} = _fails
torch.set_num_threads(1)
"""
    script = hooked.changed(tmp_path, ("torch.set_num_threads(1)\n", broken))
    hooked.nursery.run(tmp_path / "store", *RECORD, script, tmp_path / "out", *hooked.options, unknown=True)
    said = hooked.nursery.output.read_text()
    assert hooked.ended(tmp_path / "out") == hooked.ended(hooked.directory / "plain")
    assert len(re.findall(r"are not recorded any more: .*it is gone", said)) >= 1
    with florlog.open(tmp_path / "store") as log:
        assert log.run().tree().status == "complete"


def test_one_line_in_a_plain_script_records_the_same(hooked: Hooked, tmp_path: Path) -> None:
    if hooked.framework == "transformers":
        text = importlib.import_module("tests.frameworks.test_transformers").ONE_LINE
    else:
        text = SCRIPTS[hooked.framework].text(hooked.framework)
    script = tmp_path / "train.py"
    script.write_text(text)
    hooked.nursery.run(tmp_path / "store", script, tmp_path / "out", *hooked.options, unknown=True)
    assert "hooks, for reading" in hooked.nursery.output.read_text()
    assert hooked.ended(tmp_path / "out") == hooked.ended(hooked.directory / "plain")
    own = FRAMEWORKS[hooked.framework].own(tmp_path / "out")
    # What Lightning's `validate` logs comes after the block.
    assert has_all_of(tmp_path / "store", (row for row in own if row[1] or hooked.framework != "lightning"))


@pytest.fixture(scope="module")
def skorch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nursery]:
    """Processes that have imported skorch, which trains quickest."""
    pytest.importorskip("skorch")
    made = Nursery(tmp_path_factory.mktemp("nursery"), "skorch")
    yield made
    made.close()


FIT = "    net.fit(X, y)\n"
FAILING = programs.SKORCH.replace(
    "        self.batches += training\n",
    """\
        self.batches += training
        if self.batches == 9 and Watch.fails:
            raise OSError("no data")
""",
).replace("class Watch(Callback):\n", "class Watch(Callback):\n    fails = True\n\n")


def test_a_training_that_an_exception_leaves_is_undone_and_the_next_one_is_another_loop(
    skorch: Nursery, tmp_path: Path
) -> None:
    script = tmp_path / "train.py"
    caught = f"""\
    try:
        net.fit(X, y)
    except OSError:
        print("caught", len(X))
        Watch.fails = False
    print("again", len(X))
{FIT}"""
    script.write_text(FAILING.replace(FIT, caught))
    skorch.run(tmp_path / "store", *RECORD, script, tmp_path / "out", unknown=True)
    with florlog.open(tmp_path / "store") as log:
        run = log.run()
        assert run.tree().status == "complete"
        places = {value.name: value.path for value in run.logged()}
        iterations = [entry["path"] for entry in run.iterations()]
    assert places["caught"] == places["again"] == ()
    assert places["valid_acc"] == (("epoch#2", 3),)
    assert {"epoch": 0} in iterations
    assert {"epoch": 1} not in iterations
    assert {"epoch#2": 3} in iterations


def test_an_exception_that_ends_the_run_is_in_the_iteration_that_it_left(
    skorch: Nursery, tmp_path: Path
) -> None:
    script = tmp_path / "train.py"
    script.write_text(FAILING)
    skorch.run(tmp_path / "store", *RECORD, script, tmp_path / "out", unknown=True, code=1)
    assert "OSError: no data" in skorch.output.read_text()
    with florlog.open(tmp_path / "store") as log:
        failure = log.run().tree().failure
    assert failure is not None
    assert failure.path == (("epoch", 1), ("batch", 2))


def test_a_net_that_is_pickled_while_it_trains_has_no_hooks(skorch: Nursery, tmp_path: Path) -> None:
    script, out = tmp_path / "train.py", tmp_path / "out"
    dumped = """        if training and self.batches == 9:
            with open(sys.argv[1] + "/net.pkl", "wb") as file:
                pickle.dump(net, file)
"""
    loaded = """    with open(sys.argv[1] + "/net.pkl", "rb") as file:
        print("callbacks", str([name for name, _ in pickle.load(file).callbacks_]))
"""
    line = "        self.batches += training\n"
    text = programs.SKORCH.replace(line, line + dumped).replace(
        "import json\n", "import json\nimport pickle\n"
    )
    script.write_text(text.replace(FIT, FIT + loaded))
    skorch.run(tmp_path / "unused", script, out)
    without = re.findall("callbacks .*", skorch.output.read_text())
    skorch.run(tmp_path / "store", *RECORD, script, out, unknown=True)
    assert re.findall("callbacks .*", skorch.output.read_text()) == without
    assert len(without) == 1


def test_a_program_whose_loop_is_its_own_is_resumed_as_ever(skorch: Nursery, tmp_path: Path) -> None:
    """It has a framework's class, and no hook of it is called."""
    script = tmp_path / "train.py"
    script.write_text(
        "import os\nimport sys\n\nimport torch\nfrom skorch import NeuralNetClassifier\n\n"
        "model = torch.nn.Linear(2, 1)\noptimizer = torch.optim.SGD(model.parameters(), 0.1)\n"
        "for step in range(40):\n"
        "    loss = model(torch.randn(4, 2)).sum()\n    optimizer.zero_grad()\n    loss.backward()\n"
        "    optimizer.step()\n    print('loss', loss.item())\n"
        "    if step == 30 and not os.path.exists(sys.argv[1]):\n"
        "        open(sys.argv[1], 'w').close()\n        os.kill(os.getpid(), 9)\n"
    )
    store = tmp_path / "store"
    assert skorch.run(store, *RECORD, script, tmp_path / "died", unknown=True, dense=True)[0]
    skorch.run(store, "florlog", "resume", script, tmp_path / "died", unknown=True, dense=True)
    assert "resumed from step=" in skorch.output.read_text()


def test_a_run_that_would_go_on_by_itself_begins_anew(skorch: Nursery, tmp_path: Path) -> None:
    script, out = tmp_path / "train.py", tmp_path / "out"
    script.write_text(SCRIPTS["skorch"].text("skorch").replace("audit=False", 'audit=False, resume="auto"'))
    (tmp_path / "out.kill").touch()
    assert skorch.run(tmp_path / "store", script, out, unknown=True)[0]
    (tmp_path / "out.kill").unlink()
    skorch.run(tmp_path / "store", script, out, unknown=True)
    assert re.search("can be read, and neither .*: a new run begins", skorch.output.read_text())
    with florlog.open(tmp_path / "store") as log:
        assert [run.tree().status for run in log.runs] == ["crashed", "complete"]
        last = {value.path for value in log.run().logged() if value.name == "valid_acc"}
    assert last == {(("epoch", epoch),) for epoch in range(4)}
