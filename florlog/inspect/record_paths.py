"""Iteration paths of records, which name their loop by the LSN of its LoopBegin."""

from __future__ import annotations

from typing import Any

from florlog_wal import CheckpointBegin, CheckpointEnd, Entry, LoopBegin, LoopEnd, Path, RunLog, WalError

_MAX_LOOPS = 4096  # loop executions remembered; one that was forgotten is read again


class Paths:
    """The path of any record of a store, wherever reading began."""

    def __init__(self, log: RunLog) -> None:
        self._log = log
        self._loops: dict[int, tuple[Path, str]] = {}

    def of(self, entry: Entry) -> Path:
        """The path of the iteration that a record belongs to; ``()`` for the run itself."""
        record: Any = entry.record
        if isinstance(record, LoopBegin):
            self._keep(entry.lsn, record)
            return record.path
        if isinstance(record, CheckpointEnd):
            begun = self._read(record.begin)
            return self.of(begun) if begun is not None and isinstance(begun.record, CheckpointBegin) else ()
        loop = getattr(record, "loop", None)
        if loop is None:
            return getattr(record, "path", ())
        found = self._loop(loop)
        if found is None:
            return ()
        path, name = found
        return path if isinstance(record, LoopEnd) else (*path, (name, record.index))

    def _loop(self, lsn: int) -> tuple[Path, str] | None:
        if lsn not in self._loops and lsn:
            entry = self._read(lsn)
            if entry is not None and isinstance(entry.record, LoopBegin):
                self._keep(lsn, entry.record)
        return self._loops.get(lsn)

    def _read(self, lsn: int) -> Entry | None:
        try:
            return self._log.record(lsn)
        except WalError:  # it was removed, or is damaged: the record at hand can be shown all the same
            return None

    def _keep(self, lsn: int, record: LoopBegin) -> None:
        while len(self._loops) >= _MAX_LOOPS:
            del self._loops[next(iter(self._loops))]
        self._loops[lsn] = (record.path, record.name)
