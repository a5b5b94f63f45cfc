"""The files of a program: its script and the local modules that it imports, found without running anything."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from florlog.source.names.syntax import parse


def program_files(script: str, root: Path, text: str | None = None) -> dict[str, str]:
    """The script and the local modules that it imports: absolute path -> module name.

    ``root`` is the directory below which absolute imports are looked up.  ``text`` is the script's where there is no
    such file.  Raises `SourceError` for a file that is not Python.
    """
    found = {script: "__main__"}
    pending = [script]
    while pending:
        file = Path(pending.pop())
        source = text if text is not None and str(file) == script else file.read_text(encoding="utf-8")
        tree = parse(source, str(file))
        for name, base in _imports(tree, file, root):
            stem = base.joinpath(*name.split(".")) if name else base
            for path in (stem.with_suffix(".py"), stem / "__init__.py"):
                if path.is_file() and str(path) not in found:
                    inside = path.is_relative_to(root)
                    parts = path.relative_to(root).with_suffix("").parts if inside else (name,)
                    found[str(path)] = ".".join(part for part in parts if part != "__init__")
                    pending.append(str(path))
    return found


def _imports(tree: ast.Module, file: Path, root: Path) -> Iterator[tuple[str, Path]]:
    """Each module that a file may import: its dotted name, and the directory that the name starts from."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                parts = alias.name.split(".")
                for end in range(1, len(parts) + 1):
                    yield ".".join(parts[:end]), root
        elif isinstance(node, ast.ImportFrom):
            base = root if not node.level else file.parents[node.level - 1]
            parts = node.module.split(".") if node.module else []
            for end in range(len(parts) + 1):
                yield ".".join(parts[:end]), base
            for alias in node.names:
                yield ".".join([*parts, alias.name]), base
