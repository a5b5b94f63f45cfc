"""``florlog replay``: hindsight values from the minimal redo set."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

from florlog.commands._arguments import number_of
from florlog.commands._question import add_question, planned
from florlog.commands._several_runs import replay_runs
from florlog.commands._text_table import table
from florlog.hindsight.plan_view import PlanView, analyzed, plan_text
from florlog.hindsight.request import Question
from florlog.program.stores import open_store, store_path
from florlog.program.terminal import report
from florlog.reading.render import jsonable
from florlog.redo.answer import Answer, answer

__all__ = ["arguments", "run"]


def arguments(parser: argparse.ArgumentParser) -> None:
    """A question, how many processes answer it, and ``--analyze``."""
    add_question(parser)
    parser.add_argument(
        "--workers",
        type=number_of("processes"),
        default=1,
        metavar="N",
        help="processes that share the redo (default 1)",
    )
    parser.add_argument(
        "--all",
        action="store_true",
        help="every run recorded from SCRIPT, each from its own source, in one table (or some: --run A,B,C)",
    )
    parser.add_argument(
        "--analyze", action="store_true", help="show the plan with the time that each part of it took"
    )


def run(options: argparse.Namespace) -> int:
    """Replay, print the values, and store them beside the recording."""
    if options.all or "," in (options.run or ""):
        return replay_runs(options, _passed_on(options))
    question, view, found = _replayed(options, {})
    if options.format == "json":
        print(json.dumps(_answer_json(found, question, view)))
    else:
        _print_answer(found, question, view)
        if options.analyze:
            print(plan_text(view))
    if not found.differences:
        return 0
    report(f"the replay differs from the recording: {found.differences[0]}")
    return 1


def answered(options: argparse.Namespace, shown: dict[str, str]) -> dict[str, Any]:
    """The answer as JSON has it, with its ``differences``; ``shown``: what to call files that lie elsewhere."""
    question, view, found = _replayed(options, shown)
    return {**_answer_json(found, question, view), "differences": found.differences}


def _replayed(options: argparse.Namespace, shown: dict[str, str]) -> tuple[Question, PlanView, Answer]:
    with open_store(store_path(options.store), "r") as store:
        question, plan, view = planned(store, options)
        question.shown = shown
        if options.format == "text" and not options.analyze:
            print(plan_text(view), file=sys.stderr)
        progress = _progress(view["iterations_redone"])
        found = answer(
            store,
            question,
            plan,
            progress=progress,
            workers=_possible(options, question),
            argv=_argv(options, question),
        )
        if progress is not None:
            print(file=sys.stderr)
        if options.analyze:
            analyzed(view, found.spans, found.passed)
        for skip in view["skips"]:
            skip["file"] = shown.get(skip["file"], skip["file"])
    return question, view, found


def _possible(options: argparse.Namespace, question: Question) -> int:
    """How many workers there will be."""
    workers: int = options.workers
    if workers > 1 and question.tree.status == "running":
        report("the run is still being recorded: one process replays it")
        return 1
    threads, cores = question.tree.begin.environment.get("threads", 1), os.cpu_count() or 1
    if workers > 1 and isinstance(threads, int) and workers * threads > cores:
        report(
            f"{workers} workers of {threads} threads share {cores} cores; fewer threads would change the numbers, "
            "fewer workers may be as fast"
        )
    return workers


def _argv(options: argparse.Namespace, question: Question) -> list[str]:
    """The arguments of a replay that asks the same."""
    argv = ["replay", options.script, "--run", question.tree.run, "--store", str(store_path(options.store))]
    return [*argv, *_passed_on(options)]


def _passed_on(options: argparse.Namespace) -> list[str]:
    argv = [
        f"--{name}={value}"
        for name in ("where", "first", "last")
        if (value := getattr(options, name)) is not None
    ]
    return [*argv, "--force"] if options.force else argv


def _progress(total: int) -> Callable[[int], None] | None:
    if not sys.stderr.isatty() or not total:
        return None
    started = shown = time.perf_counter()

    def show(done: int) -> None:
        nonlocal shown
        now = time.perf_counter()
        if now - shown > 0.1 or done == total:
            shown = now
            left = (
                (now - started) / done * max(0, total - done)
            )  # parts may overlap: more may be done than planned
            print(
                f"\rreplaying: {done} of {total} iterations, {left:.0f} s left ",
                end="",
                file=sys.stderr,
                flush=True,
            )

    return show


def _answer_json(found: Answer, question: Question, view: PlanView) -> dict[str, Any]:
    values = [
        {
            "name": value.name,
            "statement": {
                "file": question.shown.get(value.file, value.file),
                "line": value.line,
                "qualname": value.qualname,
            },
            "path": dict(value.path),
            "value": jsonable(value.value),
            "trust": value.trust,
        }
        for value in found.values
    ]
    return {"run": view["run"], "values": values, "plan": view}


def _print_answer(found: Answer, question: Question, view: PlanView) -> None:
    if not found.values:
        print("the added statements were not reached: no values")
    names = list(dict.fromkeys(value.name for value in found.values))
    for name in names:
        values = [value for value in found.values if value.name == name]
        loops = dict.fromkeys(loop for value in values for loop, _ in value.path)
        rows = [{**dict.fromkeys(loops, ""), **dict(v.path), name: v.value, "trust": v.trust} for v in values]
        print(table(rows, 20))
        print()
    counts: dict[str, int] = {}
    for value in found.values:
        counts[value.trust] = counts.get(value.trust, 0) + 1
    listed = ", ".join(f"{count} {trust}" for trust, count in counts.items()) or "none"
    print(
        f"{len(found.values)} values ({listed}) from {view['iterations_redone']} of "
        f"{view['iterations_total']} iterations in {found.seconds:.2f} s, set-up included; "
        f"the recorded loops took {view['full_rerun_seconds']:.2f} s"
    )
    if found.stored:
        print(
            f"stored beside run {question.tree.run}: florlog.open(...).values({names[0]!r})" if names else ""
        )
