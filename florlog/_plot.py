"""Curves with matplotlib, and the small drawing that a notebook shows of a run."""

from __future__ import annotations

import html
import math
from typing import TYPE_CHECKING, Any

from ._columns import RECORDED, Columns
from ._extras import need
from .errors import FlorlogError

if TYPE_CHECKING:
    from ._reader import RunView


def plot(columns: Columns, names: tuple[str, ...], x: str | None, axes: Any) -> Any:
    """Draw names over ``x``; see `florlog.RunView.plot`."""
    pyplot = need("matplotlib.pyplot", "plot")
    known = {**columns.names, **columns.loops}
    for name in (*names, *([x] if x else [])):
        if name not in known or not any(value is not None for value in known[name]):
            raise FlorlogError(f"nothing was logged as {name!r}; there are: {', '.join(known)}")
    if axes is None:
        axes = pyplot.subplots()[1]
    for name in names:
        groups: dict[Any, tuple[list[float], list[float], list[str]]] = {}
        for row, value in enumerate(columns.names[name]):
            at = row if x is None else known[x][row]
            if not isinstance(value, int | float) or at is None:
                continue
            outer = (
                tuple(c[row] for loop, c in columns.loops.items() if loop != x) if x in columns.loops else ()
            )
            # One curve for each iteration around the loop that x is of: what lies inside would overlay itself.
            group = groups.setdefault(outer, ([], [], []))
            group[0].append(at)
            group[1].append(value)
            group[2].append(columns.trust[row])
        for number, (xs, ys, trust) in enumerate(groups.values()):
            hindsight = any(label != RECORDED for label in trust)
            label = (f"{name} ({min(trust)})" if hindsight else name) if number == 0 else None
            axes.plot(xs, ys, "o--" if hindsight else "-", markersize=3, linewidth=1, label=label)
    axes.set_xlabel(x or "iteration")
    axes.legend()
    return axes


def svg(columns: Columns, width: int = 260, height: int = 60) -> str:
    """The numeric names as small curves in SVG."""
    parts = []
    for name, values in list(columns.names.items())[:6]:
        numbers = [
            float(v) for v in values if isinstance(v, float | int) and abs(v) < 1e300 and math.isfinite(v)
        ]
        if len(numbers) < 2:
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
