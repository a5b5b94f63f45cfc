"""Long work in parts.  Each part is noted in a file when it is done, so a run that was cut off can go on.

Give the same file again to go on; without a file nothing is kept.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path


class Progress:
    """Counts of the parts done, by name."""

    def __init__(self, path: str | None) -> None:
        self._path = None if path is None else Path(path)
        self._done: dict[str, dict[str, int]] = {}
        if self._path is not None and self._path.exists():
            # A last line that was cut off is no part that is done.
            for line in self._path.read_text().split("\n")[:-1]:
                self._done.update(json.loads(line))

    def get(self, name: str) -> Counter[str] | None:
        """The counts of a part that was done before, or None."""
        found = self._done.get(name)
        return None if found is None else Counter(found)

    def note(self, name: str, counts: Counter[str]) -> None:
        """A part is done."""
        if self._path is not None:
            with self._path.open("a") as file:
                file.write(json.dumps({name: dict(counts)}) + "\n")

    def seed(self, given: int) -> int:
        """The seed of the run that is continued, otherwise the given one."""
        before = self.get("seed")
        if before is None:
            self.note("seed", Counter(seed=given))
            return given
        return before["seed"]
