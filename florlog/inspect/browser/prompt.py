"""Small dialogs: one line to type, and a page of help."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Vertical, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Input, Label, Static


class Prompt(ModalScreen[str | None]):
    """Asks for a line of text; None when left by Escape."""

    BINDINGS = [Binding("escape", "dismiss(None)")]  # noqa: RUF012 - textual's way

    def __init__(self, title: str, value: str = "") -> None:
        super().__init__()
        self._title, self._value = title, value

    def compose(self) -> ComposeResult:
        """The dialog."""
        with Vertical(classes="dialog"):
            yield Label(self._title, markup=False)
            yield Input(self._value, id="prompt")

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Enter."""
        self.dismiss(event.value)


class Page(ModalScreen[None]):
    """A text to read; any of Escape, q, Enter and ? leaves it."""

    BINDINGS = [Binding("escape,q,enter,question_mark", "dismiss(None)")]  # noqa: RUF012

    def __init__(self, text: str) -> None:
        super().__init__()
        self._text = text

    def compose(self) -> ComposeResult:
        """The page."""
        with VerticalScroll(classes="dialog"):
            yield Static(self._text, markup=False)
