"""The files of a program: its script and the user's modules that it imports, found without running anything.

Modules are looked up as Python does it: below the directory that the program starts from, below the directories that it
adds to ``sys.path``, and below those from which the user's modules are imported (`florlog.program.import_roots`).
Installed libraries are not followed.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from florlog.program.import_roots import OWN, import_roots, is_library, put_into
from florlog.programs.added_paths import added_paths
from florlog.source.names.syntax import parse


def program_files(script: str, root: Path, text: str | None = None) -> dict[str, str]:
    """The script and the user's modules that it imports: absolute path -> module name.

    ``root`` is the directory below which absolute imports are looked up first.  ``text`` is the script's where there is
    no such file.  Raises `SourceError` for a file that is not Python.
    """
    found = {script: "__main__"}
    pending = [script]
    roots = _Roots(root)
    while pending:
        file = Path(pending.pop())
        source = text if text is not None and str(file) == script else file.read_text(encoding="utf-8")
        tree = parse(source, str(file))
        roots.own += [path for path in added_paths(tree, file) if path not in roots.own]
        for name, base in _imports(tree, file, roots):
            stem = base.joinpath(*name.split(".")) if name else base
            for path in (stem.with_suffix(".py"), stem / "__init__.py"):
                if path.is_file() and str(path) not in found:
                    found[str(path)] = roots.module_of(path) or name
                    pending.append(str(path))
    return found


def module_file(name: str, root: Path) -> Path | None:
    """The file that ``python -m name`` runs from a directory, None if it is not the user's own module."""
    base = _Roots(root).home(name)
    if base is None:
        return None
    stem = base.joinpath(*name.split("."))
    places = (stem / "__main__.py",) if (stem / "__init__.py").is_file() else (stem.with_suffix(".py"),)
    return next((path for path in (*places, stem / "__main__.py") if path.is_file()), None)


class _Roots:
    """Where modules are looked up; ``own``: where the program starts from, and what it adds to ``sys.path``."""

    def __init__(self, root: Path) -> None:
        self.own = [root]
        self._others = [Path(entry) for entry in import_roots()]

    def home(self, module: str) -> Path | None:
        """The first directory that has the top-level package of a module, None for a library's."""
        top = module.partition(".")[0]
        if not top or top in OWN:
            return None
        roots = [
            root
            for root in (self.own if is_library(top) else [*self.own, *self._others])
            if top not in put_into(str(root))
        ]
        for root in roots:
            if (root / f"{top}.py").is_file() or (root / top / "__init__.py").is_file():
                return root
        return next((root for root in roots if (root / top).is_dir()), None)

    def module_of(self, path: Path) -> str:
        """The dotted name under which a file is imported, "" if it lies below no root."""
        around = [root for root in (*self.own, *self._others) if path.is_relative_to(root)]
        if not around:
            return ""
        parts = path.relative_to(max(around, key=lambda root: len(root.parts))).with_suffix("").parts
        return ".".join(part for part in parts if part != "__init__")


def _imports(tree: ast.Module, file: Path, roots: _Roots) -> Iterator[tuple[str, Path]]:
    """Each module that a file may import: its dotted name, and the directory that the name starts from."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                base = roots.home(alias.name)
                parts = alias.name.split(".")
                for end in range(1, len(parts) + 1) if base is not None else ():
                    yield ".".join(parts[:end]), base  # type: ignore[misc]
        elif isinstance(node, ast.ImportFrom):
            base = roots.home(node.module or "") if not node.level else file.parents[node.level - 1]
            if base is None:
                continue
            parts = node.module.split(".") if node.module else []
            for end in range(0 if node.level else 1, len(parts) + 1):
                yield ".".join(parts[:end]), base
            for alias in node.names:
                yield ".".join([*parts, alias.name]), base
