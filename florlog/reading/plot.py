"""Curves with matplotlib, and the small drawing that a notebook shows of a run."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy import typing as npt

from florlog.errors import FlorlogError
from florlog.program.extras import need
from florlog.reading.columns import RECORDED, TRUST, Columns
from florlog.reading.render import printable

if TYPE_CHECKING:
    from florlog.reading.reader import RunView

RowNumbers = npt.NDArray[np.int64]


def plot(columns: Columns, names: tuple[str, ...], x: str | None, axes: Any) -> Any:
    """Draw names over ``x``; see `florlog.RunView.plot`."""
    pyplot = need("matplotlib.pyplot", "plot")
    known = {**columns.names, **columns.loops}
    for name in (*names, *([x] if x else [])):
        if name not in known or not known[name].present.any():
            raise FlorlogError(f"nothing was logged as {name!r}; there are: {', '.join(known)}")
    if axes is None:
        axes = pyplot.subplots()[1]
    at = np.arange(len(columns)) if x is None else known[x].numbers()
    # One curve for each iteration around the loop that x is of: what lies inside would overlay itself.
    around = [c.values for loop, c in columns.loops.items() if loop != x] if x in columns.loops else []
    for name in names:
        values = columns.names[name].numbers()
        drawn = np.flatnonzero(~np.isnan(values) & ~np.isnan(at))
        for number, rows in enumerate(_groups(drawn, around)):
            least = TRUST[columns.trust[rows].min()]
            shown = printable(name).replace("$", r"\$")  # which would begin a formula
            label = (shown if least == RECORDED else f"{shown} ({least})") if number == 0 else None
            style = "-" if least == RECORDED else "o--"
            axes.plot(at[rows], values[rows], style, markersize=3, linewidth=1, label=label)
    axes.set_xlabel(x or "iteration")
    axes.legend()
    return axes


def _groups(rows: RowNumbers, around: list[RowNumbers]) -> list[RowNumbers]:
    """Rows that are equal in every column of ``around``, together."""
    if not around or not len(rows):
        return [rows] if len(rows) else []
    _, group = np.unique(np.stack([column[rows] for column in around]), axis=1, return_inverse=True)
    order = np.argsort(group, kind="stable")
    return np.split(rows[order], np.flatnonzero(np.diff(group[order])) + 1)


def svg(columns: Columns, width: int = 260, height: int = 60) -> str:
    """The numeric names as small curves in SVG."""
    parts: list[str] = []
    for name, column in columns.names.items():
        found = column.numbers()
        numbers = found[~np.isnan(found)].tolist()
        if len(numbers) < 2 or len(parts) == 6:
            continue
        step = -(-len(numbers) // 500)
        numbers = numbers[::step]
        low, high = min(numbers), max(numbers)
        points = " ".join(
            f"{i * width / (len(numbers) - 1 or 1):.1f},{height - (v - low) / ((high - low) or 1) * height:.1f}"
            for i, v in enumerate(numbers)
        )
        parts.append(
            f'<figure style="display:inline-block;margin:4px"><svg width="{width}" height="{height}">'
            f'<polyline points="{points}" fill="none" stroke="#3277a8"/></svg>'
            f"<figcaption>{html.escape(name)}: {low:.4g} to {high:.4g}</figcaption></figure>"
        )
    return "".join(parts)


def run_html(view: RunView) -> str:
    """A run in a notebook: its summary and its curves."""
    facts = {**view.summary(), **{f"params.{key}": value for key, value in view.params.items()}}
    rows = "".join(
        f"<tr><th>{html.escape(str(key)[:80])}</th><td>{html.escape(str(value)[:200])}</td></tr>"
        for key, value in facts.items()
    )
    return f"<table>{rows}</table>{svg(view.columns())}"
