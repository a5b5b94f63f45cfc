"""Curves of logged and hindsight values, coloured by trust; a second run next to the first."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from florlog_recovery import RunTree
from florlog_wal import RunLog, Statement, Store
from rich.style import Style
from rich.text import Text
from textual.binding import Binding
from textual.widgets import Static

from florlog.inspect.record_forms import TRUST_COLOURS, path_text
from florlog.program.stores import answers_of, log_of
from florlog.reading.columns import TRUST, Columns
from florlog.reading.reader import Log, RunView
from florlog.reading.render import brief, printable
from florlog.ui.braille import Dots, drawn

_OTHER_RUN_COLOUR = "bright_black"


@dataclass(slots=True)
class OtherRun:
    """The run that this one is compared with."""

    view: RunView
    params: list[tuple[str, str, str]]  # name, here, there: those that differ
    columns: dict[str, Columns] = field(default_factory=dict)


class Curves(Static, can_focus=True):
    """The curve of one name.  What it shows is read when it is shown, one name at a time."""

    BINDINGS = [  # noqa: RUF012 - textual's way
        Binding("n,right", "turn(1)", show=False),
        Binding("N,left", "turn(-1)", show=False),
    ]

    def __init__(self, store: Store, run: str, *, id: str | None = None) -> None:  # noqa: A002
        super().__init__("", id=id, markup=False)
        self._store, self._run = store, run
        self._tree: RunTree | None = None
        self._names: list[str] = []
        self._columns: dict[str, Columns] = {}
        self._at = 0
        self._other: OtherRun | None = None
        self._others = 0

    def show_run(self, tree: RunTree) -> None:
        """A run has been analysed, or has grown."""
        self._tree = tree
        self._names = names_of(log_of(self._store, self._run), tree)
        self._columns.clear()
        if self.display and self.size.height:
            self.draw()

    def on_show(self) -> None:
        """Draw when it comes into view."""
        self.draw()

    def on_resize(self) -> None:
        """Draw in the new size."""
        self.draw()

    def action_turn(self, by: int) -> None:
        """Another name."""
        self.action_pick(self._at + by)

    def action_pick(self, number: int) -> None:
        """The name that was clicked."""
        if self._names:
            self._at = number % len(self._names)
            self.draw()

    def _view(self) -> RunView:
        return Log(self._store).run(self._run)

    def compare(self) -> None:
        """Compare with the next run; after the last, with none."""
        others = [view for view in Log(self._store).runs if view.id != self._run]
        self._others = (self._others + 1) % (len(others) + 1)
        self._other = None
        if self._others:
            view = others[-self._others]
            mine, theirs = self._view().params, view.params
            self._other = OtherRun(
                view,
                [
                    (printable(str(key)[:30]), brief(mine.get(key), 20), brief(theirs.get(key), 20))
                    for key in {**mine, **theirs}
                    if brief(mine.get(key), 200) != brief(theirs.get(key), 200)
                ],
            )
        self.draw()

    def draw(self) -> None:
        """Draw again, after reading what is not there yet."""
        if self._tree is None:
            self.update("reading ...")
            return
        if not self._names:
            self.update("nothing was logged")
            return
        name = self._names[self._at % len(self._names)]
        held = self._other
        if name in self._columns and (held is None or name in held.columns):
            self.update(self._drawing(name, self._columns[name], held))
            return
        self.update(f"reading {printable(name)} ...")

        def work() -> None:
            mine = self._columns.get(name) or self._view().columns(name)
            theirs = held.view.columns(name) if held is not None and name not in held.columns else None
            self.app.call_from_thread(self._read, name, mine, held, theirs)

        self.run_worker(work, thread=True, exclusive=True, group="curves")

    def _read(self, name: str, mine: Columns, other: OtherRun | None, theirs: Columns | None) -> None:
        self._columns[name] = mine
        if other is not None and theirs is not None:
            other.columns[name] = theirs
        self.draw()

    # -- the drawing -------------------------------------------------------------------------------

    def _drawing(self, name: str, mine: Columns, other: OtherRun | None) -> Text:
        text = Text(no_wrap=True, overflow="ellipsis")
        for number, known in enumerate(self._names):
            style = "bold reverse" if known == name else "dim"
            text.append(
                f" {printable(known[:24])} ", Style.parse(style) + Style(meta={"@click": f"pick({number})"})
            )
            text.append(" ")
        text.append("\n")
        curves = [_dots(mine, name)]
        self._legend(text, mine, name, curves[0], other)
        foot = self._foot(other)
        if other is not None:
            curves.insert(0, _dots(other.columns[name], name, _OTHER_RUN_COLOUR))
        width, height = self.size.width, self.size.height - 4 - len(foot)
        body = drawn(curves, width, height)
        if body is None:
            text.append("\n  no numbers to draw", "dim")
            return text
        text.append_text(body)
        text.append(_axis(mine, width), "dim")
        for line, style in foot:
            text.append("\n" + line, style)
        return text

    def _legend(self, text: Text, mine: Columns, name: str, dots: Dots, other: OtherRun | None) -> None:
        text.append(f" {len(dots.x)} numbers  ")
        codes = np.unique(mine.trust[mine.names[name].present]).tolist() if name in mine.names else []
        for code in reversed(codes):
            text.append(f"■ {TRUST[code]} ", TRUST_COLOURS[TRUST[code]])
        if other is not None:
            room = max(8, self.size.width - 3 - text.cell_len + len(text.plain.rpartition("\n")[0]))
            text.append(f"■ {printable(other.view.id)[:room]}", _OTHER_RUN_COLOUR)
        text.append("\n")

    def _foot(self, other: OtherRun | None) -> list[tuple[str, str]]:
        if other is None:
            return []
        column = max(8, min(24, (self.size.width - 1) // 3))
        rows = [("parameter", "here", "there"), *other.params[:6]]
        texts = [" " + "".join(f"{cell[: column - 1]:<{column}}" for cell in row).rstrip() for row in rows]
        lines = [(line, "yellow" if number else "bold") for number, line in enumerate(texts)]
        return lines if other.params else [(" the parameters are equal", "dim")]


def names_of(log: RunLog, tree: RunTree) -> list[str]:
    """The names that a run and its replays logged, in that order."""
    tables = [table.values() for table in tree.statements.values()]
    for answers, session in answers_of(log):
        scan = answers.scan(session.lsn, session.last_lsn + 1, types=(Statement,), session=session.lsn)
        tables.append([entry.record for entry in scan if isinstance(entry.record, Statement)])  # type: ignore[arg-type]
    return list(dict.fromkeys(name for table in tables for s in table if s.kind == "log" for name in s.names))


def _dots(columns: Columns, name: str, colour: str | None = None) -> Dots:
    """A name's finite numbers in order of iteration."""
    if name not in columns.names:
        return Dots(np.empty(0), np.empty(0), [], np.empty(0, dtype=np.int8))
    values = columns.names[name].numbers()
    rows = np.flatnonzero(~np.isnan(values))
    palette = [colour or TRUST_COLOURS[trust] for trust in TRUST]
    return Dots(np.arange(len(rows), dtype=np.float64), values[rows], palette, columns.trust[rows])


def _axis(columns: Columns, width: int) -> str:
    """The first and the last iteration, below the drawing."""
    if not len(columns):
        return ""

    def label(row: int) -> str:
        around: list[Any] = [(n, int(c.values[row])) for n, c in columns.loops.items() if c.present[row]]
        return path_text(tuple(around))

    left, right = label(0), label(len(columns) - 1)
    return f"{'':10}{left}{right:>{max(1, width - 10 - len(left))}}"
