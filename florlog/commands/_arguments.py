"""Arguments that several commands take, and the functions that read them."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from pathlib import Path

from florlog_recovery import RunTree
from florlog_wal import Path as IterationPath
from florlog_wal import RunLog, Store

from florlog.errors import FlorlogError, NoSuchRunError
from florlog.program import units
from florlog.program.process import this_process
from florlog.program.stores import is_recorded_from, listed_runs, log_of
from florlog.programs.permission import Trust


def add_format(parser: argparse.ArgumentParser) -> None:
    """``--format text|json``."""
    parser.add_argument("--format", choices=("text", "json"), default="text")


def add_script(parser: argparse.ArgumentParser, text: str = "the script") -> None:
    """SCRIPT and ``--run``."""
    parser.add_argument("script", metavar="SCRIPT", help=text)
    parser.add_argument("--run", metavar="ID", help="the run (default: the newest recorded from SCRIPT)")


def add_trust(parser: argparse.ArgumentParser) -> None:
    """``--trust RUN``."""
    parser.add_argument(
        "--trust",
        metavar="RUN",
        action="append",
        default=[],
        help="execute the code of this run, though it was not recorded on this machine by you; may be repeated",
    )


def trust_images(options: argparse.Namespace, tree: RunTree) -> None:
    """Let the images of a run be restored that was not recorded here, if ``--trust`` names it."""
    if tree.run in options.trust:
        this_process.trusts_images = True


def trust_of(options: argparse.Namespace, *, ask: bool = True) -> Trust:
    """Whose code may be executed; ``ask``: on a terminal the user is asked."""
    return Trust(options.trust, ask=ask)


def number_of(what: str) -> Callable[[str], int]:
    """A function that reads an argument: a number of something, 1 or more."""

    def number(text: str) -> int:
        try:
            return units.count(text, what)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return number


def size(text: str) -> int:
    """A size in bytes, such as 500M or 2G."""
    try:
        return units.size(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def iteration_path(text: str) -> IterationPath:
    """An iteration's path, such as ``epoch=3, step=17``, outermost loop first."""
    found = [re.fullmatch(r"\s*([^=,]*[^=,\s])\s*=\s*(\d+)\s*", part) for part in text.split(",")]
    steps = tuple((match[1].strip(), int(match[2])) for match in found if match is not None)
    if len(steps) < len(found):
        raise argparse.ArgumentTypeError(f"cannot read {text!r}: write an iteration as 'epoch=3, step=17'")
    return steps


def run_of_script(store: Store, options: argparse.Namespace) -> RunLog:
    """The log of the run that a command's SCRIPT and --run mean."""
    script = Path(options.script).absolute()
    if not script.is_file():
        raise FlorlogError(f"there is no script {script}")
    if options.run is not None:
        return log_of(store, options.run)
    runs = [listed.run for listed in listed_runs(store) if is_recorded_from(listed.script, script)]
    if not runs:
        raise NoSuchRunError(
            f"no run in {store.path} was recorded from {script}: choose one with --run (`florlog runs` lists them)"
        )
    return log_of(store, runs[-1])
