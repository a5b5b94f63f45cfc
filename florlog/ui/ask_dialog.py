"""The hindsight dialog: an expression, a line of the source, the iterations; the answer comes from a replay."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from florlog_recovery import RunTree
from florlog_wal import RunLog
from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Vertical, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Input, Label, Static

from florlog.errors import FlorlogError
from florlog.inspect.asking import log_statement, place_at, replay
from florlog.inspect.record_forms import TRUST_COLOURS, path_text
from florlog.inspect.source_view import Recorded
from florlog.program.units import duration_text
from florlog.programs.permission import Trust
from florlog.reading.render import brief, printable


class Ask(ModalScreen[None]):
    """The user may leave the dialog while its replay runs: ``answered`` is called whenever the values come."""

    BINDINGS = [  # noqa: RUF012 - textual's way
        Binding("escape", "leave", "back"),
        # At once, before the next key is read: one that was typed meanwhile belongs to the next field.
        Binding("tab", "app.focus_next", show=False, priority=True),
        Binding("shift+tab", "app.focus_previous", show=False, priority=True),
        Binding("ctrl+up,shift+up", "shift(-1)", "place up", priority=True),
        Binding("ctrl+down,shift+down", "shift(1)", "place down", priority=True),
    ]

    def __init__(
        self, log: RunLog, tree: RunTree, sources: list[Recorded], at: tuple[Recorded, int], where: str,
        trust: Trust, answered: Callable[[], None],
    ):  # fmt: skip
        super().__init__()
        self._trust = trust
        self._run_log, self._tree, self._sources = log, tree, sources
        self._source, self._line = at
        self._where = where
        self._answered = answered  # called when values are in the store
        self._busy = False

    def compose(self) -> ComposeResult:
        """The dialog."""
        with Vertical(classes="dialog") as dialog:
            dialog.border_title = "Hindsight: what was ... ?"
            dialog.border_subtitle = (
                "enter asks   tab next field   ctrl+\u2191\u2193 moves the place   escape leaves"
            )
            yield Static("", id="place", markup=False)
            yield Label("an expression, or name=expression", classes="hint")
            yield Input(id="expression", compact=True)
            yield Label("in which iterations: 7, epoch=7, epoch >= 5; empty: all", classes="hint")
            yield Input(self._where, id="where", compact=True)
            with VerticalScroll(id="answer-box"):
                yield Static("", id="answer", markup=False)

    def on_mount(self) -> None:
        """Show the place."""
        self._show_path_text()

    def action_shift(self, by: int) -> None:
        """Another place."""
        self._line = max(1, min(self._line + by, len(self._source.lines)))
        self._show_path_text()

    def _show_path_text(self) -> None:
        text = Text(no_wrap=True)
        for number in range(max(1, self._line - 1), min(len(self._source.lines), self._line + 1) + 1):
            here = number == self._line
            text.append(f"{number:>5} {self._source.lines[number - 1]}\n", "bold" if here else "dim")
            if here:
                text.append("    + your expression is evaluated here\n", "green")
        self.query_one("#place", Static).update(text)

    def on_input_submitted(self) -> None:
        """Enter, in either field."""
        typed = self.query_one("#expression", Input).value
        if self._busy:
            return
        try:
            log_statement(typed)
            position = place_at(self._source.text, self._line)
        except (FlorlogError, SyntaxError) as error:
            self._say(str(error), "red")
            return
        self._busy = True
        self._say("replaying the iterations that are needed ...", "yellow")
        where = self.query_one("#where", Input).value
        app = self.app

        def work() -> None:
            try:
                found = replay(
                    self._run_log,
                    self._tree,
                    self._sources,
                    self._source,
                    position,
                    typed,
                    where,
                    self._trust,
                )
            except FlorlogError as error:
                app.call_from_thread(self._failed, str(error))
            else:
                app.call_from_thread(self._show, found)

        app.run_worker(work, thread=True)  # the application's: it outlives this dialog

    def _failed(self, message: str) -> None:
        self._busy = False
        if self.is_attached:
            self._say(message, "red")
        else:
            self.app.notify(printable(message), severity="error", markup=False)

    def _say(self, text: str, style: str) -> None:
        self.query_one("#answer", Static).update(Text(printable(text), style))

    def _show(self, found: dict[str, Any]) -> None:
        self._busy = False
        self._answered()
        if not self.is_attached:
            return
        plan = found["plan"]
        text = Text(
            f"{len(found['values'])} values from {plan['iterations_redone']} of {plan['iterations_total']} "
            f"iterations (predicted {duration_text(plan['predicted_seconds'])}, "
            f"a full rerun {duration_text(plan['full_rerun_seconds'])}); stored next to the run\n"
        )
        for value in found["values"][:2000]:
            path = tuple(value["path"].items())
            text.append(
                f"{path_text(path):<24} {printable(value['name'])} = {brief(value['value'], 40):<24} "
            )
            text.append(f"{value['trust']}\n", TRUST_COLOURS.get(value["trust"], ""))
        self.query_one("#answer", Static).update(text)

    def action_leave(self) -> None:
        """Back to the run."""
        self.dismiss()
