"""Predictions of Lightning: killed in their midst, resumed, and asked afterwards."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.end_to_end.harness import Nursery
from tests.frameworks.programs import LIGHTNING, OPTIONS
from tests.frameworks.recorded import RECORD

torch = pytest.importorskip("torch")
pytest.importorskip("lightning")

PREDICTS = """\
    predicted = 0

    def predict_step(self, batch, batch_idx):
        Net.predicted += 1
        if Net.predicted == 4 and os.path.exists(sys.argv[1] + ".kill"):
            os.kill(os.getpid(), 9)
        made = self(batch[0]) + torch.rand(1)
        return made

    def configure_optimizers"""
CALL = """\
    last["predicted"] = torch.cat(trainer.predict(net, DataLoader(data(2, 24), batch_size=4)))
    torch.save({"last\""""


@pytest.mark.crash
@pytest.mark.slow
def test_a_prediction_goes_on_with_the_same_random_numbers_and_is_asked(
    lightnings: Nursery, tmp_path: Path
) -> None:
    text = LIGHTNING.replace("    def configure_optimizers", PREDICTS).replace('    torch.save({"last"', CALL)
    script, store, out = tmp_path / "train.py", tmp_path / "store", tmp_path / "out"
    options = json.dumps(OPTIONS)
    script.write_text(text)
    lightnings.run(tmp_path / "unused", script, tmp_path / "plain", options)
    (tmp_path / "out.kill").touch()
    lightnings.run(store, *RECORD, script, out, options, dense=True, code=-9)
    (tmp_path / "out.kill").unlink()
    lightnings.run(store, "florlog", "resume", script, out, options, dense=True)
    predicted = [torch.load(place / "end.pt")["last"]["predicted"] for place in (tmp_path / "plain", out)]
    assert torch.equal(*predicted)
    script.write_text(
        text.replace(
            "        return made\n", '        print("asked", made.sum().item())\n        return made\n'
        )
    )
    lightnings.run(store, "florlog", "replay", script, "--format", "json", "--where", "predict == 2")
    said = lightnings.output.read_text()
    answer = json.loads(next(line for line in said.splitlines() if line.startswith("{")))
    lightnings.run(tmp_path / "unused", script, tmp_path / "full", options)
    truth = re.findall(r"asked (.*)", lightnings.output.read_text())
    assert [(value["path"], str(value["value"])) for value in answer["values"]] == [
        ({"predict": 2}, truth[2])
    ]
    assert {value["trust"] for value in answer["values"]} == {"PROVEN"}
