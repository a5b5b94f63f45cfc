"""The process of the command ``florlog``, and of ``python -m florlog``."""

from __future__ import annotations

import gc
import sys

from florlog import commands
from florlog.program import silence


def main() -> int:
    """Run the command line; the exit code."""
    try:
        options = commands.parse(sys.argv[1:])
    except KeyboardInterrupt:  # while its command was being imported
        return commands.interrupted()
    # A full collection looks at all objects, and while a script's imports make more there are several.  Those of the
    # command, torch's for most of them, stay as long as the process does: set aside, they cost each of the script's
    # collections 0.1 s less.
    gc.freeze()
    silence.claim()
    return silence.leave(commands.execute(options))


if __name__ == "__main__":
    sys.exit(main())
