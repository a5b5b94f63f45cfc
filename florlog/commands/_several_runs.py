"""``florlog replay --run A,B,C`` and ``--all``: one question, several runs, one table."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from florlog.commands._arguments import trust_of
from florlog.commands._question import question_of
from florlog.commands._text_table import table
from florlog.errors import FlorlogError
from florlog.program.stores import open_store, store_path
from florlog.questions.answer_json import answer_json
from florlog.questions.versions import Version, replay_versions, report_versions, runs_of


def replay_runs(options: argparse.Namespace) -> int:
    """Replay each run from its own source, and print what was found; the exit code."""
    question = question_of(options, "")
    if not Path(question.script).is_file():
        raise FlorlogError(f"there is no script {question.script}")
    with open_store(store_path(options.store)) as store:
        named = [run for run in (options.run or "").split(",") if run]
        runs = runs_of(store, question.script) if options.all else list(dict.fromkeys(named))
        found = replay_versions(store, runs, question, trust_of(options))
    answers = [_as_json(version) for version in found]
    if options.format == "json":
        print(json.dumps({"runs": answers}))
    else:
        _print_table(answers)
    report_versions(found)
    answered = [version.replayed for version in found if version.replayed is not None]
    if not answered:
        return 2
    return 1 if any(replayed.answer.differences for replayed in answered) else 0


def _as_json(version: Version) -> dict[str, Any]:
    if version.replayed is None:
        return {"run": version.run, "refused": version.refused}
    return answer_json(version.replayed)


def _print_table(answers: Sequence[dict[str, Any]]) -> None:
    rows: list[dict[str, Any]] = []
    values = [(answer["run"], value) for answer in answers for value in answer.get("values", ())]
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
