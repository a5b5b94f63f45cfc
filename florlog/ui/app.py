"""The application: a screen of runs, and a screen for one run."""

from __future__ import annotations

import shlex
from typing import ClassVar

from florlog_wal import Store
from textual.app import App
from textual.binding import Binding

from florlog.inspect.selection import RecordSelection
from florlog.programs.permission import Trust
from florlog.ui.run_list import Runs
from florlog.ui.run_screen import RunScreen


class Browser(App[None]):
    """``florlog inspect`` on a terminal."""

    TITLE = "florlog"
    ENABLE_COMMAND_PALETTE = False
    HORIZONTAL_BREAKPOINTS = [  # noqa: RUF012 - textual's way
        (0, "-narrow"),
        (100, "-wide"),
    ]
    CSS = """
    Screen { scrollbar-size: 1 1; }
    #status { height: 1; background: $primary-darken-2; color: $text; text-style: bold; }
    #head { height: 1; color: $text-muted; }
    IterationTree { width: 27; border-right: solid $surface-lighten-2; scrollbar-size: 0 1; padding: 0; }
    .-wide IterationTree { width: 38; }
    RecordList, SourcePane, RunList, Curves { height: 1fr; }
    #detail { height: 38%; border-top: solid $surface-lighten-2; scrollbar-size: 0 1; padding: 0 1; }
    #detail:focus { border-top: solid $primary; }
    IterationTree:focus { border-right: solid $primary; }
    Ask, Prompt, TextPage { align: center middle; }
    .dialog { width: 96%; max-width: 120; border: round $accent; background: $surface; padding: 0 1; }
    Prompt .dialog { height: auto; }
    Ask .dialog, TextPage .dialog { height: 92%; }
    .hint { color: $text-muted; }
    #place { height: 4; margin: 0 0 1 0; }
    #answer-box { height: 1fr; margin: 1 0 0 0; scrollbar-size: 0 1; }
    """
    BINDINGS: ClassVar = [
        Binding("q", "quit", "quit"),
        Binding("ctrl+c", "quit", show=False, priority=True),
    ]

    def __init__(
        self, store: Store, run: str | None, selection: RecordSelection, trust: Trust | None = None
    ) -> None:
        super().__init__()
        self.trust = trust or Trust()
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
