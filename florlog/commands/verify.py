"""``florlog verify``: the full check of a store."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator

from florlog_wal import Problem, RunLog, Store, VerifyReport, verify

from florlog.commands._arguments import add_format as arguments
from florlog.program.stores import open_store, store_path, tree_of

__all__ = ["arguments", "run"]


def run(options: argparse.Namespace) -> int:
    """Print what was checked and what is wrong; a run that is too damaged to be opened is reported too."""
    total, problems = VerifyReport(), list[tuple[str, Problem]]()
    with open_store(store_path(options.store)) as store:
        for run, found in _checked(store):
            problems += ((run, problem) for problem in found.problems)
            for name in ("records", "pages", "images", "sessions"):
                setattr(total, name, getattr(total, name) + getattr(found, name))
        runs = len(store.runs())
    if options.format == "json":
        named = [{"run": run, "where": problem.where, "text": problem.text} for run, problem in problems]
        print(json.dumps({**total.as_json(), "ok": not problems, "problems": named, "runs": runs}))
    else:
        for run, problem in problems:
            print(f"run {run}: {problem}")
        print(f"runs {runs}, {total.counts}, problems {len(problems)}")
    return 1 if problems else 0


def _checked(store: Store) -> Iterator[tuple[str, VerifyReport]]:
    """What is wrong with each run: its log and pages, what analysis says of them, and what its replays stored."""
    for run in sorted(store.runs()):
        where = store.directory(run)
        found = verify(where)
        if found.records and found.ok:
            with RunLog.open(where, allow_network=True) as log:
                for lsn, text in tree_of(log).problems:
                    found.add(lsn, text)
        yield run, found
        if (answers := where / "answers").is_dir():
            yield f"{run}, answers", verify(answers)
