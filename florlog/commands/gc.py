"""``florlog gc``: space by policy."""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path

from florlog_wal import Entry, Note, compact, gc

from florlog.commands._arguments import add_format, number_of, size
from florlog.program.stores import make_store, open_store, store_path
from florlog.program.terminal import report as tell


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("--keep-last", metavar="N", type=number_of("runs"), help="keep the newest N runs")
    parser.add_argument(
        "--budget", metavar="BYTES", type=size, help="what pages may take, such as 500M or 2G"
    )
    parser.add_argument(
        "--max-redo",
        metavar="SECONDS",
        type=float,
        help="remove images as long as the redo between two takes less",
    )
    parser.add_argument("--compact", metavar="DIR", help="then copy the store to DIR, without free space")
    parser.add_argument("--dry-run", action="store_true", help="only say what would be removed")
    add_format(parser)


def run(options: argparse.Namespace) -> int:
    """Apply the policy, print what was removed; 1 if a run is damaged, and is left as it is."""
    path = store_path(options.store)
    open_store(path).close()  # an error in one line, where there is none
    report = gc(
        path,
        keep_last=options.keep_last,
        budget=options.budget,
        redo_bound=options.max_redo,
        also=_late_sources,
        dry_run=options.dry_run,
    )
    for line in report.damaged:
        tell(f"{line}; it stays as it is")
    copied = options.compact and not options.dry_run
    if copied:
        _copy(path, options.compact)
    if options.format == "json":
        print(json.dumps(dataclasses.asdict(report)))
        return 1 if report.damaged else 0
    would = "would remove" if options.dry_run else "removed"
    print(
        f"{would} {len(report.runs)} runs, {report.images} images and {report.pages} pages "
        f"({report.freed_bytes} bytes); {report.kept_bytes} bytes of pages stay"
    )
    if report.busy:
        print(f"left as they are, because they are being written to: {', '.join(report.busy)}")
    if copied:
        print(f"a copy without free space is at {options.compact}")
    return 1 if report.damaged else 0


def _copy(path: Path, target: str) -> None:
    """Copy all runs of a store."""
    with open_store(path) as store, make_store(Path(target).absolute()) as copy:
        for run in store.runs():
            compact(store.directory(run), copy.directory(run), allow_network=True)


def _late_sources(entry: Entry) -> list[bytes]:
    """Pages that only a note names: the sources of modules imported after the run began."""
    match entry.record:
        case Note(kind="source", data={"page": bytes(page)}):
            return [page]
    return []
