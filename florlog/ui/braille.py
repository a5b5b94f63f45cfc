"""Curves as text: each character is a cell of 2 x 4 braille dots."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy import typing as npt
from rich.text import Text

_MARGIN = 10  # columns for the labels of the vertical axis
_DOT = np.array([[1, 2, 4, 64], [8, 16, 32, 128]], dtype=np.uint8)


@dataclass(frozen=True, slots=True)
class Dots:
    """Points in order of ``x``, joined by lines; ``kind`` numbers each one's colour in ``palette``."""

    x: npt.NDArray[np.float64]
    y: npt.NDArray[np.float64]
    palette: list[str]
    kind: npt.NDArray[Any]


def drawn(curves: list[Dots], width: int, height: int) -> Text | None:
    """Curves as ``height`` lines of ``width`` characters, the later above the earlier; None without points."""
    columns = width - _MARGIN
    if columns < 4 or height < 2 or not any(len(curve.x) for curve in curves):
        return None
    xs, ys = (np.concatenate([getattr(curve, axis) for curve in curves]) for axis in "xy")
    left, right, low, high = xs.min(), xs.max(), ys.min(), ys.max()
    cells = np.zeros((height, columns), dtype=np.uint8)
    colours = np.full((height, columns), "", dtype=object)
    for curve in curves:
        if len(curve.x):
            at = np.rint((curve.x - left) / ((right - left) or 1) * (2 * columns - 1)).astype(np.int64)
            down = np.rint((high - curve.y) / ((high - low) or 1) * (4 * height - 1)).astype(np.int64)
            _join(cells, colours, at, down, curve)
    text = Text(no_wrap=True)
    for row in range(height):
        value = high - (high - low) * row / (height - 1)
        text.append(f"{value:>9.4g} " if row in (0, height // 2, height - 1) else " " * _MARGIN, "dim")
        for column in range(columns):
            bits = int(cells[row, column])
            text.append(chr(0x2800 + bits) if bits else " ", colours[row, column])
        text.append("\n")
    return text


def _join(
    cells: npt.NDArray[np.uint8],
    colours: Any,
    at: npt.NDArray[np.int64],
    down: npt.NDArray[np.int64],
    curve: Dots,
) -> None:
    """Draw one curve: in each column of dots the span of its points, and the way from the point before."""
    starts = np.flatnonzero(np.diff(at, prepend=-1))
    stops = np.append(starts[1:], len(at))
    for start, stop in zip(starts.tolist(), stops.tolist(), strict=True):
        column = int(at[start])
        first, last = int(down[start:stop].min()), int(down[start:stop].max())
        if start and at[start] - at[start - 1] == 1:  # down or up to where the neighbour ends
            before = int(down[start - 1])
            first, last = min(first, before + (before < first)), max(last, before - (before > last))
        elif start:
            _line(cells, colours, at, down, start, curve)
        rows = np.arange(first, last + 1)
        where = (rows // 4, np.full_like(rows, column // 2))
        np.bitwise_or.at(cells, where, _DOT[column % 2, rows % 4])
        colours[where] = curve.palette[int(curve.kind[stop - 1])]


def _line(
    cells: npt.NDArray[np.uint8],
    colours: Any,
    at: npt.NDArray[np.int64],
    down: npt.NDArray[np.int64],
    end: int,
    curve: Dots,
) -> None:
    """A straight line to a point from the one before, some columns to its left."""
    steps = int(max(at[end] - at[end - 1], abs(down[end] - down[end - 1])))
    columns = np.rint(np.linspace(at[end - 1], at[end], steps + 1)).astype(np.int64)
    rows = np.rint(np.linspace(down[end - 1], down[end], steps + 1)).astype(np.int64)
    np.bitwise_or.at(cells, (rows // 4, columns // 2), _DOT[columns % 2, rows % 4])
    colours[rows // 4, columns // 2] = curve.palette[int(curve.kind[end])]
