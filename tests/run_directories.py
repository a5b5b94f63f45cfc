"""Where the runs of a store lie."""

from __future__ import annotations

from pathlib import Path

import florlog


def run_directory(store: Path) -> Path:
    """The directory of the newest run of a store."""
    with florlog.open(store) as log:
        return log.run().log.path
