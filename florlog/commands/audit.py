"""``florlog audit``: do the images of a run hold all that it depends on?"""

from __future__ import annotations

import argparse
import json
from typing import Any

from florlog.commands._arguments import add_format, add_trust, trust_of
from florlog.following.trust import where
from florlog.program.stores import log_of, newest_run, open_store, store_path, tree_of
from florlog.program.terminal import report
from florlog.redo.auditing import Stretch, audit

__all__ = ["arguments", "run"]


def arguments(parser: argparse.ArgumentParser) -> None:
    """RUN, ``--trust`` and ``--format``."""
    parser.add_argument("run", metavar="RUN", nargs="?", help="the run (default: the newest)")
    add_trust(parser)
    add_format(parser)


def run(options: argparse.Namespace) -> int:
    """Audit each stretch from an image to the next; 1 if one of them differs."""
    with open_store(store_path(options.store)) as store:
        log = log_of(store, options.run or newest_run(store))
        tree = tree_of(log)
        found = []
        for stretch in audit(log, tree, trust_of(options)):
            found.append(stretch)
            if options.format == "text":
                print(stretch, flush=True)
    passed = all(stretch.passed for stretch in found)
    if options.format == "json":
        stretches = [_as_json(stretch) for stretch in found]
        print(json.dumps({"run": tree.run, "passed": passed, "stretches": stretches}))
    else:
        report(f"run {tree.run}: {_verdict(found)}")
    return 0 if passed else 1


def _verdict(found: list[Stretch]) -> str:
    failed = next((stretch for stretch in found if not stretch.passed), None)
    if failed is None:
        return f"audited from {where(found[0].start)} to {where(found[-1].end)}, the whole state was equal"
    return f"the audit failed {failed}"


def _as_json(stretch: Stretch) -> dict[str, Any]:
    return {
        "from": dict(stretch.start),
        "to": dict(stretch.end),
        "iterations": stretch.redone,
        "passed": stretch.passed,
        "difference": stretch.detail,
    }
