"""Tables in plain text.

Not pandas': a command prints a few dozen lines, and importing pandas takes longer than all else that florlog does
before it prints them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from florlog.reading.render import jsonable, printable

_MAX_CELL_CHARACTERS = 60  # characters of a value


def table(rows: Sequence[Mapping[str, Any]], most: int) -> str:
    """Lines of right-aligned cells under the rows' keys; of more than ``most`` rows the middle ones are left out."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    half = most // 2
    shown = rows if len(rows) <= most else [*rows[:half], dict.fromkeys(names, "..."), *rows[-half:]]
    lines = [[printable(name) for name in names]]
    lines += [[_cell(row.get(name, "")) for name in names] for row in shown]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in lines
    )


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.7g}"
    text = printable(value) if isinstance(value, str) else json.dumps(jsonable(value))
    return text if len(text) <= _MAX_CELL_CHARACTERS else f"{text[: _MAX_CELL_CHARACTERS - 3]}..."
