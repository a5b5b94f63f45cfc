"""The application: a screen of runs, and a screen for one run."""

from __future__ import annotations

import shlex
from typing import ClassVar

from florlog_wal import Store
from rich.text import Text
from textual.app import App, ComposeResult
from textual.binding import Binding
from textual.screen import Screen
from textual.widgets import Footer, OptionList
from textual.widgets.option_list import Option

from ..._reader import Log
from ..._render import printable, size
from ..selection import Selection
from .runscreen import RunScreen


class Browser(App[None]):
    """``florlog inspect`` on a terminal."""

    TITLE = "florlog"
    ENABLE_COMMAND_PALETTE = False
    CSS = """
    #tree { width: 30; border-right: solid $primary; }
    #detail { height: 9; border-top: solid $primary; }
    #curves { height: 1fr; }
    #status { height: 1; background: $primary; color: $text; }
    RecordList, SourceView { height: 1fr; }
    Ask, Prompt, Page { align: center middle; }
    .dialog { width: 95%; max-width: 120; height: 90%; border: solid $accent; background: $surface; padding: 0 1; }
    Prompt .dialog { height: 7; }
    #place { height: 5; }
    """
    BINDINGS: ClassVar = [Binding("q", "quit", "quit"), Binding("ctrl+c", "quit", show=False)]

    def __init__(self, store: Store, run: str | None, selection: Selection) -> None:
        super().__init__()
        self.store, self.first_run, self.selection = store, run, selection
        self.animation_level = "none"  # over ssh every frame costs

    def on_mount(self) -> None:
        """Show the runs, or the one that was asked for."""
        self.push_screen(Runs(self.store, self.selection))
        if self.first_run is not None:
            self.push_screen(RunScreen(self.store, self.first_run, self.selection))

    def copied_command(self, words: list[str]) -> str:
        """Copy the command line that shows the same; it."""
        line = shlex.join(["florlog", "inspect", *words, "--store", str(self.store.path)])
        self.copy_to_clipboard(line)
        return line


class Runs(Screen[None]):
    """The runs of the store, the newest chosen."""

    BINDINGS: ClassVar = [Binding("enter", "choose", "open", show=True)]

    def __init__(self, store: Store, selection: Selection) -> None:
        super().__init__()
        self._store, self._selection = store, selection

    def compose(self) -> ComposeResult:
        """The list."""
        sessions = self._store.sessions()
        options = []
        for view in Log(self._store).runs:
            mine = [s for s in sessions if s.begin.run == view.id]
            begin = mine[0].begin
            count = sum(sum(s.counts.values()) for s in mine)
            nbytes = size(sum(s.nbytes for s in mine))
            label = f"{view.id:<40} {begin.name:<16} {count:>9} records {nbytes:>9}  {begin.script}"
            options.append(Option(Text(printable(label), no_wrap=True), id=None))
        self._runs = [view.id for view in Log(self._store).runs]
        yield OptionList(*options, id="runs")
        yield Footer()

    def on_mount(self) -> None:
        """Choose the newest."""
        runs = self.query_one("#runs", OptionList)
        runs.highlighted = len(self._runs) - 1 if self._runs else None

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        """Open a run."""
        self.app.push_screen(RunScreen(self._store, self._runs[event.option_index], self._selection))
