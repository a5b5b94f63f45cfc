"""The recorded source; beside each log statement the values of the chosen iteration, or the last ones."""

from __future__ import annotations

from florlog_recovery import RunTree
from florlog_wal import Path, Store
from rich.text import Text

from ..._reader import Value
from ..._render import brief, printable
from ..sources import Recorded, mark, sources_of
from .lines import Lines


class SourceView(Lines):
    """All recorded files, one after another."""

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002 - textual's name
        super().__init__(id=id)
        self.sources: list[Recorded] = []
        self._lines: list[tuple[Recorded, int]] = []  # line 0: the file's head
        self._values: list[Value] = []
        self._path: Path = ()

    def show_run(self, store: Store, tree: RunTree, values: list[Value]) -> None:
        """Show a run's source."""
        self.sources, self._values = sources_of(store, tree), values
        self._lines = [(s, number) for s in self.sources for number in range(len(s.lines) + 1)]
        self.set_count(len(self._lines))
        first = next((row for row, (s, n) in enumerate(self._lines) if s.statements.get(n)), 0)
        self.move_to(max(0, first))

    def choose(self, path: Path) -> None:
        """The iteration whose values are shown."""
        self._path = path
        self.refresh()

    def place(self) -> tuple[Recorded, int] | None:
        """The file and line at the cursor."""
        return self._lines[self.cursor] if self._lines else None

    def line(self, row: int) -> Text:
        """A line of a file."""
        source, number = self._lines[row]
        if number == 0:
            return Text(printable(source.path), "bold reverse", no_wrap=True)
        held = source.statements.get(number)
        text = Text(f"{'>' if held else ' '}{number:>4} ", "green" if held else "dim", no_wrap=True)
        text.append(source.lines[number - 1])
        if held:
            logged = self._logged(source.path, number)
            text.append(f"   <- {logged or mark(held)}", "green")
        return text

    def _logged(self, file: str, number: int) -> str:
        shown: dict[str, str] = {}
        for value in self._values:
            inside = value.path[: len(self._path)] == self._path
            if inside and value.statement.file == file and value.statement.line == number:
                shown[value.name] = f"{printable(value.name)} = {brief(value.value, 30)}"
        return ", ".join(shown.values())
