"""``florlog gc``: space by policy."""

from __future__ import annotations

import argparse
import dataclasses
import json

from florlog_wal import Entry, GcReport, Note, Store, compact, gc

from florlog.commands._arguments import add_format, number_of, size
from florlog.program.stores import listed_runs, open_store, store_path


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
    with open_store(path) as store:
        report = GcReport()
        runs = [listed.run for listed in listed_runs(store)]
        report.runs = runs[: -options.keep_last] if options.keep_last else []
        for run in report.runs:
            if not options.dry_run:
                store.remove(run)
        for run in runs[len(report.runs) :]:
            part = gc(
                store.directory(run),
                redo_bound=options.max_redo,
                budget=options.budget,
                also=_late_sources,
                dry_run=options.dry_run,
            )
            report.images += part.images
            report.pages += part.pages
            report.freed_bytes += part.freed_bytes
            report.kept_bytes += part.kept_bytes
        if options.compact and not options.dry_run:
            copy = Store.make(options.compact)
            for run in store.runs():
                compact(store.directory(run), copy.directory(run))
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
