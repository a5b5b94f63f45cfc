"""Imports point downwards only.

Which room may import which is a contract in pyproject.toml that `make lint` checks with import-linter; here it is shown
that the contract notices an upward import.  What a package may import of other people's is an allow-list below, read
off the source by ast.
"""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

LAYERS = {
    "florlog_wal": ROOT / "wal" / "florlog_wal",
    "florlog_recovery": ROOT / "recovery" / "florlog_recovery",
    "florlog": ROOT / "florlog",
}

# What a layer may import beside the standard library and itself. An allow-list, so that a dependency that
# nobody thought of is caught too. The log layer must be usable by somebody who has no torch.
ALLOWED = {
    "florlog_wal": {"lmdb", "msgpack", "numpy", "xxhash", "zstandard"},
    "florlog_recovery": {"florlog_wal", "numpy"},
    # The browser's own (aiohttp comes with textual_serve) and the notebook's are extras, imported only where they run.
    "florlog": {
        "florlog_wal",
        "florlog_recovery",
        "IPython",
        "numpy",
        "pandas",
        "torch",
        "xxhash",
        "aiohttp",
        "rich",
        "textual",
        "textual_serve",
    },
}


def imports(source: str) -> Iterator[tuple[int, str]]:
    """Line and top-level name of every absolute import, those inside functions and TYPE_CHECKING included."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name.partition(".")[0]) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.lineno, node.module.partition(".")[0]


def violations(layer: str, folder: Path) -> list[str]:
    known = ALLOWED[layer] | {layer} | sys.stdlib_module_names
    return [
        f"{file.relative_to(ROOT)}:{line} imports {name}"
        for file in sorted(folder.rglob("*.py"))
        for line, name in imports(file.read_text(encoding="utf-8"))
        if name not in known
    ]


@pytest.mark.parametrize("layer", LAYERS)
def test_a_layer_imports_only_what_lies_below_it(layer: str) -> None:
    assert violations(layer, LAYERS[layer]) == []


@pytest.mark.parametrize("layer", LAYERS)
def test_every_layer_is_where_this_test_looks_for_it(layer: str) -> None:
    assert (LAYERS[layer] / "__init__.py").is_file()


@pytest.mark.parametrize(
    "statement",
    ["import torch", "from florlog import run", "def f():\n    import florlog_recovery.plan as p"],
)
def test_an_upward_import_is_found_wherever_it_stands(statement: str) -> None:
    names = {name for _, name in imports(statement)}
    assert names - ALLOWED["florlog_wal"] - {"florlog_wal"} - sys.stdlib_module_names == names


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("florlog/state/tree.py", "import florlog.redo.answer"),
        ("florlog/reading/render.py", "def later():\n    from florlog.commands import main\n    main()"),
        ("florlog/source/names/syntax.py", "from florlog.source.skip import acts"),
        ("florlog/errors.py", "if TYPE_CHECKING:\n    from florlog.program import stores"),
        ("recovery/florlog_recovery/tree.py", "def later():\n    import florlog.errors"),
        ("florlog/loose.py", ""),
    ],
)
def test_the_contract_of_the_rooms_notices(module: str, line: str, tmp_path: Path) -> None:
    skip = shutil.ignore_patterns("__pycache__")
    for folder in ("florlog", "wal", "recovery"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=skip)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    assert contracts(tmp_path) == 0
    with (tmp_path / module).open("a") as file:
        file.write(f"\n{line}\n")
    assert contracts(tmp_path) == 1


def contracts(folder: Path) -> int:
    """The exit code of import-linter over a copy of the packages."""
    path = ":".join(str(folder / part) for part in (".", "wal", "recovery"))
    command = [Path(sys.executable).with_name("lint-imports"), "--no-logo", "--no-cache"]
    done = subprocess.run(
        command, cwd=folder, env={"PYTHONPATH": path, "PATH": ""}, capture_output=True, check=False
    )
    return done.returncode
