"""The table of a run's values, read from its log in one pass.

The rules are those of `florlog.RunView.logged`: what an aborted iteration logged does not count, a segment that a
resume executed again counts once, and of what replays found for an iteration at one statement's place the newest
counts.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from florlog_wal import (
    Abort,
    Array,
    Hindsight,
    LoopBegin,
    Path,
    RunEnd,
    RunLog,
    SessionInfo,
    Statement,
    Values,
)

from florlog.program.stores import answers_of
from florlog.reading.columns import Columns, ColumnsBuilder, known_trust
from florlog.state.readable_values import readable

_FIRST_HINDSIGHT_LSN = (
    2**62
)  # after every LSN of a recording: what replays found comes after what was recorded
_PLAIN = frozenset({float, int, str, bool, type(None), bytes})
_CONTAINERS = frozenset({Array, list, tuple, set, frozenset, dict})


def table_of(log: RunLog, names: Sequence[str] = ()) -> Columns:
    """The values of ``names`` (default: all)."""
    reading = _TableReader(log, ColumnsBuilder(names))
    for session in log.sessions():
        reading.recorded(session)
    reading.end_of_recorded()
    for answers, session in answers_of(log):
        if session.counts.get(RunEnd):  # else it was killed: no answer
            reading.replayed(answers, session)
    reading.end_of_replayed()
    return reading.table.columns()


class _TableReader:
    def __init__(self, log: RunLog, table: ColumnsBuilder) -> None:
        self.table = table
        self._log = log
        self._begun: set[int] = set()
        self._segments: dict[tuple[int, int, int], tuple[int, list[tuple[int, str, Any]]]] = {}
        self._found: dict[tuple[str, str, Path], list[tuple[str, Any]]] = {}  # trust and value

    def recorded(self, session: SessionInfo) -> None:
        """Take in what a recording logged."""
        table = self.table
        known = {0: 0}
        for batch in self._log.batches(session.lsn, session.last_lsn + 1, session=session.lsn):
            for entry in batch.others:
                record = entry.record
                if isinstance(record, LoopBegin):
                    number = known[entry.lsn] = table.loop(record.path, record.name)
                    if number in self._begun:  # a resume goes on there
                        table.abort(number, record.start, entry.lsn, later=True)
                    self._begun.add(number)
                elif isinstance(record, Values) and record.loop in known:
                    self._values(session.lsn, known[record.loop], entry.lsn, record)
                elif isinstance(record, Abort) and record.loop in known:
                    table.abort(known[record.loop], record.index, entry.lsn)
            columns = [column for column in batch.logged if table.wants(column.name)]
            if columns:
                loops: Any = set(batch.loops)
                loops = known[loops.pop()] if len(loops) == 1 else [known[loop] for loop in batch.loops]
                first = table.entries(loops, batch.indices, batch.lsns, undoable=True)
                for column in columns:
                    at = [first + position for position in column.commits]
                    table.cells(column.name, at, _read(column.values))

    def _values(self, session: int, loop: int, lsn: int, record: Values) -> None:
        """A segment's values, which replace those that an earlier session logged for it."""
        key = (loop, record.index, record.segment)
        logged = [(lsn, name, value) for _, name, value in record.values if self.table.wants(name)]
        held = self._segments.get(key)
        if held is not None and held[0] == session:
            held[1].extend(logged)
        else:
            self._segments[key] = (session, logged)

    def end_of_recorded(self) -> None:
        """Put in what iterations with loops of their own logged before their commit."""
        for (loop, index, _), (_, logged) in self._segments.items():
            for lsn, name, value in logged:
                at = self.table.entries(loop, [index], lsn)
                self.table.cells(name, [at], _read([value]))

    def replayed(self, answers: RunLog, session: SessionInfo) -> None:
        """Take in what a replay found."""
        places: dict[int, str] = {}
        fresh: dict[tuple[str, str, Path], list[tuple[str, Any]]] = {}
        for entry in answers.scan(
            session.lsn, session.last_lsn + 1, types=(Statement, Hindsight), session=session.lsn
        ):
            record = entry.record
            if isinstance(record, Statement):
                places[record.id] = record.qualname
            elif isinstance(record, Hindsight):
                for statement, name, value in record.values:
                    if statement in places and self.table.wants(name):
                        key = (places[statement], name, record.path)
                        fresh.setdefault(key, []).append((known_trust(record.trust), value))
        self._found |= fresh

    def end_of_replayed(self) -> None:
        """Put in what replays found."""
        cells: dict[tuple[str, str], list[tuple[int, int, int, Any]]] = {}
        order = itertools.count(_FIRST_HINDSIGHT_LSN)
        for (_, name, path), values in self._found.items():
            loop, index = (self.table.loop(path[:-1], path[-1][0]), path[-1][1]) if path else (0, 0)
            for trust, value in values:
                cells.setdefault((name, trust), []).append((loop, index, next(order), value))
        for (name, trust), rows in cells.items():
            loops, indices, lsns, found = zip(*rows, strict=True)
            first = self.table.entries(loops, indices, lsns)
            self.table.cells(name, range(first, first + len(found)), _read(found), trust)


def _read(values: Sequence[Any]) -> Sequence[Any]:
    """Logged values as readers get them."""
    if _PLAIN.issuperset(map(type, values)):
        return values
    return [readable(value) if type(value) in _CONTAINERS else value for value in values]
