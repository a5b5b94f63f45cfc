"""The command ``florlog``: one module per command.

Data goes to stdout, progress and errors to stderr; an error is one line.  Exit codes: 0 done, 1 the log or a
replay disagrees with the recording, 2 wrong use.

A command's module has ``HELP``, a sentence; ``arguments``, which adds what the command takes to its parser; and
``run``, which gets the parsed options and returns the exit code.  Only the module of the command that is called
is imported: all of them take longer than some of them run.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Protocol, cast

from florlog_wal import WalError

from florlog.errors import DivergedError, FlorlogError


class Command(Protocol):
    """What a command's module has."""

    HELP: str

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the command's arguments to its parser."""

    def run(self, options: argparse.Namespace) -> int:
        """Execute the command; the exit code."""


COMMANDS = (
    "record", "replay", "explain", "resume", "inspect", "runs", "verify", "gc", "export", "diff", "bisect",
)  # fmt: skip
_PASS_ON = {"resume"}  # what they do not know is for the script


def command(name: str) -> Command:
    """A command's module."""
    return cast(Command, import_module(f".{name}", __name__))


def parser(*names: str) -> argparse.ArgumentParser:
    """The command line of some commands, of all by default."""
    made = argparse.ArgumentParser(prog="florlog", description="Record a training always, ask it afterwards.")
    commands = made.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name in names or COMMANDS:
        module = command(name)
        sub = commands.add_parser(name, help=module.HELP, description=module.HELP)
        sub.add_argument("--store", metavar="DIR", help="the store (default $FLORLOG_STORE, else ./.florlog)")
        module.arguments(sub)
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code."""
    argv = sys.argv[1:] if argv is None else argv
    made = parser(*(name for name in argv[:1] if name in COMMANDS))
    options, rest = made.parse_known_args(argv)
    if rest and options.command not in _PASS_ON:
        made.error(f"unrecognized arguments: {' '.join(rest)}")
    options.rest = rest[1:] if rest[:1] == ["--"] else rest
    try:
        return command(options.command).run(options)
    except DivergedError as error:
        print(f"florlog: {error}", file=sys.stderr)
        return 1
    except (FlorlogError, WalError, FileExistsError) as error:
        print(f"florlog: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
