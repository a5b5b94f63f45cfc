"""``florlog rm``: runs that nobody needs any more."""

from __future__ import annotations

import argparse

from florlog_wal import NoSuchRun, RunLocked, writer_of

from florlog.errors import NoSuchRunError, StoreError
from florlog.program.stores import open_store, store_path
from florlog.program.terminal import report


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("runs", metavar="RUN", nargs="+", help="a run to remove, with all that replays found")
    parser.add_argument("--dry-run", action="store_true", help="only say what would be removed")


def run(options: argparse.Namespace) -> int:
    """Remove the runs; 1 if one of them is being recorded, and is left."""
    code = 0
    with open_store(store_path(options.store)) as store:
        wanted = list(dict.fromkeys(options.runs))
        if unknown := [name for name in wanted if name not in store]:
            raise NoSuchRunError(
                f"no run {unknown[0]!a} in {store.path}, nothing was removed: `florlog runs` lists them"
            )
        for name in wanted:
            try:
                if options.dry_run:
                    if (holder := writer_of(store.directory(name))) is not None:
                        raise RunLocked(str(store.directory(name)), holder.pid, holder.host, holder.since)
                else:
                    store.remove(name)
            except RunLocked as error:
                report(f"run {name} stays: {error}")
                code = 1
            except NoSuchRun:  # somebody else has removed it
                pass
            except OSError as error:
                raise StoreError(f"cannot remove run {name}: {error}") from None
            else:
                print(f"{'would remove' if options.dry_run else 'removed'} {name}")
    return code
