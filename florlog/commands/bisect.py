"""``florlog bisect``: the first iteration at which a condition holds."""

from __future__ import annotations

import argparse
import json

from florlog.commands._arguments import add_format, add_script, add_trust, run_of_script, trust_of
from florlog.following.trust import where
from florlog.program.stores import open_store, store_path
from florlog.questions.bisection import First, first
from florlog.reading.reader import RunView
from florlog.reading.render import brief, jsonable, printable


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add_script(parser)
    parser.add_argument(
        "--first",
        metavar="CONDITION",
        required=True,
        help="such as 'not isfinite(loss)' or \"norm(state['model.0.weight']) > 10\"",
    )
    parser.add_argument(
        "--monotone",
        action="store_true",
        help="you vouch that the condition goes on holding once it holds: images are searched by halves "
        "(default: every boundary of the run before the answer is looked at)",
    )
    add_trust(parser)
    add_format(parser)


def run(options: argparse.Namespace) -> int:
    """Search, and print what was found."""
    with open_store(store_path(options.store)) as store:
        log = run_of_script(store, options)
        view = RunView(lambda: log, log.sessions()[0].begin.run, trust_of(options))
        found = first(view, options.first, monotone=options.monotone)
        assumed = options.monotone and found.source == "state"
        if options.format == "json":
            print(json.dumps(_json(view.id, options.first, found, assumed=assumed)))
        else:
            print(_text(options.first, found, assumed=assumed))
    return 0


def _json(run: str, condition: str, found: First, *, assumed: bool) -> dict[str, object]:
    place = None if found.path is None else {"path": dict(found.path), "at": found.at}
    return {
        "run": run,
        "condition": condition,
        "found": place,
        "values": jsonable(found.values),
        "trust": found.trust,
        "detail": found.detail,
        "answered_from": found.source,
        "assumed_monotone": assumed,
        "iterations_redone": found.redone,
        "images_read": found.images,
    }


def _text(condition: str, found: First, *, assumed: bool) -> str:
    cost = (
        f"{found.redone} iterations redone, {found.images} images read"
        if found.source == "state"
        else "answered from the log"
    )
    if assumed:
        cost += "; assumed to go on holding, as --monotone says"
    if found.path is None:
        return f"{printable(condition)} never holds ({cost})"
    lines = [f"{found.at} of {printable(where(found.path)) or 'the run'}: {found.trust} ({cost})"]
    lines += [f"  {printable(name)} = {brief(value)}" for name, value in found.values.items()]
    if found.detail:
        lines.append(f"  {printable(found.detail)}")
    return "\n".join(lines)
