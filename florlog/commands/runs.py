"""``florlog runs``: the runs of a store."""

from __future__ import annotations

import argparse
import json
from typing import Any

from florlog.commands._arguments import add_format as arguments
from florlog.commands._text_table import table
from florlog.program.stores import open_store, store_path
from florlog.reading.render import brief, printable
from florlog.reading.summaries import summaries

__all__ = ["arguments", "run"]

_ONLY_WHERE_SAID = ("forced", "audited", "params", "last")
_MAX_SHOWN = 4  # params, and last values, of a run


def run(options: argparse.Namespace) -> int:
    """Print a line for each run."""
    with open_store(store_path(options.store)) as store:
        rows = list(summaries(store))
    if options.format == "json":
        print(json.dumps(rows))
    elif rows:
        hidden = {
            "name",
            "ranks",
            "budget",
            *(key for key in _ONLY_WHERE_SAID if not any(row[key] for row in rows)),
        }
        print(table([{k: _text(v) for k, v in row.items() if k not in hidden} for row in rows], len(rows)))
    else:
        print("no runs yet")
    return 0


def _text(value: Any) -> Any:
    """A cell: params and last values as ``name=value``."""
    if not isinstance(value, dict):
        return value
    shown = [
        f"{printable(str(key)[:24])}={brief(item, 12)}" for key, item in list(value.items())[:_MAX_SHOWN]
    ]
    return " ".join(shown + ["..."] * (len(value) > _MAX_SHOWN))
