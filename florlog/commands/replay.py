"""``florlog replay``: hindsight values from the minimal redo set."""

from __future__ import annotations

import argparse
import json
import sys
from contextlib import ExitStack

from florlog.commands._arguments import add_trust, number_of, run_of_script, trust_images
from florlog.commands._question import add_question, question_of
from florlog.commands._several_runs import replay_runs
from florlog.commands._text_table import table
from florlog.hindsight.plan_text import plan_text
from florlog.hindsight.plan_view import PlanView, analyzed
from florlog.program.stores import open_store, store_path, tree_of
from florlog.program.terminal import report
from florlog.questions.answer_json import answer_json
from florlog.redo.answer import Progress
from florlog.redo.progress import progress_line
from florlog.redo.replaying import Replayed, replay_here

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
    add_trust(parser)
    parser.add_argument(
        "--analyze", action="store_true", help="show the plan with the time that each part of it took"
    )


def run(options: argparse.Namespace) -> int:
    """Replay, print the values, and store them next to the recording."""
    if options.all or "," in (options.run or ""):
        return replay_runs(options)
    replayed = _replayed(options)
    if options.format == "json":
        print(json.dumps(answer_json(replayed)))
    else:
        _print_answer(replayed)
        if options.analyze:
            print(plan_text(replayed.view))
    differences = replayed.answer.differences
    if not differences:
        return 0
    report(f"the replay differs from the recording: {differences[0]}")
    return 1


def _replayed(options: argparse.Namespace) -> Replayed:
    with open_store(store_path(options.store)) as store, ExitStack() as line:

        def announce(view: PlanView) -> Progress | None:
            if options.format == "text" and not options.analyze:
                print(plan_text(view), file=sys.stderr)
            return line.enter_context(progress_line(view["iterations_redone"]))

        log = run_of_script(store, options)
        tree = tree_of(log)
        trust_images(options, tree)
        replayed = replay_here(log, tree, question_of(options, tree.run), announce)
    if options.analyze:
        analyzed(replayed.view, replayed.answer.spans, replayed.answer.passed)
    return replayed


def _print_answer(replayed: Replayed) -> None:
    found, view = replayed.answer, replayed.view
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
        print(f"stored next to run {replayed.run}: florlog.open(...).values({names[0]!r})" if names else "")
