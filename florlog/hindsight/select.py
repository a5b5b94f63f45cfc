"""Which iterations a request means: ``--where``, ``--first`` and ``--last``.

A condition's names are loops and what the recording logged.  In an iteration a name stands for the first of

1. the index of that loop, if it is the iteration's own or one around it;
2. the value that the iteration itself logged, the last one if it logged several;
3. the value that the nearest iteration around it logged, the run at last;
4. the value that an iteration inside it logged, if exactly one did.

Else it is unknown, as a value is that is not a single number or string.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from florlog_recovery import Condition, Loop, Node, RunTree
from florlog_wal import Commit, Path, RunLog, Values

from florlog.state.readable_values import readable

Mask = npt.NDArray[np.bool_]


class IterationSelection:
    """The iterations for which a condition holds; all of them without one."""

    def __init__(self, log: RunLog, tree: RunTree, condition: Condition | None) -> None:
        self._condition = condition
        loops = {loop.name.split("#")[0] for loop in tree.loops()} | {loop.name for loop in tree.loops()}
        self._names = condition.names if condition is not None else frozenset()
        self._values = _Logged(log, tree, self._names - loops)

    def node(self, node: Node) -> bool:
        """Whether an iteration with loops of its own, or the run, is selected."""
        if self._condition is None:
            return True
        return self._condition(self._around(node) | dict(self._values.inside(node)))

    def leaves(self, loop: Loop) -> Mask:
        """The selected ones of a loop execution's committed iterations; those with loops of their own are not."""
        leaf = np.ones(loop.count, dtype=np.bool_)
        leaf[[index for index in loop.nodes if index < loop.count]] = False
        if self._condition is None:
            return leaf
        values: dict[str, Any] = self._around(loop.parent)
        for name, column in self._values.columns(loop).items():
            outer = values.get(name)
            if outer is not None:
                column = _filled(column, outer)
            values[name] = column
        values[loop.name] = np.ma.arange(loop.count)
        return leaf & self._condition.select(values, loop.count)

    def _around(self, node: Node) -> dict[str, Any]:
        """What an iteration and those around it give to the names."""
        chain: list[Node] = [node]
        while (loop := chain[-1].loop) is not None:
            chain.append(loop.parent)
        values: dict[str, Any] = {}
        for outer in reversed(chain):
            values |= self._values.own(outer)
        return values | dict(node.path)


class _Logged:
    """The recorded values of some names."""

    def __init__(self, log: RunLog, tree: RunTree, names: Collection[str]) -> None:
        self._log = log
        self._names = names
        self._columns: dict[Loop, dict[str, Any]] = {}
        self._own: dict[Node, dict[str, Any]] = {}

    def own(self, node: Node) -> dict[str, Any]:
        """What an iteration with loops, or the run, logged itself."""
        if node not in self._own:
            lsns = list(node.values)
            if node.loop is not None and node.index < node.loop.count:
                lsns.append(node.loop.commits[node.index])
            self._own[node] = {n: v for lsn in lsns for n, v in self._record(lsn) if v is not None}
        return self._own[node]

    def columns(self, loop: Loop) -> dict[str, Any]:
        """What the iterations of a loop execution logged: a masked array for each name."""
        if loop not in self._columns:
            rows: dict[str, list[Any]] = {name: [None] * loop.count for name in self._names}
            if self._names:
                for index, lsn in enumerate(loop.commits):
                    for name, value in self._record(lsn):
                        rows[name][index] = value
                for index, node in loop.nodes.items():
                    if index < loop.count:
                        for name, value in self.own(node).items():
                            rows[name][index] = value
            self._columns[loop] = {
                name: _column(row) for name, row in rows.items() if any(v is not None for v in row)
            }
        return self._columns[loop]

    def inside(self, node: Node) -> Iterator[tuple[str, Any]]:
        """Names that nothing at or around an iteration gives, and one iteration inside it does."""
        chain = node
        taken = set(self.own(node))
        while chain.loop is not None:
            chain = chain.loop.parent
            taken |= set(self.own(chain))
        for name in set(self._names) - taken:
            found = [value for loop in self._loops(node) for value in self._some(loop, name)]
            if len(found) == 1:
                yield name, found[0]

    def _some(self, loop: Loop, name: str) -> list[Any]:
        column = self.columns(loop).get(name)
        return [] if column is None else column.compressed()[:2].tolist()

    def _loops(self, node: Node) -> Iterator[Loop]:
        for loop in node.loops:
            yield loop
            for inner in loop.nodes.values():
                yield from self._loops(inner)

    def _record(self, lsn: int) -> Iterator[tuple[str, Any]]:
        if not self._names:
            return
        record = self._log.record(lsn).record
        assert isinstance(record, Commit | Values)
        for _, name, value in record.values:
            if name in self._names:
                yield name, _single(value)


