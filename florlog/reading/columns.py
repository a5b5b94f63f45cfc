"""A table of values by column: what `florlog.RunView.values`, ``to_arrow`` and every export show.

A row is an iteration that logged something.  Cells come in chunks, as the log is read: some iterations of one
loop execution, and what each logged under a name.  Nothing is made for each cell in Python; rows are put in
order and cells into their rows by numpy, at the end.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from florlog_wal import Path
from numpy import typing as npt

RECORDED: Final = "RECORDED"
TRUST: Final = ("DIVERGED", "UNVERIFIED", "CONSISTENT", "PROVEN", RECORDED)
"""What can be said of a value, the least first."""


def known_trust(trust: str) -> str:
    """The trust that a replay stored with a value; "UNVERIFIED" for what no replay says."""
    return trust if trust in TRUST[:-1] else "UNVERIFIED"


Indices = npt.NDArray[np.int64]
RowMask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Column:
    """One value a row: numbers or truth values as such, anything else as objects; and which rows have one."""

    values: npt.NDArray[Any]
    present: RowMask

    def objects(self) -> list[Any]:
        """The values as Python has them, None where there is none."""
        held: list[Any] = self.values.tolist()
        if self.present.all():
            return held
        return [value if there else None for value, there in zip(held, self.present.tolist(), strict=True)]

    def numbers(self) -> npt.NDArray[np.float64]:
        """The finite numbers as floats, NaN for all else."""
        if self.values.dtype != object:
            found = self.values.astype(np.float64) if self.values.dtype != bool else self.values * 1.0
            return np.where(self.present & np.isfinite(found), found, np.nan)
        return np.array([_number(value) for value in self.values], dtype=np.float64)


@dataclass(frozen=True, slots=True)
class Columns:
    """The table: the loops' indices, the names' values, and each row's trust as a number (see `TRUST`)."""

    loops: dict[str, Column]
    names: dict[str, Column]
    trust: npt.NDArray[np.int8]

    def __len__(self) -> int:
        return len(self.trust)

    def labels(self) -> list[str]:
        """The trust of each row."""
        return [TRUST[code] for code in self.trust.tolist()]


@dataclass(slots=True)
class _Chunk:
    at: Indices  # numbers of entries
    values: Any  # a numpy array of one kind, or a list
    trust: int


class ColumnsBuilder:
    """Collects the cells of a table."""

    def __init__(self, names: Sequence[str] = ()) -> None:
        """``names``: those that are wanted, default all."""
        self._loops: list[tuple[Path, str]] = [((), "")]  # number 0: the run itself
        self._numbers: dict[tuple[Path, str], int] = {}
        self._entries: list[
            tuple[Indices, Indices, Indices, RowMask]
        ] = []  # loop execution, index, LSN, can be undone
        self._count = 0
        self._chunks: dict[str, list[_Chunk]] = {name: [] for name in names}
        self._all = not names
        self._aborts: list[tuple[int, int, int, bool]] = []

    def loop(self, path: Path, name: str) -> int:
        """The number of a loop execution; 0 is the run itself."""
        number = self._numbers.get((path, name))
        if number is None:
            number = self._numbers[path, name] = len(self._loops)
            self._loops.append((path, name))
        return number

    def wants(self, name: str) -> bool:
        """Whether a name has a column; columns are in the order in which names were asked for here."""
        if self._all:
            self._chunks.setdefault(name, [])
        return name in self._chunks

    def entries(self, loops: Any, indices: Any, lsns: Any, *, undoable: bool = False) -> int:
        """Take in iterations by loop execution and index, and where they logged; the first one's number.

        ``undoable``: an `abort` may undo them.
        """
        first = self._count
        made = np.asarray(indices, dtype=np.int64)
        around = (np.asarray(loops, dtype=np.int64), np.asarray(lsns, dtype=np.int64), np.bool_(undoable))
        whose, where, undo = (np.broadcast_to(part, made.shape) for part in around)
        self._entries.append((whose, made, where, undo))  # type: ignore[arg-type]
        self._count += len(made)
        return first

    def cells(self, name: str, at: Any, values: Sequence[Any], trust: str = RECORDED) -> None:
        """What entries logged under a name; a later cell of the same entry comes after an earlier one."""
        chunk = _Chunk(np.asarray(at, dtype=np.int64), _packed(values), TRUST.index(trust))
        self._chunks[name].append(chunk)

    def abort(self, loop: int, index: int, lsn: int, *, later: bool = False) -> None:
        """What an iteration, and with ``later`` those after it, logged before an LSN does not count."""
        self._aborts.append((loop, index, lsn, later))

    def columns(self) -> Columns:
        """The table, its rows in order of iteration."""
        self.entries(0, (), 0)  # so that there is at least one
        loops, indices, lsns, undo = (np.concatenate(part) for part in zip(*self._entries, strict=True))
        used = np.zeros(len(loops), dtype=np.bool_)
        for chunks in self._chunks.values():
            for chunk in chunks:
                used[chunk.at] = True
        for loop, index, lsn, later in self._aborts:
            undone = indices >= index if later else indices == index
            used &= ~((loops == loop) & undone & (lsns < lsn) & undo)
        row_of, first = self._rows(loops, indices, used)
        trust = np.full(len(first), len(TRUST) - 1, dtype=np.int8)
        names = {
            name: _column(chunks, row_of, lsns, len(first), trust) for name, chunks in self._chunks.items()
        }
        if self._all:
            names = {name: column for name, column in names.items() if column.present.any()}
        return Columns(self._indices(loops[first], indices[first]), names, trust)

    def _rows(self, loops: Indices, indices: Indices, wanted: RowMask) -> tuple[Indices, Indices]:
        """The row of each entry (-1 for one without), and of each row its first entry."""
        chosen = np.flatnonzero(wanted)
        keys = self._keys(loops[chosen], indices[chosen])
        if not _in_order(keys):
            order = np.lexsort(keys[::-1]) if keys else np.arange(len(chosen))
            chosen, keys = chosen[order], [key[order] for key in keys]
        new = np.ones(len(chosen), dtype=np.bool_)
        if len(chosen):
            new[1:] = False
            for key in keys:
                new[1:] |= key[1:] != key[:-1]
        row_of = np.full(len(loops), -1, dtype=np.int64)
        row_of[chosen] = np.cumsum(new) - 1
        return row_of, chosen[new]

    def _keys(self, loops: Indices, indices: Indices) -> list[Indices]:
        """Columns by which rows are sorted: an iteration comes before what lies inside it."""
        deepest = max(len(path) for path, _ in self._loops) + 1
        order: dict[str, int] = {}
        for path, name in self._loops[1:]:
            for known, _ in path:
                order.setdefault(known, len(order))
            order.setdefault(name, len(order))
        around = np.full((2 * deepest, len(self._loops)), -1, dtype=np.int64)
        for number, (path, name) in enumerate(self._loops[1:], 1):
            for depth, (known, index) in enumerate(path):
                around[2 * depth : 2 * depth + 2, number] = order[known], index
            around[2 * len(path), number] = order[name]
        own = np.array([-1] + [2 * len(path) + 1 for path, _ in self._loops[1:]])
        keys = [around[at][loops] for at in range(2 * deepest)]
        for at in np.unique(own[1:]):
            mine = own[loops] == at
            keys[at][mine] = indices[mine]
        return keys

    def _indices(self, loops: Indices, indices: Indices) -> dict[str, Column]:
        """The loops' columns."""
        around: dict[str, Indices] = {}
        for number, (path, name) in enumerate(self._loops):
            for known, index in (*path, (name, -2)) if number else ():
                column = around.setdefault(known, np.full(len(self._loops), -1, dtype=np.int64))
                column[number] = index
        found = {name: column[loops] for name, column in around.items()}
        for column in found.values():
            mine = column == -2
            column[mine] = indices[mine]
        return {name: Column(column, column >= 0) for name, column in found.items() if (column >= 0).any()}


