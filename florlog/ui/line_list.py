"""A list of lines that are made when they are shown: a list of any length opens at once."""

from __future__ import annotations

from typing import ClassVar

from rich.text import Text
from textual import events
from textual.binding import Binding
from textual.geometry import Region, Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip


class LineList(ScrollView, can_focus=True):
    """Lines with a cursor; a subclass gives ``line``."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {"line-list--cursor"}
    DEFAULT_CSS = """
    LineList { scrollbar-size: 0 1; }
    LineList > .line-list--cursor { background: $surface-lighten-1; }
    LineList:focus > .line-list--cursor { background: $primary-muted; text-style: bold; }
    """
    BINDINGS = [  # noqa: RUF012 - textual's way
        Binding("up,k", "move(-1)", show=False),
        Binding("down,j", "move(1)", show=False),
        Binding("pageup", "page(-1)", show=False),
        Binding("pagedown", "page(1)", show=False),
        Binding("home", "to(0)", show=False),
        Binding("end", "to(-1)", show=False),
    ]

    class Moved(Message):
        """The cursor is on another line."""

        def __init__(self, lines: LineList, row: int) -> None:
            super().__init__()
            self.lines, self.row = lines, row

        @property
        def control(self) -> LineList:
            """The list."""
            return self.lines

    class Chosen(Moved):
        """Enter, or a second click, on the line at the cursor."""

    def __init__(self, *, id: str | None = None, width: int = 0) -> None:  # noqa: A002 - textual's name
        """``width``: columns of the longest line, as far as one may scroll to the right."""
        super().__init__(id=id)
        self.count = 0
        self.cursor = 0
        self.longest = width

    def line(self, row: int) -> Text:
        """The text of a line."""
        raise NotImplementedError

    def set_count(self, count: int) -> None:
        """Set how many lines there are."""
        self.count = count
        self.virtual_size = Size(self.longest, count)
        self.cursor = max(0, min(self.cursor, count - 1))
        self.refresh()

    def move_to(self, row: int) -> None:
        """Put the cursor on a line and show it."""
        self.cursor = max(0, min(row, self.count - 1))
        self.scroll_to_region(Region(self.scroll_offset.x, self.cursor, 1, 1), animate=False, force=True)
        self.refresh()
        self.post_message(self.Moved(self, self.cursor))

    def action_move(self, by: int) -> None:
        """One line up or down."""
        self.move_to(self.cursor + by)

    def action_page(self, by: int) -> None:
        """One page up or down."""
        self.move_to(self.cursor + by * max(1, self.size.height - 1))

    def action_to(self, row: int) -> None:
        """The first or the last line."""
        self.move_to(row if row >= 0 else self.count - 1)

    def on_click(self, event: events.Click) -> None:
        """Mouse: the line that was clicked."""
        row = self.scroll_offset.y + event.y
        if row < self.count:
            self.move_to(row)
            if event.chain == 2:
                self.post_message(self.Chosen(self, row))

    def render_line(self, y: int) -> Strip:
        """One line of the screen; textual calls it."""
        row, width = self.scroll_offset.y + y, self.size.width
        if row >= self.count:
            return Strip.blank(width, self.rich_style)
        strip = Strip(self.line(row).render(self.app.console, end=""))
        strip = strip.crop_extend(self.scroll_offset.x, self.scroll_offset.x + width, self.rich_style)
        if row == self.cursor:
            return strip.apply_style(self.get_component_rich_style("line-list--cursor"))
        return strip.apply_style(self.rich_style)
