"""``florlog explain``: the plan of a replay, as SQL's EXPLAIN."""

from __future__ import annotations

import argparse
import json

from florlog.commands._arguments import run_of_script
from florlog.commands._effects import show_effects
from florlog.commands._question import add_question, question_of
from florlog.hindsight.plan_text import plan_text
from florlog.hindsight.plan_view import view_of
from florlog.program.stores import open_store, store_path, tree_of
from florlog.redo.replaying import planned

__all__ = ["arguments", "run"]


def arguments(parser: argparse.ArgumentParser) -> None:
    """A question, or ``--effects``."""
    add_question(parser)
    parser.add_argument(
        "--effects",
        action="store_true",
        help="instead: what each loop of SCRIPT may change, next to its source; no run is needed",
    )


def run(options: argparse.Namespace) -> int:
    """Print the plan, or the effects."""
    if options.effects:
        return show_effects(options.script, as_json=options.format == "json")
    with open_store(store_path(options.store)) as store:
        log = run_of_script(store, options)
        tree = tree_of(log)
        request, plan = planned(log, tree, question_of(options, tree.run))
    view = view_of(plan, request)
    if options.format == "json":
        print(json.dumps(view))
    else:
        for added in request.added:
            print(f"added: {added}")
        for note in request.remarks.images:
            print(f"note: {note}")
        print(plan_text(view))
    return 0
