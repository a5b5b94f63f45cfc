"""The browser of ``florlog inspect``: runs, then iterations, records, source and curves of one run, on a terminal
or a web page.

It needs textual (``pip install 'florlog[inspect]'``).  Nothing is read before it is shown: the record list asks
for the lines on the screen, and the tree is analysed in the background.
"""

from __future__ import annotations

from pathlib import Path

from florlog.inspect.selection import RecordSelection
from florlog.program.stores import log_of, open_store
from florlog.programs.permission import Trust


def open_browser(path: Path, run: str | None, selection: RecordSelection, trust: Trust) -> int:
    """Browse a store until the user leaves; the exit code."""
    from florlog.ui.app import Browser

    with open_store(path) as store:
        if run is not None:
            log_of(store, run)
        Browser(store, run, selection, trust).run()
    return 0
