"""The log statements of a recording, found again in the program as it is now.

The program may have been edited: lines have moved, and statements were added.  Here is which statement is which, and
what a recorded one logged in an iteration.
"""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Mapping
from types import FunctionType, MethodType
from typing import Any

from florlog_recovery import RunTree
from florlog_wal import Commit, RunLog, Values, encode_value

from florlog.following.stack import Expected, OpenIteration
from florlog.program.process import this_process


class RecordedStatements:
    """The statements of one run.

    ``lines`` maps a source file to its path when recorded and its lines' numbers then; None: unchanged.
    ``resuming``: the program is taken for the recorded one, whatever its lines are.
    """

    def __init__(
        self,
        log: RunLog,
        tree: RunTree,
        lines: Mapping[str, tuple[str, Mapping[int, int]]] | None,
        *,
        resuming: bool = False,
    ) -> None:
        self._log = log
        self._statements = tree.statements
        self.lines = lines
        self._resuming = resuming

    def expect(self, iteration: OpenIteration) -> None:
        """An iteration begins: read what it logged."""
        expected: Expected = {}
        iteration.expected = expected
        loop, node = iteration.loop, iteration.recorded
        lsns = list(node.values) if node is not None else []
        recorded = loop.recorded if loop is not None else None
        if recorded is not None and iteration.index < recorded.count:
            lsns.append(recorded.commits[iteration.index])
        for lsn in lsns:
            entry = self._log.record(lsn)
            assert isinstance(entry.record, Commit | Values)
            if isinstance(entry.record, Commit):
                iteration.commit = entry.record
            for statement, name, value in entry.record.values:
                site = self._statements[entry.session][statement]
                expected.setdefault((site.file, site.line, name), deque()).append(encode_value(value))

    def then(self, file: str, line: int) -> tuple[str, int] | None:
        """A source position as it was when recorded, None for code that the recording does not have."""
        if self.lines is None or file not in self.lines:
            return file, line
        recorded, lines = self.lines[file]
        return (recorded, lines[line]) if line in lines else None

    def was_there(self, file: str, line: int) -> bool:
        """Whether a statement was in the program when it was recorded."""
        return self._resuming or self.then(file, line) is not None

    def is_added(self, value: Any) -> bool:
        """Whether something is a function, or has one, of code that the recorded program does not have."""
        if isinstance(value, functools.partial):
            value = value.func
        if isinstance(value, MethodType):
            value = value.__func__
        if not isinstance(value, FunctionType):
            return False
        file = value.__code__.co_filename
        if file in this_process.adopted:  # of which only a few functions are part of the program
            return False
        return not self.was_there(file, value.__code__.co_firstlineno)

    def has_name(self, file: str, line: int, name: str) -> bool:
        """Whether a recorded statement (file and line as they were then) logged under a name."""
        return any(
            statement.file == file and statement.line == line and name in statement.names
            for table in self._statements.values()
            for statement in table.values()
        )
