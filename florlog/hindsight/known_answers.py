"""What earlier replays found for the statements that are asked for now: values that need no execution.

A replay session notes for which iterations its statements were asked (a ``Note`` of kind "asked").  A statement
is the same as an earlier one if its text, its place in the recorded source and all other added or changed code except
log statements are the same.  Of an iteration that was asked for then, its values, or that it has none, are known,
unless one of them is less than CONSISTENT; a session that found a difference leaves no note.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import xxhash
from florlog_recovery import Loop, Node, RunTree
from florlog_wal import Hindsight, Note, Path, RunEnd, RunLog, Statement

from florlog.following.trust import CONSISTENT, PROVEN
from florlog.hindsight.select import Chosen, Mask
from florlog.program.recorded_sources import StatementPlace
from florlog.program.stores import answers_of
from florlog.source.diff.source_diff import AddedStatement, SourceDiff

KIND = "asked"

Answered: TypeAlias = tuple[str, Any, str, str]
"""Name, value, trust, and what is against more trust."""


@dataclass(slots=True)
class Known:
    """What is known of one added statement."""

    nodes: set[Node] = field(default_factory=set)
    leaves: dict[Loop, Mask] = field(default_factory=dict)
    values: dict[Path, list[Answered]] = field(default_factory=dict)

    def mask(self, loop: Loop) -> Mask:
        """The innermost iterations of a loop execution for which it is known."""
        return self.leaves[loop] if loop in self.leaves else np.zeros(loop.count, dtype=np.bool_)

    def holds(self, tree: RunTree, path: Path) -> bool:
        """Whether it is known for an iteration."""
        return Chosen(self.nodes, self.leaves).holds(tree, path)

    def forget(self, tree: RunTree, path: Path) -> None:
        """It is not known for an iteration."""
        place = tree.locate(path)
        if place is None:
            self.nodes.discard(tree.root)
            return
        loop, index = place
        if index in loop.nodes:
            self.nodes.discard(loop.nodes[index])
        elif loop in self.leaves:
            self.leaves[loop][index] = False


def statement_keys(
    diffs: Mapping[str, SourceDiff], recorded: Mapping[str, str]
) -> dict[StatementPlace, bytes]:
    """The identity of every added log statement, by its present file and line."""
    others = xxhash.xxh3_64()
    for file, diff in sorted(diffs.items()):
        for change in diff.changed:
            others.update(repr((recorded[file], change)).encode())
        for named in diff.named:
            others.update(repr((recorded[file], diff.line_map.get(named.line), named.name)).encode())
            others.update(ast.dump(named.statement).encode())
        for added in diff.added:
            if not _only_logs(added):
                others.update(repr((recorded[file], *_place(diff, added), ast.dump(added.node))).encode())
    keys: dict[StatementPlace, bytes] = {}
    for file, diff in diffs.items():
        for added in diff.added:
            for call in added.log_calls:
                text = (recorded[file], *_place(diff, added), call.qualname, call.names, call.source_hash)
                before = keys.get((file, call.line), b"")  # of another call on this line
                keys[file, call.line] = xxhash.xxh3_64(
                    repr((others.digest(), before, text)).encode()
                ).digest()
    return keys


def _only_logs(added: AddedStatement) -> bool:
    return isinstance(added.node, ast.Expr) and len(added.log_calls) > 0


def _place(diff: SourceDiff, added: AddedStatement) -> tuple[int, int]:
    """The recorded line before an added statement, and its indentation."""
    before = max((new for new in diff.line_map if new < added.line), default=0)
    return diff.line_map.get(before, 0), added.node.col_offset


def asked_note(chosen: Chosen, keys: Mapping[StatementPlace, bytes]) -> Note:
    """The note of a session that was asked for these statements in these iterations."""
    leaves = [
        [[list(step) for step in loop.parent.path], loop.name, loop.count, np.packbits(mask).tobytes()]
        for loop, mask in chosen.leaves.items()
    ]
    data = {
        "statements": [[file, line, key] for (file, line), key in keys.items()],
        "nodes": [[list(step) for step in node.path] for node in chosen.nodes],
        "leaves": leaves,
    }
    return Note(KIND, "", data)


def known_values(
    log: RunLog, tree: RunTree, keys: Mapping[StatementPlace, bytes]
) -> dict[StatementPlace, Known]:
    """What earlier replays found for the statements with these keys."""
    found = {place: Known() for place in keys}
    wanted = {key: place for place, key in keys.items()}
    for answers, session in answers_of(log):
        table: dict[int, Statement] = {}
        values: dict[StatementPlace, dict[Path, list[Answered]]] = {}
        note, ended = None, False
        for entry in answers.scan(
            session.lsn,
            session.last_lsn + 1,
            types=(Statement, Hindsight, Note, RunEnd),
            session=session.lsn,
        ):
            record = entry.record
            if isinstance(record, Statement):
                table[record.id] = record
            elif isinstance(record, Hindsight):
                for statement, name, value in record.values:
                    site = table[statement]
                    group = values.setdefault((site.file, site.line), {})
                    group.setdefault(record.path, []).append((name, value, record.trust, record.detail))
            elif isinstance(record, Note) and record.kind == KIND:
                note = record
            elif isinstance(record, RunEnd):
                ended = True
        if note is None or not ended:
            continue
        for file, line, key in note.data["statements"]:
            if (place := wanted.get(key)) is not None:
                _take(tree, found[place], note, values.get((file, line), {}))
    return found


def _take(tree: RunTree, found: Known, note: Note, values: Mapping[Path, list[Answered]]) -> None:
    for path in _paths(note.data["nodes"]):
        place = tree.locate(path)
        found.nodes.add(place[0].nodes[place[1]] if place is not None else tree.root)
    for parent, name, count, bits in note.data["leaves"]:
        (path,) = _paths([parent])
        place = tree.locate(path)
        node = tree.root if place is None else place[0].nodes[place[1]]
        loop = node.find(name)
        if loop is None or loop.count != count:
            continue
        mask = np.unpackbits(np.frombuffer(bits, dtype=np.uint8), count=count).astype(np.bool_)
        found.leaves[loop] = found.mask(loop) | mask
    for path, group in values.items():
        found.values[path] = list(group)
        if any(trust not in (PROVEN, CONSISTENT) for _, _, trust, _ in group):
            found.forget(tree, path)


def _paths(lists: Iterable[Iterable[Iterable[Any]]]) -> Iterator[Path]:
    for steps in lists:
        yield tuple((str(name), int(index)) for name, index in steps)
