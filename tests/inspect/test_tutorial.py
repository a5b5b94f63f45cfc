"""The tutorial's question, followed through a real run: what the text says is what is printed."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from florlog.commands import main

ROOT = Path(__file__).resolve().parents[2]
TUTORIAL = ROOT / "docs" / "tutorial.md"
NORM = "nn.utils.get_total_norm([p.grad for p in model.parameters()])"


@pytest.mark.skipif(not TUTORIAL.exists(), reason="the documentation is not next to the tests")
def test_the_tutorial_s_commands_give_what_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = TUTORIAL.read_text(encoding="utf-8")
    (tmp_path / "examples").mkdir()
    script = Path(shutil.copy(ROOT / "examples" / "digits.py", tmp_path / "examples"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FLORLOG_STORE", raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")

    def shell(line: str, *more: str) -> str:
        words = [*shlex.split(line, comments=True), *more]
        if words[0] == "florlog" and words[1] != "replay":  # what only reads is asked in this process
            assert main(words[1:]) == 0
            return capsys.readouterr().out
        start = [sys.executable] if words[0] == "python" else [sys.executable, "-m", "florlog"]
        done = subprocess.run([*start, *words[1:]], capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{line}\n{done.stderr}"
        return done.stdout

    blocks = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    (record, tree, plan), ask = (block.strip().splitlines() for block in blocks)
    shell(record)
    assert "step: 90 iterations" in shell(tree)
    redo = json.loads(shell(plan, "--format", "json"))
    said = re.search(r"runs its (\d+) innermost\s+iterations, of (\d+)", text)
    assert said is not None
    assert (int(said[1]), int(said[2])) == (90 + 3, redo["iterations_total"])
    assert int(said[1]) <= redo["iterations_redone"]
    assert NORM in text
    asked = re.sub(r"( *)run\.log\(loss=loss\)\n", rf"\g<0>\1run.log(grad_norm={NORM})\n", script.read_text())
    script.write_text(asked)
    for line in ask:
        shell(line)
    table = pd.read_csv(tmp_path / "norms.csv")
    assert table["step"].tolist() == list(range(90))
    assert set(table["epoch"]) == {7}
    # Images are taken as the machine's load allows: with none near, a skipped loop is the one reason for less.
    records = shell("florlog inspect --answers --type Hindsight --format json").splitlines()
    doubts = {(r["trust"], r["detail"].partition("epoch=")[0]) for r in map(json.loads, records)}
    assert len(doubts) == 1
    assert doubts <= {("PROVEN", ""), ("CONSISTENT", "loop 'val' of ")}
    assert set(table["trust"]) == {trust for trust, _ in doubts}
    assert (table["grad_norm"] > 0).all()
