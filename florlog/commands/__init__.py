"""The command ``florlog``: one module per command.

Data goes to stdout, progress and errors to stderr; an error is one line.  Exit codes: 0 done, 1 the log or
a replay disagrees with the recording, 2 wrong use.

A command's module has ``HELP``, a sentence; ``arguments``, which adds what the command takes to its parser;
and ``run``, which gets the parsed options and returns the exit code.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Protocol

from florlog_wal import WalError

from ..errors import DivergedError, FlorlogError
from . import bisect, diff, explain, export, gc, inspect, record, replay, resume, runs, verify


class Command(Protocol):
    """What a command's module has."""

    HELP: str

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the command's arguments to its parser."""

    def run(self, options: argparse.Namespace) -> int:
        """Execute the command; the exit code."""


COMMANDS: dict[str, Command] = {
    "record": record,
    "replay": replay,
    "explain": explain,
    "resume": resume,
    "inspect": inspect,
    "runs": runs,
    "verify": verify,
    "gc": gc,
    "export": export,
    "diff": diff,
    "bisect": bisect,
}
_PASS_ON = {"resume"}  # what they do not know is for the script


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    made = argparse.ArgumentParser(prog="florlog", description="Record a training always, ask it afterwards.")
    commands = made.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, command in COMMANDS.items():
        sub = commands.add_parser(name, help=command.HELP, description=command.HELP)
        sub.add_argument("--store", metavar="DIR", help="the store (default $FLORLOG_STORE, else ./.florlog)")
        command.arguments(sub)
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code."""
    made = parser()
    options, rest = made.parse_known_args(argv)
    if rest and options.command not in _PASS_ON:
        made.error(f"unrecognized arguments: {' '.join(rest)}")
    options.rest = rest[1:] if rest[:1] == ["--"] else rest
    try:
        return COMMANDS[options.command].run(options)
    except DivergedError as error:
        print(f"florlog: {error}", file=sys.stderr)
        return 1
    except (FlorlogError, WalError, FileExistsError) as error:
        print(f"florlog: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
