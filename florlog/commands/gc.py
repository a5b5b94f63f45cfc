"""``florlog gc``: space by policy."""

from __future__ import annotations

import argparse
import dataclasses
import json

from florlog_wal import Entry, Note, compact, gc

from florlog.commands._arguments import add_format, number_of, size
from florlog.program.stores import open_store, store_path


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
    """Apply the policy, print what was removed."""
    path = store_path(options.store)
    open_store(path, "r").close()
    report = gc(
        path,
        keep_last=options.keep_last,
        budget=options.budget,
        redo_bound=options.max_redo,
        also=_late_sources,
        dry_run=options.dry_run,
    )
    if options.compact and not options.dry_run:
        compact(path, options.compact)
    if options.format == "json":
        print(json.dumps(dataclasses.asdict(report)))
        return 0
    would = "would remove" if options.dry_run else "removed"
    print(
        f"{would} {len(report.runs)} runs, {report.images} images and {report.pages} pages "
        f"({report.freed_bytes} bytes); {report.kept_bytes} bytes of pages stay"
    )
    if options.compact and not options.dry_run:
        print(f"a copy without free space is at {options.compact}")
    return 0


def _late_sources(entry: Entry) -> list[bytes]:
    """Pages that only a note names: the sources of modules imported after the run began."""
    record = entry.record
    return [record.data["page"]] if isinstance(record, Note) and record.kind == "source" else []
