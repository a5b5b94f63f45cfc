"""Lines for the person at the terminal: on stderr, each with florlog's name in front."""

from __future__ import annotations

import sys


def report(text: str) -> None:
    """A line for the person at the terminal."""
    print(f"florlog: {text}", file=sys.stderr, flush=True)