def _in_order(keys: list[Indices]) -> bool:
    """Whether rows are sorted by their keys, the first counting most."""
    if not keys or len(keys[0]) < 2:
        return True
    same = np.ones(len(keys[0]) - 1, dtype=np.bool_)
    for key in keys:
        if (same & (key[1:] < key[:-1])).any():
            return False
        same &= key[1:] == key[:-1]
    return True


def _packed(values: Sequence[Any]) -> Any:
    """Values of one kind as an array; others as a list."""
    kinds = set(map(type, values))
    if len(kinds) == 1 and (kind := next(iter(kinds))) in (float, bool, int):
        try:
            return np.array(values, dtype=np.int64 if kind is int else kind)
        except OverflowError:
            pass
    return list(values)


def _column(
    chunks: list[_Chunk], row_of: Indices, lsns: Indices, rows: int, trust: npt.NDArray[np.int8]
) -> Column:
    """The cells of one name in their rows; ``trust`` is lowered to that of each cell."""
    present = np.zeros(rows, dtype=np.bool_)
    cells = 0
    for chunk in chunks:
        places = row_of[chunk.at]
        held = places[places >= 0]
        cells += len(held)
        present[held] = True
        if chunk.trust < len(TRUST) - 1:
            trust[held] = np.minimum(trust[held], chunk.trust)
    if cells > present.sum():  # somewhere the name was logged more than once
        return _several(chunks, row_of, lsns, present)
    kinds = {chunk.values.dtype if isinstance(chunk.values, np.ndarray) else None for chunk in chunks}
    kind = next(iter(kinds)) if len(kinds) == 1 else None  # None: objects
    values: npt.NDArray[Any] = np.zeros(rows, kind) if kind is not None else np.full(rows, None, dtype=object)
    for chunk in chunks:
        places = row_of[chunk.at]
        wanted = places >= 0
        if kind is not None:
            values[places[wanted]] = chunk.values[wanted]
        else:
            for place, value in zip(places.tolist(), _listed(chunk.values), strict=True):
                if place >= 0:
                    values[place] = value
    return Column(values, present)


def _several(chunks: list[_Chunk], row_of: Indices, lsns: Indices, present: RowMask) -> Column:
    """Cells of which some share a row: those are a list, in the order in which they were logged."""
    held: list[list[tuple[int, Any]]] = [[] for _ in present]
    for chunk in chunks:
        where = zip(row_of[chunk.at].tolist(), lsns[chunk.at].tolist(), _listed(chunk.values), strict=True)
        for place, lsn, value in where:
            if place >= 0:
                held[place].append((lsn, value))
    values = np.full(len(present), None, dtype=object)
    for row, cells in enumerate(held):
        if len(cells) > 1:
            values[row] = [value for _, value in sorted(cells, key=lambda cell: cell[0])]
        elif cells:
            values[row] = cells[0][1]
    return Column(values, present)


def _listed(values: Any) -> list[Any]:
    listed: list[Any] = values.tolist() if isinstance(values, np.ndarray) else values
    return listed


def _number(value: Any) -> float:
    if isinstance(value, int | float) and abs(value) < 1e300 and math.isfinite(value):
        return float(value)
    return math.nan
