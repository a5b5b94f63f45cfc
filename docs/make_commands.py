"""Writes docs/commands/: a page for each command, made from its parser.

    python docs/make_commands.py

``tests/commands/test_pages.py`` fails when a page is not what this writes.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from florlog.commands import COMMANDS, parser

FOLDER = Path(__file__).resolve().parent / "commands"


def pages() -> dict[str, str]:
    """File name -> text."""
    os.environ["COLUMNS"], os.environ["NO_COLOR"] = "100", "1"  # argparse's width, on any terminal
    action = next(a for a in parser()._actions if isinstance(a, argparse._SubParsersAction))
    made = {f"{name}.md": page(name, sub) for name, sub in action.choices.items()}
    rows = "\n".join(f"| [{name}]({name}.md) | {COMMANDS[name]} |" for name in action.choices)
    made["index.md"] = f"# Commands\n\n| command | what it does |\n|---|---|\n{rows}\n"
    return made


def page(name: str, sub: argparse.ArgumentParser) -> str:
    """One command, and what it has below it."""
    text = f"# florlog {name}\n\n```text\n{sub.format_help().rstrip()}\n```\n"
    for action in sub._actions:
        if isinstance(action, argparse._SubParsersAction):
            for inner, below in action.choices.items():
                text += f"\n## florlog {name} {inner}\n\n```text\n{below.format_help().rstrip()}\n```\n"
    return text


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for file, text in pages().items():
        (FOLDER / file).write_text(text, encoding="utf-8")
