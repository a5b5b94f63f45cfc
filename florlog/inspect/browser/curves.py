"""Curves of logged and hindsight values, drawn with braille dots; a second run beside the first."""

from __future__ import annotations

import math

from rich.text import Text
from textual.widgets import Static

from ..._reader import Value
from ..._render import printable
from ..forms import TRUST_COLOURS

Series = list[tuple[float, float, str]]  # position, value, colour


def series(values: list[Value], name: str, colour: str | None = None) -> Series:
    """The finite numbers logged as a name, in order of iteration; coloured by trust, or all in one colour."""
    found = [v for v in values if v.name == name and isinstance(v.value, int | float)]
    found.sort(key=lambda v: [index for _, index in v.path])
    return [
        (float(at), float(v.value), colour or TRUST_COLOURS.get(v.trust, "white"))
        for at, v in enumerate(found)
        if not isinstance(v.value, int) or v.value.bit_length() < 1000
        if math.isfinite(v.value)
    ]


def drawn(curves: list[Series], width: int, height: int) -> Text:
    """Curves as text of ``width`` x ``height`` characters."""
    points = [point for curve in curves for point in curve]
    if not points or width < 12 or height < 2:
        return Text("no numbers to draw")
    left, right = min(p[0] for p in points), max(p[0] for p in points)
    low, high = min(p[1] for p in points), max(p[1] for p in points)
    columns = width - 10
    dots: dict[tuple[int, int], int] = {}
    colours: dict[tuple[int, int], str] = {}
    for x, y, colour in points:
        column = round((x - left) / ((right - left) or 1) * (2 * columns - 1))
        row = round((high - y) / ((high - low) or 1) * (4 * height - 1))
        cell = (row // 4, column // 2)
        dots[cell] = dots.get(cell, 0) | _DOT[column % 2][row % 4]
        colours[cell] = colour
    text = Text(no_wrap=True)
    for row in range(height):
        label = f"{high:.4g}" if row == 0 else f"{low:.4g}" if row == height - 1 else ""
        text.append(f"{label:>9} ", "dim")
        for column in range(columns):
            bits = dots.get((row, column), 0)
            text.append(chr(0x2800 + bits) if bits else " ", colours.get((row, column), ""))
        text.append("\n")
    return text


_DOT = ((1, 2, 4, 64), (8, 16, 32, 128))


class Curves(Static):
    """The curve of one name, with the trust of its values told by colour."""

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002 - textual's name
        super().__init__("", id=id, markup=False)
        self.values: list[Value] = []
        self.other: list[Value] = []
        self.notes: list[str] = []  # differences of parameters
        self.name_index = 0

    def names(self) -> list[str]:
        """The names that have numbers."""
        return list(dict.fromkeys(v.name for v in self.values if isinstance(v.value, int | float)))

    def next_name(self, by: int = 1) -> None:
        """Draw the next name."""
        self.name_index += by
        self.draw()

    def on_resize(self) -> None:
        """Draw in the new size."""
        self.draw()

    def draw(self) -> None:
        """Draw the curve again."""
        names = self.names()
        if not names:
            self.update("no numbers were logged")
            return
        name = names[self.name_index % len(names)]
        mine = series(self.values, name)
        other = series(self.other, name, "bright_black") if self.other else []
        text = Text(f"{printable(name)}  ({len(mine)} values; n/N another name, v another run)  ", "bold")
        for trust in dict.fromkeys(v.trust for v in self.values if v.name == name):
            text.append(f"{trust} ", TRUST_COLOURS.get(trust, ""))
        if self.other:
            text.append("other run", "bright_black")
        text.append("\n")
        height = max(2, self.size.height - 2 - len(self.notes))
        text.append_text(drawn([other, mine], self.size.width, height))
        for note in self.notes:
            text.append(note + "\n", "yellow")
        self.update(text)
