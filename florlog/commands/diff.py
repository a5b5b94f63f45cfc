"""``florlog diff``: what differs between two runs."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from typing import Any

from florlog.commands._arguments import add_format
from florlog.following.trust import where
from florlog.program.stores import open_store, store_path
from florlog.reading.reader import Log
from florlog.reading.render import brief, printable
from florlog.reading.run_diff import differences


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("first", metavar="RUN")
    parser.add_argument("second", metavar="RUN")
    add_format(parser)


def run(options: argparse.Namespace) -> int:
    """Print what differs; 1 if anything does."""
    with Log(open_store(store_path(options.store))) as log:
        found = differences(log.run(options.first), log.run(options.second))
    if options.format == "json":
        print(json.dumps(found))
    else:
        print("\n".join(_text(found)))
    return int(any(found[part] for part in found if part != "runs"))


def _text(found: dict[str, Any]) -> Iterator[str]:
    for part in ("params", "environment"):
        for key, (mine, theirs) in found[part].items():
            yield f"{part}: {printable(str(key)[:40])}: {brief(mine)} -> {brief(theirs)}"
    if found["arguments"]:
        yield f"arguments: {brief(found['arguments'][0])} -> {brief(found['arguments'][1])}"
    for lines in found["source"].values():
        yield from map(printable, lines)
    values = found["values"]
    if values is None:
        yield "every recorded value is equal"
        return
    place = printable(where(tuple(values["first"].items()))) if values["first"] else "the run itself"
    yield f"values: {values['iterations']} of {values['of']} iterations differ, the first is {place}"
    for name, (mine, theirs) in values["values"].items():
        yield f"  {printable(name[:40])}: {brief(mine)} -> {brief(theirs)}"
