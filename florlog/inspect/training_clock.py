"""Training time along the log: how many seconds of iterations lie before a record."""

from __future__ import annotations

from florlog_wal import Commit, Entry, LoopBegin, LoopEnd


class Clock:
    """The seconds of training up to the record that it was last advanced with; records come in order.

    florlog's own work does not count, nor what comes before the first loop and after the last.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self._started: dict[int, float] = {}  # by loop execution: when its open iteration began

    def advance(self, entry: Entry) -> None:
        """Take in the next record."""
        record = entry.record
        if isinstance(record, Commit):
            began = self._started.get(record.loop, self.seconds)
            self.seconds = max(self.seconds, began + record.seconds)
            self._started[record.loop] = self.seconds
        elif isinstance(record, LoopBegin):
            self.seconds += record.seconds
            self._started[entry.lsn] = self.seconds
        elif isinstance(record, LoopEnd):
            self._started.pop(record.loop, None)
