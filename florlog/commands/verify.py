"""``florlog verify``: the full check of a store."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from florlog_wal import VerifyReport, verify

from florlog.commands._arguments import add_format as arguments
from florlog.errors import StoreError
from florlog.program.stores import open_store, store_path, tree_of

__all__ = ["arguments", "run"]


def run(options: argparse.Namespace) -> int:
    """Print what was checked and what is wrong; a store that is too damaged to be opened is reported too."""
    path = store_path(options.store)
    if not path.is_dir():
        raise StoreError(f"there is no store at {path}: give one with --store or $FLORLOG_STORE")
    try:
        checked = verify(path)
        if checked.records and checked.ok:
            _analyse(path, checked)
    except OSError as error:
        raise StoreError(f"cannot open the store {path}: {error}") from None
    print(json.dumps(checked.as_json()) if options.format == "json" else checked)
    return 0 if checked.ok else 1


def _analyse(path: Path, checked: VerifyReport) -> None:
    """Add what the analysis of each run reports."""
    with open_store(path, "r") as store:
        for run in dict.fromkeys(session.begin.run for session in store.sessions()):
            for lsn, text in tree_of(store, run).problems:
                checked.add(lsn, text)
