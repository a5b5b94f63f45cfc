"""``florlog explain --effects``: what each loop of a script may change, next to its source."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from florlog.errors import FlorlogError
from florlog.programs.program_files import program_files
from florlog.source.carry.changeset import LoopEffects, loop_effects, report
from florlog.source.edit.loop_choice import choose
from florlog.source.edit.rewrite import reading
from florlog.source.names.syntax import read_as


def show_effects(script: str, *, as_json: bool) -> int:
    """Print the changesets of the loops of a script and its local modules; no run is needed.  The exit code."""
    path = Path(script).absolute()
    if not path.is_file():
        raise FlorlogError(f"there is no script {path}")
    texts = {file: Path(file).read_text(encoding="utf-8") for file in program_files(str(path), path.parent)}
    found = loop_effects(texts)
    if not any(loop.recorded for loop in found):  # it has no florlog loops: show those that `record` takes
        with read_as(reading(choose(texts).loops)):
            found = loop_effects(texts)
    if as_json:
        print(json.dumps({"loops": [_as_json(loop) for loop in found]}))
        return 0
    for loop in found:
        print(f"== {Path(loop.file).name}, loop at line {loop.line}")
        for line in report(loop, texts[loop.file]):
            print(line)
        print()
    if not found:
        print("no loops")
    return 0


def _as_json(loop: LoopEffects) -> dict[str, Any]:
    return {
        "file": loop.file,
        "line": loop.line,
        "changeset": loop.changeset,
        "scoped": loop.scoped,
        "out_of_sight": loop.hidden,
        "unknown": [{"line": e.line, "statement": e.text, "reason": e.unknown} for e in loop.unknown],
        "statements": [
            {"line": e.line, "statement": e.text, "changes": e.names, "out_of_sight": e.hidden}
            for e in loop.effects
        ],
    }
