"""Appending each record once, though a signal's handler may raise between the log and whoever writes to it.

Python calls a signal's handler between two steps of the program.  What the handler raises, such as KeyboardInterrupt,
may come out of an append whose record is already in the log.  The training may catch that and go on; then what was
interrupted is done again.  So an append that did not return is remembered, and before the next one the log is asked.
"""

from __future__ import annotations

import signal
from typing import Any

from florlog_wal import Abort, Begin, Commit, LoopBegin, LoopEnd, Path, Record, RunLog, Values

_Place = tuple[Any, ...]


class Once:
    """Appends records to a store.  A session writes at most one record of a `_place`."""

    def __init__(self, log: RunLog) -> None:
        self._log = log
        self._appending: tuple[int, Record, int] | None = None
        """Set while a record is being appended: the log's end before, the record and its ``prev``."""
        self._interrupted: list[tuple[int, Record, int]] = []
        self._written: dict[_Place, int] = {}
        """LSNs of records that are in the log, and whose append did not return."""

    def append(self, record: Record, session: int, prev: int) -> int:
        """The LSN of the record, which is appended unless an earlier append of it did not return and has done so."""
        unsure = self._appending is not None or self._interrupted or self._written
        if unsure and (lsn := self._known(_place(record, prev), session)):
            return lsn
        self._appending = self._log.last_lsn, record, prev
        try:
            lsn = self._log.append(record, session=session, prev=prev)
        except Exception as error:
            if not from_signal_handler(error):
                self._appending = None
            raise
        # No call from here on, so no signal handler can raise in between.
        self._appending = None
        return lsn

    def beginning(self, path: Path, name: str, session: int) -> int:
        """The LSN of a loop's LoopBegin whose append did not return; 0 if it is not in the log."""
        return self._known((LoopBegin, path, name), session)

    def _known(self, place: _Place, session: int) -> int:
        if self._appending is not None:
            self._interrupted.append(self._appending)
            self._appending = None
        if self._interrupted:
            self._look(session)
        return self._written.get(place, 0)

    def _look(self, session: int) -> None:
        for before, record, prev in self._interrupted:
            place = _place(record, prev)
            for entry in self._log.scan(before + 1, session=session) if place else ():
                if _place(entry.record, entry.prev_lsn) == place:
                    self._written[place] = entry.lsn
        self._interrupted.clear()


def _place(record: Record, prev: int) -> _Place:
    """What tells a record from all others of its session; () for a record that may stand there twice."""
    match record:
        case LoopBegin():
            return LoopBegin, record.path, record.name
        case Begin() | Commit() | Abort():
            return type(record), record.loop, record.index
        case LoopEnd():
            return LoopEnd, record.loop
        case Values():
            return Values, record.loop, record.index, record.segment, prev
        case _:
            return ()


def from_signal_handler(error: BaseException) -> bool:
    """Whether a signal's handler raised this, or what it called."""
    handlers = {getattr(signal.getsignal(number), "__code__", None) for number in signal.valid_signals()} - {
        None
    }
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code in handlers:
            return True
        trace = trace.tb_next
    return False
