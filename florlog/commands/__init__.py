"""The command ``florlog``: one module per command.

Data goes to stdout, progress and errors to stderr; an error is one line.  Exit codes: 0 done, 1 the log or a
replay disagrees with the recording, 2 wrong use, 130 interrupted by SIGINT.

A command's module has ``arguments``, which adds what the command takes to its parser, and ``run``, which gets the
parsed options and returns the exit code.  Only the module of the command that is called is imported, because importing
all of them takes longer than some of them run.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Collection, Sequence
from typing import Protocol, cast

from florlog.errors import DivergedError, FlorlogError
from florlog.program.loading import load
from florlog.program.terminal import report


class Command(Protocol):
    """What a command's module has."""

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the command's arguments to its parser."""

    def run(self, options: argparse.Namespace) -> int:
        """Execute the command; the exit code."""


COMMANDS = {
    "record": "Run an unmodified training script and record it: loops, state and printed values are found.",
    "replay": "Re-execute the minimal redo set that answers the log statements added to SCRIPT.",
    "explain": "Show the plan of a replay and its predicted cost; execute nothing.",
    "resume": "Continue a killed run of SCRIPT where it stopped, bit-exactly.",
    "inspect": "Look at a run: the browser on a terminal, else its records, one a line.",
    "runs": "List the runs of a store, oldest first.",
    "verify": "Check every record and page of a store.",
    "audit": "Re-execute a run from each image to the next, and compare the whole state.",
    "gc": "Remove what the given policy does not keep, and every page that nothing needs.",
    "rm": "Remove runs.",
    "pack": "Write a run to one file, with everything that belongs to it.",
    "unpack": "Put a packed run into a store, after all of it was verified.",
    "export": "Write a run's values or a state for other tools: files, TensorBoard, MLflow, safetensors.",
    "diff": "Compare two runs: parameters, source, environment, and the first iteration whose values differ.",
    "bisect": "Find the first iteration at which a condition on values or on the state holds.",
}
"""Each command, in the order of the help text, and what it does."""
_RUN_TRAININGS = {"record", "resume"}
_PASS_ON = {"resume"}  # the script gets the arguments that these commands do not know


def command(name: str) -> Command:
    """A command's module."""
    return cast(Command, load(f"{__name__}.{name}"))


def parser(complete: Collection[str] = tuple(COMMANDS)) -> argparse.ArgumentParser:
    """The command line; only the commands in ``complete`` have their arguments, which imports their modules."""
    made = argparse.ArgumentParser(prog="florlog", description="Record a training always, ask it afterwards.")
    commands = made.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, text in COMMANDS.items():
        sub = commands.add_parser(name, help=text, description=text)
        sub.add_argument("--store", metavar="DIR", help="the store (default $FLORLOG_STORE, else ./.florlog)")
        if name in complete:
            command(name).arguments(sub)
    return made


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The options of a command line, after its command's module was imported.  Exits with 2 for wrong use."""
    # A first word that is no command is an option or a mistake, so no other command is called.
    made = parser([word for word in argv if word in COMMANDS][:1])
    options, rest = made.parse_known_args(argv)
    if rest and options.command not in _PASS_ON:
        made.error(f"unrecognized arguments: {' '.join(rest)}")
    options.rest = rest[1:] if rest[:1] == ["--"] else rest
    return options


def execute(options: argparse.Namespace) -> int:
    """Execute a command; the exit code."""
    from florlog_wal import WalError  # here, because --help needs no log and its libraries

    try:
        return command(options.command).run(options)
    except DivergedError as error:
        report(str(error))
        return 1
    except (FlorlogError, WalError, FileExistsError) as error:
        report(str(error))
        return 2
    except KeyboardInterrupt:
        if options.command in _RUN_TRAININGS:  # which end as they do in Python
            raise
        return interrupted()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def interrupted() -> int:
    """Report that SIGINT has ended the command; the exit code."""
    report("interrupted")
    return 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code."""
    return execute(parse(sys.argv[1:] if argv is None else argv))
