"""The records of a run, read as they come into view."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterator
from dataclasses import replace

from florlog_wal import Entry, Path, Record, RunLog, SessionInfo
from rich.text import Text

from florlog.inspect.record_forms import SHORT_TYPES, TYPE_COLOURS, detail, path_text
from florlog.inspect.record_paths import Paths
from florlog.inspect.record_view import selected
from florlog.inspect.redo_view import PlanOverlay
from florlog.inspect.selection import RecordSelection
from florlog.ui.line_list import LineList

_RECORDS_PER_PAGE = 128
_MIN_WIDE_COLUMNS = 72  # columns, below which the type's name is shortened


class RecordList(LineList):
    """One line a record.

    Without a filter a line's LSN follows from the sessions' summary rows, so a log of any length opens at
    once; with one, the LSNs of the selected records are collected, 8 bytes each.
    """

    def __init__(self, log: RunLog, *, id: str | None = None) -> None:  # noqa: A002
        super().__init__(id=id)
        self._records = log
        self.selection = RecordSelection()
        self.overlay: PlanOverlay | None = None
        self.marks: set[int] = set()
        self._ranges: list[tuple[int, int, int]] = []  # first row, first LSN, count
        self._found: array[int] | None = None
        self._paths = Paths(log)
        self._pages: dict[int, list[Entry]] = {}
        self._digits = 1

    def on_mount(self) -> None:
        """Show the run."""
        self.read()

    def read(self) -> None:
        """Read again how far the log reaches."""
        sessions = self._records.sessions()
        dense = all(sum(s.counts.values()) == s.last_lsn - s.lsn + 1 for s in sessions)
        self._digits = len(str(sessions[-1].last_lsn))
        self._pages.clear()
        if self.selection.everything and dense:
            self._found = None
            self._ranges = _ranges(sessions)
            self.set_count(sum(count for *_, count in self._ranges))
        else:
            found = selected(self._records, self.selection)
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
            return self._records.record(self._found[row])
        first, start, count = next(part for part in reversed(self._ranges) if part[0] <= row)
        page = (row - first) // _RECORDS_PER_PAGE
        low = start + page * _RECORDS_PER_PAGE
        if low not in self._pages:
            while len(self._pages) > 16:
                del self._pages[next(iter(self._pages))]
            self._pages[low] = list(self._records.scan(low, min(low + _RECORDS_PER_PAGE, start + count)))
        return self._pages[low][start + row - first - low]

    def path(self, entry: Entry) -> Path:
        """The path of a record."""
        return self._paths.of(entry)

    def after(
        self,
        lsn: int,
        by: int,
        types: tuple[type[Record], ...] | None = None,
        wanted: Callable[[Entry, Path], bool] = lambda entry, path: True,
        most: int = 2**62,
    ) -> Iterator[int]:
        """LSNs of records that are shown and wanted, from the one after ``lsn`` on; backwards if ``by`` < 0.

        ``most``: how many LSNs are read.
        """
        held = self.selection
        if held.types is not None:
            types = held.types if types is None else tuple(kind for kind in types if kind in held.types)
        first, last = (lsn + 1, lsn + most) if by > 0 else (lsn - most, lsn - 1)
        meant = replace(
            held,
            start=max(first, held.start or 0),
            stop=last if held.stop is None else min(last, held.stop),
            types=types,
        )
        for entry, path in selected(self._records, meant, reverse=by < 0):
            if wanted(entry, path):
                yield entry.lsn

    def line(self, row: int) -> Text:
        """One record."""
        entry = self.entry(row)
        name, path = type(entry.record).__name__, self.path(entry)
        redone = self.overlay is not None and path in self.overlay
        narrow = self.size.width < _MIN_WIDE_COLUMNS
        text = Text(no_wrap=True)
        text.append("●" if entry.lsn in self.marks else " ", "bold yellow")
        text.append(f"{entry.lsn:>{self._digits}}  ", "dim")
        text.append(f"{SHORT_TYPES.get(name, name):<9}  " if narrow else f"{name:<15}  ", TYPE_COLOURS[name])
        text.append(path_text(path) if path else "·", "black on yellow" if redone else "" if path else "dim")
        text.append(" " * max(1, (18 if narrow else 24) - len(path_text(path) if path else "·")))
        text.append(detail(entry, 200))
        return text


def _ranges(sessions: list[SessionInfo]) -> list[tuple[int, int, int]]:
    ranges, row = [], 0
    for session in sessions:
        count = session.last_lsn - session.lsn + 1
        ranges.append((row, session.lsn, count))
        row += count
    return ranges
