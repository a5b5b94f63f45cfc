"""The first screen: the runs of the store, the newest chosen."""

from __future__ import annotations

from pathlib import PurePath
from typing import ClassVar

from florlog_wal import Store
from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding
from textual.screen import Screen
from textual.widgets import Footer, Static

from florlog.inspect.run_facts import RunFacts, facts_of
from florlog.inspect.selection import RecordSelection
from florlog.program.stores import listed_runs, log_of
from florlog.program.units import moment, size_text
from florlog.reading.render import printable
from florlog.ui.line_list import LineList
from florlog.ui.run_screen import RunScreen

_COLOURS = {"complete": "green", "running": "cyan", "crashed": "yellow", "failed": "red"}


class RunList(LineList):
    """A line a run."""

    def __init__(self, store: Store) -> None:
        super().__init__(id="runs")
        self.runs: list[RunFacts] = []
        self._store = store

    def read(self) -> None:
        """Read the store again."""
        fresh = not self.runs
        self.runs = [facts_of(log_of(self._store, listed.run)) for listed in listed_runs(self._store)]
        self.set_count(len(self.runs))
        if fresh:
            self.move_to(self.count - 1)

    def line(self, row: int) -> Text:
        """A run."""
        run = self.runs[row]
        began = moment(run.begin.started)
        started = began.strftime("%Y-%m-%d %H:%M") if began else "?"
        text = Text(f" {printable(run.run)[:32]:<32} ", no_wrap=True)
        text.append(f"{run.status:<9}", _COLOURS.get(run.status, ""))
        text.append(f"{started}  ", "dim")
        text.append(f"{run.commits:>8} {size_text(run.nbytes):>8}  ")
        text.append(printable(PurePath(run.begin.script).name), "dim")
        if run.forced:
            text.append("  resumed by force", "yellow")
        return text


class Runs(Screen[None]):
    """All runs; Enter or a second click opens one."""

    HEAD = f" {'run':<32} {'status':<9}{'started':<16}  {'commits':>8} {'log':>8}  script"
    BINDINGS: ClassVar = [Binding("enter", "open", "open")]

    def __init__(self, store: Store, selection: RecordSelection) -> None:
        super().__init__()
        self._store, self._selection = store, selection

    def compose(self) -> ComposeResult:
        """Head, list, keys."""
        yield Static(printable(f" florlog   {self._store.path}"), id="status", markup=False)
        yield Static(self.HEAD, id="head", markup=False)
        yield RunList(self._store)
        yield Footer(compact=True)

    def on_mount(self) -> None:
        """Choose the newest."""
        self.query_one(RunList).focus()

    def on_screen_resume(self) -> None:
        """Runs may have come, or ended."""
        self.query_one(RunList).read()

    def on_line_list_chosen(self, event: LineList.Chosen) -> None:
        """A second click."""
        self.action_open()

    def action_open(self) -> None:
        """Open the run at the cursor."""
        runs = self.query_one(RunList)
        if runs.count:
            self.app.push_screen(RunScreen(self._store, runs.runs[runs.cursor].run, self._selection))