def _single(value: Any) -> Any:
    held = readable(value)
    if getattr(held, "size", 0) == 1 and hasattr(held, "item"):
        held = held.item()
    return held if isinstance(held, (bool, int, float, str)) else None


def _column(row: list[Any]) -> Any:
    missing = np.array([value is None for value in row], dtype=np.bool_)
    present = [value for value in row if value is not None]
    numbers = all((isinstance(value, (bool, int, float)) and abs(value) < 2**62) or value != value
                  or value in (float("inf"), float("-inf")) for value in present)  # fmt: skip
    if not numbers:
        return np.ma.MaskedArray(np.array(row, dtype=object), missing)
    return np.ma.MaskedArray(np.array([0 if value is None else value for value in row]), missing)


def _filled(column: Any, outer: Any) -> Any:
    """A column with the value of an outer iteration where it has none."""
    if column.dtype == object or isinstance(outer, str):
        return np.ma.MaskedArray(np.array([outer if v is None else v for v in column.tolist()], dtype=object))
    data = np.where(np.ma.getmaskarray(column), outer, np.ma.getdata(column))
    return np.ma.MaskedArray(data)


@dataclass(frozen=True, slots=True)
class Chosen:
    """Iterations: those with loops of their own, and masks over the innermost ones of loop executions."""

    nodes: AbstractSet[Node]
    leaves: Mapping[Loop, Mask]

    def holds(self, tree: RunTree, path: Path) -> bool:
        """Whether an iteration is among them; one of a loop that the recording lacks counts as the one around it."""
        while path and tree.locate(path) is None:
            path = path[:-1]
        if (place := tree.locate(path)) is None:
            return tree.root in self.nodes
        loop, index = place
        if index in loop.nodes:
            return loop.nodes[index] in self.nodes
        return loop in self.leaves and bool(self.leaves[loop][index])


Unit = Node | tuple[Loop, npt.NDArray[np.int64]]
"""An iteration with loops of its own, or innermost iterations in a row."""


def timeline(tree: RunTree, nodes: Collection[Node], leaves: dict[Loop, Mask]) -> Iterator[Unit]:
    """Iterations in the order in which they began."""

    def inside(node: Node) -> Iterator[Unit]:
        if node in nodes:
            yield node
        for loop in node.loops:
            mask = leaves.get(loop)
            chosen = np.zeros(0, dtype=np.int64) if mask is None else np.flatnonzero(mask)
            first = 0
            for index in sorted(loop.nodes):
                stop = int(np.searchsorted(chosen, index))
                if first < stop:
                    yield loop, chosen[first:stop]
                first = stop
                yield from inside(loop.nodes[index])
            if first < chosen.size:
                yield loop, chosen[first:]

    return inside(tree.root)


def outermost(
    tree: RunTree, nodes: set[Node], leaves: dict[Loop, Mask], first: int | None, last: int | None
) -> tuple[set[Node], dict[Loop, Mask]]:
    """The first and the last so many of some iterations; all of them for None and None."""
    if first is None and last is None:
        return nodes, leaves
    units = list(timeline(tree, nodes, leaves))
    kept_nodes: set[Node] = set()
    kept: dict[Loop, Mask] = {}

    def keep(order: list[Unit], left: int, *, head: bool) -> None:
        for unit in order:
            if left <= 0:
                return
            if isinstance(unit, Node):
                kept_nodes.add(unit)
                left -= 1
                continue
            loop, indices = unit
            some = indices[:left] if head else indices[-left:]
            mask = kept.setdefault(loop, np.zeros(loop.count, dtype=np.bool_))
            mask[some] = True
            left -= some.size

    keep(units, first or 0, head=True)
    keep(units[::-1], last or 0, head=False)
    return kept_nodes, kept
