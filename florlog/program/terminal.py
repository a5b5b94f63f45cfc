"""Lines for the person at the terminal: on stderr, each with florlog's name in front."""

from __future__ import annotations

import sys


def report(text: str) -> None:
    """A line for the person at the terminal."""
    print(f"florlog: {harmless(text)}", file=sys.stderr, flush=True)


def harmless(text: str) -> str:
    """Lines without control characters, of which a log may contain any."""
    return "".join(char if char.isprintable() or char == "\n" else ascii(char)[1:-1] for char in text)
