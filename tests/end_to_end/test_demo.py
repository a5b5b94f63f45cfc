"""The guided tour of the README holds all that it claims."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from .harness import EXAMPLES, environment


@pytest.mark.long
@pytest.mark.wheel
def test_the_demo_finds_every_claim_true(tmp_path: Path) -> None:
    shutil.copytree(EXAMPLES, tmp_path / "examples")
    done = subprocess.run(
        [sys.executable, tmp_path / "examples" / "demo.py"],
        env=environment(tmp_path / "unused"), capture_output=True, text=True, check=False, timeout=400,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "FAILED" not in done.stdout
    assert done.stdout.count("  ok  ") >= 7
