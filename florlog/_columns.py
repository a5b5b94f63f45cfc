"""Values as columns: a row per iteration, built in one pass without an object per row.

The table of `florlog.RunView.values`, of ``to_arrow`` and of every export.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

from florlog_wal import Path

from ._render import printable

if TYPE_CHECKING:
    import pandas as pd

RECORDED: Final = "RECORDED"
_ORDER: Final = {"DIVERGED": 0, "UNVERIFIED": 1, "CONSISTENT": 2, "PROVEN": 3, RECORDED: 4}


class Logged(Protocol):
    """What is needed of a value."""

    @property
    def name(self) -> str: ...
    @property
    def path(self) -> Path: ...
    @property
    def value(self) -> Any: ...
    @property
    def trust(self) -> str: ...


class Several(list[Any]):
    """The values of a name that an iteration logged more than once."""


@dataclass(slots=True)
class Columns:
    """The table: the loops' indices (None where a loop is not around the row), the names' values, trust."""

    loops: dict[str, list[int | None]]
    names: dict[str, list[Any]]
    trust: list[str]


def columns_of(values: Iterable[Logged], loops: Iterable[str], names: tuple[str, ...] = ()) -> Columns:
    """The values of ``names`` (default: all); ``loops`` gives the order of the loops' columns."""
    rows: dict[Path, int] = {}
    trust: list[str] = []
    held: dict[str, dict[int, Any]] = {name: {} for name in names}
    for value in values:
        name = value.name
        if names and name not in held:
            continue
        row = rows.get(value.path)
        if row is None:
            row = rows[value.path] = len(trust)
            trust.append(RECORDED)
        column = held.setdefault(name, {})
        if row in column:
            before = column[row]
            column[row] = Several(
                [*before, value.value] if isinstance(before, Several) else [before, value.value]
            )
        else:
            column[row] = value.value
        if value.trust != RECORDED and _ORDER[value.trust] < _ORDER[trust[row]]:
            trust[row] = value.trust
    order = {name: place for place, name in enumerate(dict.fromkeys(loops))}
    for path in rows:
        for name, _ in path:
            order.setdefault(name, len(order))
    ordered = sorted(rows, key=lambda path: [(order[name], index) for name, index in path])
    places = [rows[path] for path in ordered]
    indices: dict[str, list[int | None]] = {name: [None] * len(ordered) for name in order}
    for at, path in enumerate(ordered):
        for name, index in path:
            indices[name][at] = index
    return Columns(
        {name: column for name, column in indices.items() if any(index is not None for index in column)},
        {name: [_cell(column.get(place)) for place in places] for name, column in held.items()},
        [trust[place] for place in places],
    )


def _cell(value: Any) -> Any:
    return list(value) if isinstance(value, Several) else value


def frame(columns: Columns) -> pd.DataFrame:
    """The table in pandas: Int64 loops, names of the type that their values share, text trust."""
    import pandas as pd  # here, as recording does without it and importing it takes longer than florlog

    data: dict[str, Any] = {name: pd.array(column, dtype="Int64") for name, column in columns.loops.items()}
    for name, column in columns.names.items():
        data[name] = held = pd.Series(column, dtype=object)
        try:
            data[name] = held.infer_objects()
        except UnicodeEncodeError:  # half a letter, which pandas' own text cannot hold
            pass
    data["trust"] = pd.array(columns.trust, dtype="string")
    try:
        return pd.DataFrame(data)
    except UnicodeEncodeError:  # the same in a name
        return pd.DataFrame({printable(name): column for name, column in data.items()})
