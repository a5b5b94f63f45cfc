"""``florlog resume``: crash recovery, then the run goes on."""

from __future__ import annotations

import argparse
import os

from florlog.commands._arguments import add_script as arguments
from florlog.commands._arguments import run_of_script
from florlog.errors import FlorlogError, RanksError
from florlog.program.process import this_process
from florlog.program.stores import open_store, store_path
from florlog.program.terminal import report
from florlog.programs.kinds import kind_of
from florlog.recording.roles import Resume

__all__ = ["arguments", "run"]


def run(options: argparse.Namespace) -> int:
    """Execute the script from the nearest image on."""
    path = store_path(options.store)
    with open_store(path, "r") as store:
        tree = run_of_script(store, options)
        if tree.status == "complete":
            raise FlorlogError(f"run {tree.run} is complete: there is nothing to resume")
        if tree.begin.world_size > 1:
            raise RanksError(tree.begin.world_size)
        if tree.status == "running":
            raise FlorlogError(f"run {tree.run} is still being recorded: wait for it, or stop it first")
    os.environ["FLORLOG_STORE"] = str(path)
    resume = Resume(run=tree.run)
    report(f"resuming run {tree.run}")
    with this_process.in_role(resume):
        kind_of(tree.begin).resume(options.script, list(options.rest or tree.begin.argv), path)
    if not resume.taken:
        raise FlorlogError(
            f"{options.script} opened no run named {tree.begin.name!r}: is it the script of this run?"
        )
    return 0
