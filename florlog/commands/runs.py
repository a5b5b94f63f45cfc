"""``florlog runs``: the runs of a store."""

from __future__ import annotations

import argparse
import json

from florlog.commands._arguments import add_format as arguments
from florlog.commands._text_table import table
from florlog.program.stores import open_store, store_path
from florlog.reading.reader import summaries

__all__ = ["arguments", "run"]


def run(options: argparse.Namespace) -> int:
    """Print a line for each run."""
    with open_store(store_path(options.store), "r") as store:
        rows = list(summaries(store))
    if options.format == "json":
        print(json.dumps(rows))
    elif rows:
        hidden = {"name", *(key for key in ("forced", "audited") if not any(row[key] for row in rows))}
        print(table([{k: v for k, v in row.items() if k not in hidden} for row in rows], len(rows)))
    else:
        print("no runs yet")
    return 0
