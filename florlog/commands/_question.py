"""What ``explain`` and ``replay`` have in common: the question that a script puts to a run, and its plan."""

from __future__ import annotations

import argparse
from pathlib import Path

from florlog_recovery import Plan
from florlog_wal import Store

from florlog.commands._arguments import add_format, add_script, number_of, run_of_script
from florlog.errors import SourceChangedError
from florlog.hindsight.plan_view import PlanView, plan_view
from florlog.hindsight.request import Question, ask, plan_for
from florlog.program.terminal import report


def add_question(parser: argparse.ArgumentParser) -> None:
    """The arguments that make a question."""
    add_script(parser, "the script, with log statements added")
    parser.add_argument(
        "--where",
        metavar="CONDITION",
        help="iterations, such as 'epoch >= 5 and step %% 100 == 0 and loss > 2' or 'step in [10:20]'",
    )
    parser.add_argument(
        "--first", type=number_of("iterations"), metavar="N", help="only the first N iterations of those"
    )
    parser.add_argument(
        "--last", type=number_of("iterations"), metavar="N", help="only the last N iterations of those"
    )
    parser.add_argument(
        "--force",
        action="store_true",
        help="also where recorded code was changed: no value is PROVEN then",
    )
    add_format(parser)


def asked(store: Store, options: argparse.Namespace) -> Question:
    """The question that the arguments make."""
    script = str(Path(options.script).absolute())
    try:
        question = ask(
            store,
            run_of_script(store, options),
            script,
            options.where,
            options.first,
            options.last,
            force=options.force,
        )
    except SourceChangedError as error:
        for change in error.changes[1:]:
            report(f"changed: {change}")
        raise
    for change in question.changes:
        report(f"changed: {change}")
    for text in question.altering:
        report(f"added code should only observe: {text}")
    return question


def planned(store: Store, options: argparse.Namespace) -> tuple[Question, Plan, PlanView]:
    """The question, the cheapest plan that answers it, and what to show of that."""
    question = asked(store, options)
    plan = plan_for(question)
    view = plan_view(
        plan,
        question.request,
        question.costs,
        answered_from_log=len(question.answered),
        reasons=question.reasons,
        pieces=question.pieces,
        passing=question.passing,
    )
    return question, plan, view
