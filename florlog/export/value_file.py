"""The table of a run's values as a file: CSV, Parquet or JSON lines."""

from __future__ import annotations

import csv
import json
from pathlib import Path

from florlog.errors import FlorlogError
from florlog.program.extras import need
from florlog.reading.arrow import arrow
from florlog.reading.columns import Columns
from florlog.reading.render import jsonable

FORMATS = ("csv", "parquet", "jsonl")


def write_values(columns: Columns, path: Path, fmt: str | None) -> int:
    """Write the table; the number of rows.  The format is ``fmt``, else the file's ending.

    Raises `FlorlogError` for an ending that names no format.
    """
    kind = fmt or path.suffix.removeprefix(".")
    if kind not in FORMATS:
        raise FlorlogError(f"cannot tell the format of {path}: end its name in .csv, .parquet or .jsonl")
    if kind == "parquet":
        need("pyarrow.parquet", "frame").write_table(arrow(columns), path)
        return len(columns)
    heads = [*columns.loops, *columns.names, "trust"]
    held = [column.objects() for column in (*columns.loops.values(), *columns.names.values())]
    rows = zip(*held, columns.labels(), strict=True)
    with path.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
        if kind == "jsonl":
            for row in rows:
                cells = {h: jsonable(v) for h, v in zip(heads, row, strict=True) if v is not None}
                file.write(json.dumps(cells) + "\n")
        else:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(heads)
            for row in rows:
                writer.writerow(["" if v is None else _cell(v) for v in row])
    return len(columns)


def _cell(value: object) -> object:
    if isinstance(value, float):
        return repr(value)  # every digit: what is read back is the same number
    held = jsonable(value)
    return held if isinstance(held, int | str) else json.dumps(held)
