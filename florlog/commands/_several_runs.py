"""``florlog replay --run A,B,C`` and ``--all``: one question, several runs, one table."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from florlog.commands._text_table import table
from florlog.errors import FlorlogError
from florlog.program.stores import open_store, store_path
from florlog.program.terminal import report
from florlog.questions.versions import Version, replay_versions, runs_of


def replay_runs(options: argparse.Namespace, passed_on: Sequence[str]) -> int:
    """Replay each run from its own source, and print what was found; the exit code."""
    script = str(Path(options.script).absolute())
    if not Path(script).is_file():
        raise FlorlogError(f"there is no script {script}")
    with open_store(store_path(options.store), "r") as store:
        named = [run for run in (options.run or "").split(",") if run]
        runs = runs_of(store, script) if options.all else list(dict.fromkeys(named))
        found = replay_versions(store, script, runs, [*passed_on, f"--workers={options.workers}"])
    if options.format == "json":
        print(json.dumps({"runs": [_as_json(version) for version in found]}))
    else:
        _print_table(found)
    for version in found:
        if version.refused:
            report(f"run {version.run} has no values: {version.refused}")
        elif version.answer["differences"]:
            report(f"run {version.run} differs from its recording: {version.answer['differences'][0]}")
    if all(version.refused for version in found):
        return 2
    return 1 if any(version.answer.get("differences") for version in found) else 0


def _as_json(version: Version) -> dict[str, Any]:
    if version.refused:
        return {"run": version.run, "refused": version.refused}
    return {key: value for key, value in version.answer.items() if key != "differences"}


def _print_table(found: Sequence[Version]) -> None:
    rows: list[dict[str, Any]] = []
    values = [(version.run, value) for version in found for value in version.answer.get("values", ())]
    loops = dict.fromkeys(loop for _, value in values for loop in value["path"])
    cells: dict[tuple[Any, ...], dict[str, Any]] = {}
    for run, value in values:
        place = {loop: value["path"].get(loop, "") for loop in loops}
        count = 0
        while value["name"] in cells.get((run, *place.items(), value["trust"], count), ()):
            count += 1  # logged again in the same iteration: another row
        key = (run, *place.items(), value["trust"], count)
        if key not in cells:
            cells[key] = {}
            rows.append({"run": run, **place, "cells": cells[key], "trust": value["trust"]})
        cells[key][value["name"]] = value["value"]
    names = dict.fromkeys(value["name"] for _, value in values)
    lines = [
        {k: v for k, v in row.items() if k not in ("cells", "trust")}
        | {name: row["cells"].get(name, "") for name in names}
        | {"trust": row["trust"]}
        for row in rows
    ]
    print(table(lines, 60) if rows else "no values")
