"""What ``explain`` and ``replay`` have in common: the arguments that make a question."""

from __future__ import annotations

import argparse
from pathlib import Path

from florlog.commands._arguments import add_format, add_script, number_of
from florlog.program.stores import store_path
from florlog.redo.replaying import Question


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


def question_of(options: argparse.Namespace, run: str) -> Question:
    """The question that the arguments put to a run."""
    return Question(
        store=str(store_path(options.store)),
        run=run,
        script=str(Path(options.script).absolute()),
        where=options.where,
        first=options.first,
        last=options.last,
        force=options.force,
        workers=getattr(options, "workers", 1),  # which ``explain`` has not
    )
