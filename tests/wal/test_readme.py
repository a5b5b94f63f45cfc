"""wal/README.md's example runs and prints what it says."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

README = Path(__file__).parents[2] / "wal" / "README.md"


def test_the_example_prints_what_it_says(tmp_path: Path) -> None:
    text = README.read_text("utf-8")
    code = re.search(r"```python\n(.*?)```", text, re.DOTALL)
    printed = re.search(r"```text\n(.*?)```", text, re.DOTALL)
    assert code is not None
    assert printed is not None
    out = subprocess.run(
        [sys.executable, "-c", code[1]], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (out.stderr, out.stdout) == ("", printed[1])


def test_every_module_is_in_the_table_of_parts() -> None:
    modules = {path.stem for path in (README.parent / "florlog_wal").glob("*.py")} - {"__init__", "errors"}
    parts = README.read_text("utf-8").partition("## The parts")[2].partition("## Good")[0]
    assert set(re.findall(r"`(\w+)`", parts)) == modules


def test_what_it_needs_is_what_it_imports() -> None:
    imported = set()
    for path in (README.parent / "florlog_wal").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            imported |= {name.partition(".")[0] for name in names}
    named = re.search(r"^pip install (lmdb .*)$", README.read_text("utf-8"), re.MULTILINE)
    assert named is not None
    # deltas imports zstandard by importlib, since it can do without
    assert imported - sys.stdlib_module_names - {"florlog_wal"} == set(named[1].split()) - {"zstandard"}
