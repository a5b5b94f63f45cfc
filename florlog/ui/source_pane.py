"""The recorded source, with the values of the chosen iteration, or the last ones, next to each log statement."""

from __future__ import annotations

from typing import Any

from florlog_recovery import RunTree
from florlog_wal import Path, RunLog
from rich.syntax import Syntax
from rich.text import Text

from florlog.inspect.source_view import Recorded, mark, sources_of
from florlog.inspect.statement_values import values_by_statement
from florlog.program.recorded_sources import StatementPlace
from florlog.reading.reader import LoggedValue
from florlog.reading.render import brief, printable
from florlog.ui.line_list import LineList

_MAX_LINE_COLUMNS = 400
_MAX_COLOURED_CHARACTERS = 1_000_000  # characters of a file that is coloured


class SourcePane(LineList):
    """All recorded files, one after another."""

    def __init__(self, log: RunLog, *, id: str | None = None) -> None:  # noqa: A002 - textual's name
        super().__init__(id=id, width=_MAX_LINE_COLUMNS)
        self.sources: list[Recorded] = []
        self._records = log
        self._tree: RunTree | None = None
        self._lines: list[tuple[Recorded, int]] = []  # line 0: the file's head
        self._coloured: dict[str, list[Text]] = {}
        self._found: list[LoggedValue] = []
        self._path: Path = ()
        self._values_by_statement: dict[StatementPlace, dict[str, Any]] = {}

    def show_run(self, tree: RunTree, found: list[LoggedValue]) -> None:
        """Show a run's source; ``found``: what replays found."""
        fresh = self._tree is None
        self.sources, self._tree, self._found = sources_of(self._records, tree), tree, found
        self._lines = [(s, number) for s in self.sources for number in range(len(s.lines) + 1)]
        self.set_count(len(self._lines))
        self.choose(self._path)
        if fresh:
            first = (
                row
                for row, (s, n) in enumerate(self._lines)
                for held in s.statements.get(n, ())
                if held.kind == "log"
            )
            self.move_to(next(first, 0))
            self.scroll_to(y=max(0, self.cursor - 8), animate=False)

    def choose(self, path: Path) -> None:
        """The iteration whose values are shown."""
        self._path = path
        if self._tree is not None:
            self._values_by_statement = values_by_statement(self._records, self._tree, path, self._found)
        self.refresh()

    def place(self) -> tuple[Recorded, int] | None:
        """The file and line at the cursor."""
        return self._lines[self.cursor] if self._lines else None

    def line(self, row: int) -> Text:
        """A line of a file."""
        source, number = self._lines[row]
        if number == 0:
            return Text(f" {printable(source.path)}", "bold", no_wrap=True)
        held = source.statements.get(number)
        text = Text(no_wrap=True)
        text.append(f"{'▸' if held else ' '}{number:>4} ", "bold green" if held else "dim")
        text.append_text(self._code(source)[number - 1])
        if held:
            logged = self._values_by_statement.get((source.path, number)) or {}
            shown = ", ".join(f"{printable(name)} = {brief(value, 30)}" for name, value in logged.items())
            note = f"  ◂ {shown or mark(held)}"
            if not self.scroll_offset.x:  # next to the line, however narrow the screen is
                text.truncate(max(30, self.size.width - len(note)), overflow="ellipsis")
            text.append(note, "bold green" if shown else "dim green")
        return text

    def _code(self, source: Recorded) -> list[Text]:
        """A file's lines, coloured as Python."""
        if source.path not in self._coloured:
            lines = source.lines
            text = "\n".join(lines)
            if len(text) < _MAX_COLOURED_CHARACTERS:
                coloured = (
                    Syntax("", "python", theme="ansi_dark").highlight(text).split("\n", allow_blank=True)
                )
                if [line.plain for line in coloured][: len(lines)] == lines:
                    self._coloured[source.path] = list(coloured)
            self._coloured.setdefault(source.path, [Text(line) for line in lines])
        return self._coloured[source.path]
