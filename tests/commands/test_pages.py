"""The pages of the commands are those that their parsers make."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from florlog.commands import COMMANDS, parser

pytest.importorskip("cogapp")

ROOT = Path(__file__).resolve().parents[2]
PAGES = ROOT / "docs" / "commands"


@pytest.mark.skipif(
    sys.version_info >= (3, 13), reason="argparse of 3.13 and newer words the same help otherwise"
)
def test_no_page_is_stale() -> None:
    command = [sys.executable, "-m", "cogapp", "--check", "--diff", "-e", "-I", "docs"]
    done = subprocess.run(
        [*command, *sorted(map(str, PAGES.glob("*.md")))],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"run make docs-update\n{done.stdout}{done.stderr}"
    assert "no cog code found" not in done.stdout + done.stderr


def test_every_command_has_a_page_and_every_command_below_it_a_section(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(ROOT / "docs")
    from command_help import below  # type: ignore[import-not-found, unused-ignore]

    wanted = {
        name: [name, *(f"{name} {inner}" for inner in below(sub))] for name, sub in below(parser()).items()
    }
    assert list(wanted) == list(COMMANDS)
    held = {
        page.stem: re.findall(r'cog\.outl\(usage\("(.*?)"\)\)', page.read_text(encoding="utf-8"))
        for page in PAGES.glob("*.md")
        if page.stem != "index"
    }
    assert held == wanted
