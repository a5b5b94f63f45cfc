"""The pages of the commands are those that their parsers make."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_every_command_has_its_page_and_no_page_is_stale() -> None:
    code = (
        "import sys, json; sys.path.insert(0, 'docs')\n"
        "import make_commands; print(json.dumps(make_commands.pages()))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    import json

    made = json.loads(done.stdout)
    held = {file.name: file.read_text(encoding="utf-8") for file in (ROOT / "docs" / "commands").glob("*.md")}
    assert held == made, "run python docs/make_commands.py"
