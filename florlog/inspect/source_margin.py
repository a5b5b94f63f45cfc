"""The values beside each log statement: of one iteration, the last ones of what lies inside it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from florlog_recovery import Loop, Node, RunTree
from florlog_wal import Commit, Path, Store, Values

from florlog.program.recorded_sources import StatementPlace
from florlog.reading.reader import LoggedValue


def values_beside(
    store: Store, tree: RunTree, path: Path, found: Iterable[LoggedValue] = ()
) -> dict[StatementPlace, dict[str, Any]]:
    """By statement, the values of an iteration by name; ``()`` is the run, so the last of everything.

    Only the few records that hold them are read.  ``found``: what replays found.
    """
    beside: dict[StatementPlace, dict[str, Any]] = {}
    if not path:
        _node(store, tree, tree.root, beside)
    elif (place := tree.locate(path)) is not None:
        _iteration(store, tree, *place, beside)
    for value in found:
        if value.path[: len(path)] == path:
            beside.setdefault((value.statement.file, value.statement.line), {})[value.name] = value.value
    return beside


def _node(store: Store, tree: RunTree, node: Node, beside: dict[StatementPlace, dict[str, Any]]) -> None:
    for lsn in node.values:
        _record(store, tree, lsn, beside)
    for loop in node.loops:
        if loop.count:
            _iteration(store, tree, loop, loop.count - 1, beside)


def _iteration(
    store: Store, tree: RunTree, loop: Loop, index: int, beside: dict[StatementPlace, dict[str, Any]]
) -> None:
    if (node := loop.nodes.get(index)) is not None:
        _node(store, tree, node, beside)
    if index < loop.count:
        _record(store, tree, loop.commits[index], beside)


def _record(store: Store, tree: RunTree, lsn: int, beside: dict[StatementPlace, dict[str, Any]]) -> None:
    entry = store.record(lsn)
    assert isinstance(entry.record, Commit | Values)
    for number, name, value in entry.record.values:
        if (statement := tree.statements[entry.session].get(number)) is not None:
            beside.setdefault((statement.file, statement.line), {})[name] = value
