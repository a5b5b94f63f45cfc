"""``florlog resume``: crash recovery, then the run goes on."""

from __future__ import annotations

import argparse
import os

from florlog.commands._arguments import add_script, add_trust, run_of_script, trust_images
from florlog.errors import FlorlogError
from florlog.following.executable import check_executable
from florlog.program import restart
from florlog.program.environment import own_directories
from florlog.program.process import this_process
from florlog.program.stores import open_store, store_path, tree_of
from florlog.program.terminal import reason, report
from florlog.programs.kinds import kind_of
from florlog.recording.going_on import execute_whole
from florlog.recording.opening import reopen
from florlog.recording.own_files import hidden_files
from florlog.recording.roles import Resume

__all__ = ["arguments", "run"]


def arguments(parser: argparse.ArgumentParser) -> None:
    """SCRIPT, ``--run``, ``--trust``, ``--extend`` and ``--force``."""
    add_script(parser)
    add_trust(parser)
    parser.add_argument(
        "--extend",
        action="store_true",
        help="go on with a complete run whose outermost loop was left by a break or return: its last iteration, and "
        "what comes after it, are executed again",
    )
    parser.add_argument(
        "--force",
        action="store_true",
        help="go on though what is re-executed differs from the recording; the run is marked from then on",
    )


def run(options: argparse.Namespace) -> int:
    """Execute the script from the nearest image on."""
    path = store_path(options.store)
    with open_store(path) as store:
        log = run_of_script(store, options)
        tree = tree_of(log)
        trust_images(options, tree)
        check_executable(tree)
        if tree.status == "running":
            raise FlorlogError(f"run {tree.run} is still being recorded: wait for it, or stop it first")
        hidden = hidden_files(log, tree, own_directories(options.script))
        again = reopen(tree, extend=options.extend)
    os.environ["FLORLOG_STORE"] = str(path)
    begin = tree.begin
    resume = Resume(
        run=tree.run,
        name=begin.name,
        earlier=begin.earlier,
        extend=options.extend,
        force=options.force,
        hidden=hidden,
    )
    if not restart.message():
        report(f"resuming run {tree.run}{f': {again}' if again else ''}")
    with this_process.in_role(resume), hidden:
        try:
            kind_of(begin).resume(options.script, list(options.rest or begin.argv), path)
        except Exception as error:
            if resume.passed and not resume.taken:
                execute_whole(resume, f"the script raises {type(error).__name__}: {reason(error)}")
            raise
    if not resume.taken:
        raise FlorlogError(resume.missing(options.script))
    return 0
