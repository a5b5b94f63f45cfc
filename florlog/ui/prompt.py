"""Small dialogs: one line to type, and a page to read."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Vertical, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Input, Label, Static


class Prompt(ModalScreen[str | None]):
    """Asks for a line of text; None when left by Escape."""

    BINDINGS = [Binding("escape", "dismiss(None)")]  # noqa: RUF012 - textual's way

    def __init__(self, title: str, hint: str, value: str = "") -> None:
        super().__init__()
        self._title, self._hint, self._value = title, hint, value

    def compose(self) -> ComposeResult:
        """The dialog."""
        with Vertical(classes="dialog") as dialog:
            dialog.border_title = self._title
            dialog.border_subtitle = "enter  does it    escape  leaves"
            yield Label(self._hint, classes="hint", markup=False)
            yield Input(self._value, id="prompt", compact=True)

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Enter."""
        self.dismiss(event.value)


class TextPage(ModalScreen[None]):
    """A text to read; any of Escape, q, Enter and ? leaves it."""

    BINDINGS = [Binding("escape,q,enter,question_mark", "dismiss(None)")]  # noqa: RUF012

    def __init__(self, title: str, text: str) -> None:
        super().__init__()
        self._title, self._text = title, text

    def compose(self) -> ComposeResult:
        """The page."""
        with VerticalScroll(classes="dialog") as dialog:
            dialog.border_title = self._title
            dialog.border_subtitle = "escape  leaves"
            yield Static(self._text, markup=False)
