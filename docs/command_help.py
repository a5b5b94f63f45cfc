"""What the cog blocks of docs/commands/ print: the commands' help, from their parsers.

``make docs-update`` runs cog over the pages; ``make docs`` and ``tests/commands/test_pages.py`` check them.
"""

from __future__ import annotations

import argparse
import os

from florlog.commands import COMMANDS, parser

os.environ["COLUMNS"], os.environ["NO_COLOR"] = "100", "1"  # the same text on any terminal


def table() -> str:
    """A Markdown table of all commands, each linked to its page."""
    rows = "\n".join(f"| [{name}]({name}.md) | {text} |" for name, text in COMMANDS.items())
    return f"| command | what it does |\n|---|---|\n{rows}"


def usage(words: str) -> str:
    """The help of a command, or of what is below one (``"export state"``), as a Markdown block."""
    found = parser()
    for word in words.split():
        found = below(found)[word]
    return f"```text\n{found.format_help().rstrip()}\n```"


def below(found: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """The commands below a parser, by name; empty if it has none."""
    for action in found._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    return {}
