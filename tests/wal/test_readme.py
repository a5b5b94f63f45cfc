"""wal/README.md's example runs and prints what it says."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

README = Path(__file__).parents[2] / "wal" / "README.md"


def readme_example() -> tuple[str, str]:
    """The example's code, and what it prints."""
    text = README.read_text("utf-8")
    code = re.search(r"```python\n(.*?)```", text, re.DOTALL)
    printed = re.search(r"```text\n(.*?)```", text, re.DOTALL)
    assert code is not None
    assert printed is not None
    return code[1], printed[1]


def test_the_example_prints_what_it_says(tmp_path: Path) -> None:
    code, printed = readme_example()
    out = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (out.stderr, out.stdout) == ("", printed)


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
    project = tomllib.loads((README.parent / "pyproject.toml").read_text("utf-8"))["project"]
    needed = {dependency.partition(">=")[0] for dependency in project["dependencies"]}
    # deltas imports zstandard by importlib, since it can do without
    assert imported - sys.stdlib_module_names - {"florlog_wal"} == needed - {"zstandard"}
