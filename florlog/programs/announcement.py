"""What florlog found in an unmodified program, in five lines on stderr."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from pathlib import Path

from florlog.bridges.plain_loops import Runtime
from florlog.program.terminal import report
from florlog.source.carry.changeset import loop_effects
from florlog.source.edit.cell_text import executed
from florlog.source.edit.loop_choice import Choice
from florlog.source.edit.rewrite import shows_values

MAX_LISTED_ITEMS = 8


class Announcement:
    """The lines for one program: its recorded loops, and the ``texts`` of its files; ``store`` is where it records."""

    def __init__(self, choice: Choice, store: Path, texts: Mapping[str, str]) -> None:
        self._choice, self._store, self._texts = choice, store, texts

    def __call__(self, runtime: Runtime) -> None:
        """Print the lines for a run that has just begun."""
        if not runtime.run.id:  # not recorded, as on all ranks but the first
            return
        loops = [
            f"{name} ({Path(file).name}:{line})"
            for file, lines in self._choice.loops.items()
            for line, name in sorted(lines.items())
        ]
        statements = sum(
            isinstance(node, ast.Call) and shows_values(node)
            for text in self._texts.values()
            for node in ast.walk(ast.parse(executed(text)))
        )
        effects = loop_effects(
            {file: self._texts[file] for file in self._choice.loops if file in self._texts}
        )
        unknown = dict.fromkeys(
            f"{Path(loop.file).name}:{effect.line} what `{effect.text}` changes"
            for loop in effects
            for effect in loop.unknown
        )
        verb = "resuming" if runtime.run.resumed else "recording"
        report(f"{verb} run {runtime.run.id} in {self._store}")
        report(f"loops: {_listed(loops) or 'none found, so the run is one transaction'}")
        report(f"tracked: {_listed(list(runtime.tracked)) or 'nothing by name'}; and what the loops carry")
        report(f"statements: {statements} that print or log values, in {len(self._texts)} files")
        report(f"not understood: {_listed([*self._choice.not_taken, *unknown]) or 'nothing'}")


def _listed(items: list[str]) -> str:
    more = f" and {len(items) - MAX_LISTED_ITEMS} more" if len(items) > MAX_LISTED_ITEMS else ""
    return ", ".join(items[:MAX_LISTED_ITEMS]) + more
