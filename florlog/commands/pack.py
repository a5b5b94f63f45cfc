"""``florlog pack``: a run as one file."""

from __future__ import annotations

import argparse
from pathlib import Path

from florlog_wal import pack

from florlog.errors import StoreError
from florlog.program.stores import log_of, open_store, store_path
from florlog.program.units import size_text


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("run", metavar="RUN", help="the run; it may be one that is being recorded")
    parser.add_argument("-o", "--output", metavar="FILE", type=Path, required=True)


def run(options: argparse.Namespace) -> int:
    """Write the file."""
    with open_store(store_path(options.store)) as store:
        log_of(store, options.run)
        try:
            size = pack(store, options.run, options.output)
        except OSError as error:
            raise StoreError(f"cannot write {options.output}: {error}") from None
    print(f"run {options.run}, {size_text(size)}, in {options.output}")
    return 0
