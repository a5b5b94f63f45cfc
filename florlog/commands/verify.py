"""``florlog verify``: the full check of a store."""

from __future__ import annotations

import argparse
import json

from florlog_wal import verify

from .._session import open_store, store_path
from ._arguments import add_format as arguments

__all__ = ["HELP", "arguments", "run"]

HELP = "Check every record and page of a store."


def run(options: argparse.Namespace) -> int:
    """Print what was checked and what is wrong."""
    path = store_path(options.store)
    open_store(path, "r").close()
    checked = verify(path)
    if options.format == "json":
        print(json.dumps(checked.as_json()))
    else:
        print(checked)
    return 0 if checked.ok else 1
