"""The values of each log statement in one iteration; of what is inside the iteration, the last ones."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from florlog_recovery import Loop, Node, RunTree
from florlog_wal import Commit, Path, RunLog, Values

from florlog.program.recorded_sources import StatementPlace
from florlog.reading.reader import LoggedValue


def values_by_statement(
    log: RunLog, tree: RunTree, path: Path, found: Iterable[LoggedValue] = ()
) -> dict[StatementPlace, dict[str, Any]]:
    """By statement, the values of an iteration by name; ``()`` is the run, so the last of everything.

    Only the few records that contain them are read.  ``found``: what replays found.
    """
    by_statement: dict[StatementPlace, dict[str, Any]] = {}
    if not path:
        _node(log, tree, tree.root, by_statement)
    elif (place := tree.locate(path)) is not None:
        _iteration(log, tree, *place, by_statement)
    for value in found:
        if value.path[: len(path)] == path:
            by_statement.setdefault((value.statement.file, value.statement.line), {})[value.name] = (
                value.value
            )
    return by_statement


def _node(log: RunLog, tree: RunTree, node: Node, by_statement: dict[StatementPlace, dict[str, Any]]) -> None:
    for lsn in node.values:
        _record(log, tree, lsn, by_statement)
    for loop in node.loops:
        if loop.count:
            _iteration(log, tree, loop, loop.count - 1, by_statement)


def _iteration(
    log: RunLog, tree: RunTree, loop: Loop, index: int, by_statement: dict[StatementPlace, dict[str, Any]]
) -> None:
    if (node := loop.nodes.get(index)) is not None:
        _node(log, tree, node, by_statement)
    if index < loop.count:
        _record(log, tree, loop.commits[index], by_statement)


def _record(log: RunLog, tree: RunTree, lsn: int, by_statement: dict[StatementPlace, dict[str, Any]]) -> None:
    entry = log.record(lsn)
    assert isinstance(entry.record, Commit | Values)
    for number, name, value in entry.record.values:
        if (statement := tree.statements[entry.session].get(number)) is not None:
            by_statement.setdefault((statement.file, statement.line), {})[name] = value
