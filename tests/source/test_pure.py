"""Reading code knows neither torch nor a run, and each room inside it imports only those below it."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import florlog.source

ROOT = Path(florlog.source.__file__).parent
ROOMS = ["names", "graph", "carry", "skip", "reach", "edit", "diff"]  # from the bottom up
ALLOWED = sys.stdlib_module_names | {"xxhash"}


def imported(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_of_source_imports_only_the_standard_library_and_the_rooms_below_it(room: str) -> None:
    below = tuple(f"florlog.source.{name}." for name in ROOMS[: ROOMS.index(room) + 1])
    files = sorted((ROOT / room).glob("*.py"))
    assert files
    for file in files:
        for name in imported(file):
            known = name.partition(".")[0] in ALLOWED or name == "florlog.errors" or name.startswith(below)
            assert known, f"{room}/{file.name} imports {name}"


def test_every_room_of_source_is_checked() -> None:
    assert sorted(ROOMS) == sorted(
        folder.name for folder in ROOT.iterdir() if (folder / "__init__.py").exists()
    )
