"""The records pane: the list, the record at the cursor in full, and all that moves the cursor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from florlog_recovery import RunTree
from florlog_wal import CheckpointBegin, CheckpointEnd, Commit, Entry, Path, Record, RunLog, WalError
from textual.app import ComposeResult
from textual.containers import Vertical, VerticalScroll
from textual.message import Message
from textual.widgets import Static

from florlog.errors import FlorlogError
from florlog.inspect.record_forms import detail, path_text
from florlog.inspect.selection import At, RecordSelection
from florlog.ui.line_list import LineList
from florlog.ui.prompt import Prompt
from florlog.ui.record_detail import record_detail
from florlog.ui.record_list import RecordList

_MAX_RECORDS_AT_ONCE = 5000  # records; what may be further away is searched in the background


class RecordPane(Vertical):
    """Records of one run; the run's screen binds the keys to ``action_`` methods."""

    class Grown(Message):
        """A live run has written more."""

    class Shown(Message):
        """Another record, or another selection of them, is shown."""

    def __init__(self, log: RunLog, *, id: str | None = None) -> None:  # noqa: A002
        super().__init__(id=id)
        self.list = RecordList(log, id="list")
        self.run_tree: RunTree | None = None  # when it is known
        self._needle = ""
        self._tailing: Any = None

    def compose(self) -> ComposeResult:
        """List above, record below."""
        yield self.list
        with VerticalScroll(id="detail", can_focus=True):
            yield Static("", id="record", markup=False)

    def on_line_list_moved(self, event: LineList.Moved) -> None:
        """Show the record at the cursor."""
        if self.list.count:
            entry = self.list.entry(event.row)
            self.query_one("#record", Static).update(record_detail(entry, self.list.path(entry)))
        self.post_message(self.Shown())

    def say(self, text: str) -> None:
        """Show the user a line."""
        self.screen.say(text)  # type: ignore[attr-defined]

    def select(self, selection: RecordSelection) -> None:
        """Show only the selected records."""
        self.list.selection = selection
        self.list.read()
        self.list.move_to(0)

    def jump(self, lsn: int) -> None:
        """Put the cursor on a record, or on the next one that is shown."""
        self.list.move_to(self.list.row(lsn))

    # -- places ------------------------------------------------------------------------------------

    def action_goto(self) -> None:
        """An LSN or an iteration."""
        self.app.push_screen(Prompt("Go to", "an LSN, or an iteration: epoch=3, step=17"), self._go)

    def _go(self, text: str | None) -> None:
        if not text:
            return
        if text.strip().isdigit():
            self.jump(int(text))
            return
        try:
            path = tuple((name, first) for name, (first, _) in At.parse(text).ranges.items())
        except FlorlogError as error:
            self.say(str(error))
            return
        found = self.run_tree.locate(path) if self.run_tree else None
        if found is None:
            self.say(f"the run has no iteration {text}" if self.run_tree else "the run is still being read")
        else:
            loop, index = found
            self.jump(loop.commits[index] if index < loop.count else loop.lsn)

    def action_commit(self, by: int) -> None:
        """The next or previous commit."""
        self._seek(by, (Commit,), _any, "no further commit")

    def action_image(self, by: int) -> None:
        """The next or previous record of an image."""
        self._seek(by, (CheckpointBegin, CheckpointEnd), _any, "no further image")

    def action_previous(self) -> None:
        """The previous record of the transaction."""
        if self.list.count:
            lsn = self.list.entry(self.list.cursor).prev_lsn
            self._arrive(lsn or None, "this is the first record of its transaction")

    def action_mark(self) -> None:
        """Set or remove a bookmark."""
        if self.list.count:
            self.list.marks ^= {self.list.lsn(self.list.cursor)}
            self.list.refresh()

    def action_next_mark(self) -> None:
        """The next bookmark, the first after the last."""
        marks = sorted(self.list.marks)
        if marks and self.list.count:
            lsn = self.list.lsn(self.list.cursor)
            self.jump(next((mark for mark in marks if mark > lsn), marks[0]))
        else:
            self.say("no bookmark is set: m sets one")

    # -- search ------------------------------------------------------------------------------------

    def action_search(self) -> None:
        """Text in the records."""
        self.app.push_screen(Prompt("Search", "text in a record's line", self._needle), self._search)

    def _search(self, text: str | None) -> None:
        if text:
            self._needle = text
            self.action_again(1)

    def action_again(self, by: int) -> None:
        """The next hit."""
        needle = self._needle.lower()
        if not needle:
            self.action_search()
            return

        def wanted(entry: Entry, path: Path) -> bool:
            return needle in f"{type(entry.record).__name__} {path_text(path)} {detail(entry)}".lower()

        self._seek(by, None, wanted, f"no further {self._needle}")

    def _seek(
        self,
        by: int,
        types: tuple[type[Record], ...] | None,
        wanted: Callable[[Entry, Path], bool],
        otherwise: str,
    ) -> None:
        """The next record that is wanted: at once if it is near, else found in the background."""
        records = self.list
        if not records.count:
            return
        lsn = records.lsn(records.cursor)
        found = next(records.after(lsn, by, types, wanted, _MAX_RECORDS_AT_ONCE), None)
        if found is not None:
            self.jump(found)
            return

        def work() -> None:
            hit = next(records.after(lsn + by * _MAX_RECORDS_AT_ONCE, by, types, wanted), None)
            self.app.call_from_thread(self._arrive, hit, otherwise)

        self.run_worker(work, thread=True, exclusive=True, group="search")

    def _arrive(self, lsn: int | None, otherwise: str) -> None:
        if lsn is None:
            self.say(otherwise)
        else:
            self.jump(lsn)

    # -- what is shown -----------------------------------------------------------------------------

    def action_filter(self) -> None:
        """Which records are shown."""
        hint = "--type Commit --at 'epoch=3' --name loss --from LSN --to LSN; empty: all"
        self.app.push_screen(Prompt("Filter", hint, str(self.list.selection)), self._filter)

    def _filter(self, text: str | None) -> None:
        if text is None:
            return
        try:
            self.select(RecordSelection.parse(text))
        except (FlorlogError, WalError) as error:
            self.say(str(error))

    def action_tail(self) -> None:
        """Follow a live run, or stop that."""
        if self._tailing is not None:
            self._tailing.stop()
            self._tailing = None
            self.say("no longer following")
        else:
            self._tailing = self.set_interval(0.5, self._follow)
            self.say("following: t stops it")

    def _follow(self) -> None:
        before = self.list.count
        self.list.read()
        if self.list.count != before:
            self.list.move_to(self.list.count - 1)
            self.post_message(self.Grown())


def _any(entry: Entry, path: Path) -> bool:
    return True
