"""``florlog unpack``: a packed run, which may come from anybody, into a store."""

from __future__ import annotations

import argparse
from pathlib import Path

from florlog_wal import unpack

from florlog.errors import StoreError
from florlog.program.stores import make_store, store_path


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("file", metavar="FILE", type=Path, help="what florlog pack wrote")


def run(options: argparse.Namespace) -> int:
    """Verify the run and put it into the store, which is made where there is none."""
    if not options.file.is_file():
        raise StoreError(f"there is no file {options.file}")
    with make_store(store_path(options.store)) as store:
        try:
            name = unpack(options.file, store)
        except OSError as error:
            raise StoreError(f"cannot unpack {options.file}: {error}") from None
    print(f"run {name} is in {store.path}")
    return 0
