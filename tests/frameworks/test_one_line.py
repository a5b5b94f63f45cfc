"""One line in a plain script records a framework's loops: killed, resumed and asked as under ``florlog record``."""

from __future__ import annotations

import importlib
import re
import textwrap
from dataclasses import dataclass
from pathlib import Path

import pytest

import florlog
from tests.end_to_end.harness import Nursery
from tests.end_to_end.test_hindsight import ask
from tests.frameworks import programs


@dataclass(frozen=True)
class Script:
    """A framework's program: where its training starts, where it is killed, and where a statement is added."""

    program: str
    trained: str  # the call that trains, as a regular expression
    given: str  # what `record` is given
    counted: str  # a line of a callback; after it the process may be killed
    count: str  # which step that is
    asked: str  # a line after which a statement is added
    value: str
    step: str = "step"  # the name of its loop
    options: tuple[str, ...] = ()

    def text(self, framework: str, *, asked: bool = False) -> str:
        """The script with its line."""
        text = re.sub(
            rf"^    {self.trained}",
            lambda call: (
                f"    with florlog.{framework}.record({self.given}, overhead=float('inf'), audit=False):\n"
                f"{textwrap.indent(call[0], '    ')}"
            ),
            self.program.replace("import json\n", "import json\nimport florlog\n", 1),
            count=1,
            flags=re.MULTILINE | re.DOTALL,
        )
        column = " " * (len(self.counted) - len(self.counted.lstrip()))
        # The sleep lets the images that were taken until then become durable.
        dies = f'if {self.count} and os.path.exists(sys.argv[1] + ".kill"):\n{column}    '
        dies += "import time; time.sleep(0.5); os.kill(os.getpid(), 9)"
        text = text.replace(f"{self.counted}\n", f"{self.counted}\n{column}{dies}\n", 1)
        if asked:
            column = " " * (len(self.asked) - len(self.asked.lstrip()))
            text = text.replace(
                f"{self.asked}\n", f"{self.asked}\n{column}florlog.log(asked={self.value})\n", 1
            )
        return text


def options_of_lightning() -> tuple[str, ...]:
    """What its program is given."""
    module = importlib.import_module("tests.frameworks.test_lightning")
    return (str(module.options_as()),)


SCRIPTS = {
    "skorch": Script(
        programs.SKORCH, r"net\.fit\(X, y\)\n", "net",
        "        self.batches += training", "self.batches == 9",
        "        hidden = self.drop(torch.relu(self.first(X)))", "hidden.sum().item()", "batch",
    ),
    "ignite": Script(
        programs.IGNITE, r"trainer\.run\(.*?\n", "trainer",
        '        log.append([state.epoch, state.iteration, state.output, state.metrics["running"]])',
        "state.iteration == 9",
        "        loss = criterion(model(inputs), targets)", "loss.item()",
    ),
    "keras": Script(
        programs.KERAS, r"history = model\.fit\(.*?\n    \)\n", "model",
        "        self.batches += 1", "self.batches == 9",
        "        logs = super().train_step(data)", "float(logs['loss'])",
    ),
    "lightning": Script(
        programs.LIGHTNING, r"trainer\.fit\(.*?\n", "trainer",
        "        self.steps += 1", "self.steps == 9",
        "        loss = nn.functional.mse_loss(self(x), y)", "loss.item()",
    ),
}  # fmt: skip
PACKAGES = {"ignite": "ignite.engine", "lightning": "lightning.pytorch"}


@pytest.mark.drawn(1)
@pytest.mark.crash
@pytest.mark.parametrize("framework", SCRIPTS)
def test_a_plain_script_is_killed_resumed_and_asked(
    nurseries: dict[str, Nursery],
    framework: str,
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    package = PACKAGES.get(framework, framework)
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    pytest.importorskip(package)
    if framework not in nurseries:
        nurseries[framework] = Nursery(tmp_path_factory.mktemp("nursery"), package)
    nursery, made = nurseries[framework], SCRIPTS[framework]
    ended = importlib.import_module(f"tests.frameworks.test_{framework}").ended
    options = options_of_lightning() if framework == "lightning" else ()
    script, store = tmp_path / "train.py", tmp_path / "store"

    script.write_text(made.program)
    nursery.run(tmp_path / "unused", script, tmp_path / "plain", *options)
    script.write_text(made.text(framework))
    (tmp_path / "cut.kill").touch()
    assert nursery.run(store, script, tmp_path / "cut", *options, code=-9)
    (tmp_path / "cut.kill").unlink()
    nursery.run(store, "florlog", "resume", script, tmp_path / "cut", *options)
    assert "resumed from " in nursery.output.read_text()
    assert ended(tmp_path / "cut") == ended(tmp_path / "plain")

    script.write_text(made.text(framework, asked=True))
    full = tmp_path / "full"
    nursery.run(full, script, tmp_path / "other", *options)
    with florlog.open(full) as log:
        truth = {value.path: value.value for value in log.run().logged() if value.name == "asked"}
    answer = ask(nursery, store, script, "--where", f"epoch == 1 and {made.step} == 3")
    values = {tuple(value["path"].items()): value for value in answer["values"]}
    assert values
    assert all(value["value"] == truth[path] for path, value in values.items())
    assert {value["trust"] for value in values.values()} == {"PROVEN"}
    # Of an epoch that has more: where its steps take no longer than an image, they are executed from its start on.
    assert answer["plan"]["iterations_redone"] <= 8
