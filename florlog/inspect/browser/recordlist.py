"""The records of a run, read as they come into view."""

from __future__ import annotations

from array import array
from bisect import bisect_left

from florlog_wal import Entry, Path, SessionInfo, Store
from rich.text import Text

from ..._session import sessions_of
from ..forms import COLOURS, detail, place
from ..paths import Paths
from ..records import selected
from ..redo import Overlay
from ..selection import Selection
from .lines import Lines

_PAGE = 128


class RecordList(Lines):
    """One line a record.

    Without a filter a line's LSN follows from the sessions' summary rows, so a log of any length opens at
    once; with one, the LSNs of what is meant are collected, 8 bytes each.
    """

    def __init__(self, store: Store, run: str, *, id: str | None = None) -> None:  # noqa: A002
        super().__init__(id=id)
        self._store, self._run = store, run
        self.selection = Selection()
        self.overlay: Overlay | None = None
        self.marks: set[int] = set()
        self._ranges: list[tuple[int, int, int]] = []  # first row, first LSN, count
        self._found: array[int] | None = None
        self._paths = Paths(store)
        self._pages: dict[int, list[Entry]] = {}

    def on_mount(self) -> None:
        """Show the run."""
        self.read()

    def read(self) -> None:
        """Look again at how far the log reaches."""
        sessions = sessions_of(self._store, self._run)
        dense = all(sum(s.counts.values()) == s.last_lsn - s.lsn + 1 for s in sessions)
        self._pages.clear()
        if self.selection.everything and dense:
            self._found = None
            self._ranges = _ranges(sessions)
            self.set_count(sum(count for *_, count in self._ranges))
        else:
            found = selected(self._store, self._run, self.selection)
            self._found = array("Q", (entry.lsn for entry, _ in found))
            self.set_count(len(self._found))

    def lsn(self, row: int) -> int:
        """The LSN of a line."""
        if self._found is not None:
            return self._found[row]
        first, start, _ = next(part for part in reversed(self._ranges) if part[0] <= row)
        return start + row - first

    def row(self, lsn: int) -> int:
        """The line of an LSN, or of the next one that is shown."""
        if self._found is not None:
            return bisect_left(self._found, lsn)
        for first, start, count in self._ranges:
            if lsn < start + count:
                return first + max(0, lsn - start)
        return self.count - 1

    def entry(self, row: int) -> Entry:
        """The record of a line."""
        if self._found is not None:
            return self._store.record(self._found[row])
        first, start, count = next(part for part in reversed(self._ranges) if part[0] <= row)
        page = (row - first) // _PAGE
        low = start + page * _PAGE
        if low not in self._pages:
            while len(self._pages) > 16:
                del self._pages[next(iter(self._pages))]
            self._pages[low] = list(self._store.scan(low, min(low + _PAGE, start + count)))
        return self._pages[low][start + row - first - low]

    def path(self, entry: Entry) -> Path:
        """The path of a record."""
        return self._paths.of(entry)

    def line(self, row: int) -> Text:
        """One record."""
        entry = self.entry(row)
        name, path = type(entry.record).__name__, self.path(entry)
        redone = self.overlay is not None and path in self.overlay
        text = Text(no_wrap=True)
        text.append("*" if entry.lsn in self.marks else " ", "bold yellow")
        text.append(f"{entry.lsn:>8} ", "dim")
        text.append(f"{name:<15} ", COLOURS[name])
        text.append(f"{place(path):<20} ", "black on yellow" if redone else "")
        text.append(detail(entry, 200))
        return text


def _ranges(sessions: list[SessionInfo]) -> list[tuple[int, int, int]]:
    ranges, row = [], 0
    for session in sessions:
        count = session.last_lsn - session.lsn + 1
        ranges.append((row, session.lsn, count))
        row += count
    return ranges
