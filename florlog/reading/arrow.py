"""Values as an Arrow table, and all runs of a store in SQL through DuckDB."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from florlog.program.extras import need
from florlog.reading.columns import TRUST, Column, Columns
from florlog.reading.render import jsonable

if TYPE_CHECKING:
    import pandas as pd

    from florlog.reading.reader import Log


def arrow(columns: Columns, run: str | None = None) -> Any:
    """The table in Arrow.  A column of mixed or structured values is text: their JSON."""
    pa = need("pyarrow", "frame")
    data: dict[str, Any] = {}
    if run is not None:
        data["run"] = _repeated(pa, [0] * len(columns), [run])
    for name, column in columns.loops.items():
        data[_text(name)] = pa.array(column.values, pa.int64(), mask=~column.present)
    for name, column in columns.names.items():
        key = _text(name)
        while key in data or key == "trust":
            key += "_value"
        data[key] = _array(pa, column)
    data["trust"] = _repeated(pa, columns.trust, list(TRUST))
    return pa.table(data)


def _repeated(pa: Any, codes: Any, texts: list[str]) -> Any:
    """A column of few different texts."""
    held = pa.array([_text(text) for text in texts], pa.string())
    return pa.DictionaryArray.from_arrays(pa.array(codes, pa.int32()), held).dictionary_decode()


def _array(pa: Any, column: Column) -> Any:
    if column.values.dtype != object:
        return pa.array(column.values, mask=~column.present)
    values = column.objects()
    kinds = {type(value) for value in values if value is not None}
    if kinds == {int, float}:
        try:
            return pa.array([None if value is None else float(value) for value in values], pa.float64())
        except OverflowError:
            pass
    texts = [
        value if value is None or isinstance(value, str) else json.dumps(jsonable(value)) for value in values
    ]
    return pa.array([text if text is None else _text(text) for text in texts], pa.string())


def _text(text: str) -> str:
    """Text that Arrow can store: half a letter, which Python allows, becomes a question mark."""
    return text.encode(errors="replace").decode()


def sql(log: Log, summaries: Iterable[dict[str, Any]], query: str) -> pd.DataFrame:
    """The answer to a query over the tables ``runs``, ``params`` and ``iterations`` of a store."""
    duckdb, pa = need("duckdb", "frame"), need("pyarrow", "frame")
    views = log.runs
    tables = [arrow(view.columns(), view.id) for view in views]
    params = [
        (view.id, str(key), json.dumps(jsonable(value)))
        for view in views
        for key, value in view.params.items()
    ]
    with duckdb.connect() as connection:
        rows = [
            {
                key: _text(value) if isinstance(value, str) else value
                for key, value in row.items()
                if not isinstance(value, dict)  # those have tables of their own
            }
            for row in summaries
        ]
        connection.register("runs", pa.Table.from_pylist(rows))
        columns = ("run", "name", "value")
        by_column = {name: [_text(row[i]) for row in params] for i, name in enumerate(columns)}
        connection.register("params", pa.table({n: pa.array(c, pa.string()) for n, c in by_column.items()}))
        connection.register("iterations", _joined(pa, tables))
        return connection.sql(query).df()  # type: ignore[no-any-return]


def _joined(pa: Any, tables: list[Any]) -> Any:
    """Tables one below the other; a column whose type differs between runs is text."""
    kinds: dict[str, set[Any]] = {}
    for table in tables:
        for field in table.schema:
            kinds.setdefault(field.name, set()).add(field.type)
    for name, found in kinds.items():
        if len(found) > 1 and not all(pa.types.is_floating(k) or pa.types.is_integer(k) for k in found):
            for at, table in enumerate(tables):
                if name in table.column_names:
                    place = table.column_names.index(name)
                    tables[at] = table.set_column(place, name, table[name].cast(pa.string()))
                    table = tables[at]
    return (
        pa.concat_tables(tables, promote_options="permissive")
        if tables
        else pa.table({"run": pa.array([], pa.string())})
    )
