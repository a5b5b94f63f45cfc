"""One run: iteration tree, records and detail; its source; its curves."""

from __future__ import annotations

from typing import Any, ClassVar

from florlog_recovery import RunTree
from florlog_wal import CheckpointBegin, CheckpointEnd, Commit, Record, Store, WalError
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.screen import Screen
from textual.widgets import ContentSwitcher, Footer, Static, Tree

from ..._reader import Log, RunView, Value
from ..._render import brief, printable
from ...errors import FlorlogError
from ..forms import detail
from ..hindsight import default_line
from ..redo import Overlay, plan_for_iterations
from ..selection import At, Selection
from .ask import Ask
from .curves import Curves
from .detail import record_detail
from .iterations import Item, IterationTree
from .lines import Lines
from .prompt import Page, Prompt
from .recordlist import RecordList
from .sourceview import SourceView

HELP = """\
r records    s source    c curves     tab  next pane     escape  back to the runs
/ search     n, N        next, previous hit (in curves: another name)
g go to an LSN, or to an iteration: epoch=3, step=17
] [          next, previous commit     i I  next, previous image     p  previous record of the transaction
f filter, as on the command line:  --type Commit --at 'epoch=3' --name loss
m bookmark   '  next bookmark          t  follow a live run
P plan: colours what would be executed again to redo the iteration chosen in the tree
h hindsight: type an expression, get its values by replay; in the source, the place is the cursor's line
v compare with another run (curves)    y copy the command line that shows the same
? this page  q  quit                   The mouse works everywhere.
"""


class RunScreen(Screen[None]):
    """The panes of one run."""

    BINDINGS: ClassVar = [
        Binding("h", "ask", "hindsight"),
        Binding("r", "show('records')", "records"),
        Binding("s", "show('source')", "source"),
        Binding("c", "show('curves')", "curves"),
        Binding("slash", "search", "search"),
        Binding("g", "goto", "go to"),
        Binding("f", "filter", "filter"),
        Binding("P", "plan", "plan"),
        Binding("y", "copy", "copy"),
        Binding("question_mark", "help", "help"),
        Binding("escape", "app.pop_screen", "runs", show=False),
        Binding("n", "again(1)", show=False),
        Binding("N", "again(-1)", show=False),
        Binding("right_square_bracket", "next('commit', 1)", show=False),
        Binding("left_square_bracket", "next('commit', -1)", show=False),
        Binding("i", "next('image', 1)", show=False),
        Binding("I", "next('image', -1)", show=False),
        Binding("p", "previous", show=False),
        Binding("m", "mark", show=False),
        Binding("apostrophe", "next_mark", show=False),
        Binding("t", "tail", show=False),
        Binding("v", "compare", show=False),
    ]

    def __init__(self, store: Store, run: str, selection: Selection) -> None:
        super().__init__()
        self._store, self._run, self._first = store, run, selection
        self.run_tree: RunTree | None = None
        self._values: list[Value] = []
        self._needle = ""
        self._tailing: Any = None
        self._others = 0

    def compose(self) -> ComposeResult:
        """The panes."""
        yield Static(printable(self._run), id="status", markup=False)
        with Horizontal():
            yield IterationTree(id="tree")
            with ContentSwitcher(initial="records"):
                with Vertical(id="records"):
                    yield RecordList(self._store, self._run, id="list")
                    with VerticalScroll(id="detail"):
                        yield Static("", id="record", markup=False)
                yield SourceView(id="source")
                yield Curves(id="curves")
        yield Footer()

    def on_mount(self) -> None:
        """Show the records at once; analyse the run in the background."""
        self.records.focus()
        if not self._first.everything:
            self.records.selection = self._first
            self.records.read()
        self.set_timer(0.1, self._analyse)  # the records first: analysis is work for the same interpreter

    @property
    def records(self) -> RecordList:
        """The record list."""
        return self.query_one("#list", RecordList)

    def _analyse(self) -> None:
        def work() -> None:
            view = RunView(self._store, self._run)
            tree, values = view.tree(), list(view.logged())
            self.app.call_from_thread(self._analysed, tree, values)

        self.run_worker(work, thread=True, exclusive=True, group="analysis")

    def _analysed(self, tree: RunTree, values: list[Value]) -> None:
        self.run_tree, self._values = tree, values
        self.query_one(IterationTree).show_run(tree)
        self.query_one(SourceView).show_run(self._store, tree, values)
        curves = self.query_one(Curves)
        curves.values = values
        curves.draw()

    def say(self, text: str) -> None:
        """A line for the user."""
        self.notify(printable(text), timeout=6, markup=False)

    # -- where we are ------------------------------------------------------------------------------

    def on_lines_moved(self, event: Lines.Moved) -> None:
        """Show the record at the cursor."""
        if event.lines is self.records and self.records.count:
            entry = self.records.entry(event.row)
            self.query_one("#record", Static).update(record_detail(entry, self.records.path(entry)))

    def on_tree_node_highlighted(self, event: Tree.NodeHighlighted[Item | None]) -> None:
        """The values of the iteration, in the source."""
        if (item := event.node.data) is not None:
            self.query_one(SourceView).choose(item.path)

    def on_tree_node_selected(self, event: Tree.NodeSelected[Item | None]) -> None:
        """Enter on an iteration: its commit."""
        if (item := event.node.data) is None:
            return
        loop = item.loop
        lsn = loop.lsn if item.whole or item.first >= loop.count else loop.commits[item.first]
        self.records.move_to(self.records.row(lsn))

    def chosen(self) -> Item | None:
        """The tree's line."""
        node = self.query_one(IterationTree).cursor_node
        return None if node is None else node.data

    # -- keys --------------------------------------------------------------------------------------

    def action_show(self, pane: str) -> None:
        """Another pane."""
        self.query_one(ContentSwitcher).current = pane
        (self.records if pane == "records" else self.query_one(f"#{pane}")).focus()

    def action_help(self) -> None:
        """The keys."""
        self.app.push_screen(Page(HELP))

    def action_goto(self) -> None:
        """An LSN or an iteration."""
        self.app.push_screen(Prompt("go to LSN or iteration (epoch=3, step=17)"), self._go)

    def _go(self, text: str | None) -> None:
        if not text:
            return
        if text.strip().isdigit():
            self.records.move_to(self.records.row(int(text)))
            return
        try:
            at = At.parse(text)
        except FlorlogError as error:
            self.say(str(error))
            return
        path = tuple((name, first) for name, (first, _) in at.ranges.items())
        place = self.run_tree.locate(path) if self.run_tree else None
        if place is None:
            self.say(f"the run has no iteration {text}")
        else:
            loop, index = place
            self.records.move_to(self.records.row(loop.commits[index] if index < loop.count else loop.lsn))

    def action_next(self, kind: str, by: int) -> None:
        """The next or previous commit or image."""
        types: tuple[type[Record], ...] = (Commit,) if kind == "commit" else (CheckpointBegin, CheckpointEnd)
        if not self.records.count:
            return
        lsn = self.records.lsn(self.records.cursor)
        found = (
            self._store.scan(lsn + 1, types=types)
            if by > 0
            else self._store.scan(1, lsn, types=types, reverse=True)
        )
        self._jump(next((entry.lsn for entry in found), None), f"no further {kind}")

    def _jump(self, lsn: int | None, otherwise: str) -> None:
        if lsn is None:
            self.say(otherwise)
        else:
            self.records.move_to(self.records.row(lsn))

    def action_previous(self) -> None:
        """The previous record of the transaction."""
        if self.records.count:
            lsn = self.records.entry(self.records.cursor).prev_lsn
            self._jump(lsn or None, "this is the first record of its transaction")

    def action_mark(self) -> None:
        """Set or remove a bookmark."""
        if self.records.count:
            self.records.marks ^= {self.records.lsn(self.records.cursor)}
            self.records.refresh()

    def action_next_mark(self) -> None:
        """The next bookmark, the first after the last."""
        marks = sorted(self.records.marks)
        if marks:
            lsn = self.records.lsn(self.records.cursor)
            self._jump(next((mark for mark in marks if mark > lsn), marks[0]), "")

    def action_search(self) -> None:
        """Text in the records."""
        self.app.push_screen(Prompt("search", self._needle), self._search)

    def _search(self, text: str | None) -> None:
        if text:
            self._needle = text
            self.action_again(1)

    def action_again(self, by: int) -> None:
        """The next hit; in the curves, the next name."""
        if self.query_one(ContentSwitcher).current == "curves":
            self.query_one(Curves).next_name(by)
            return
        if not self._needle or not self.records.count:
            return
        records, needle = self.records, self._needle.lower()
        lsn = records.lsn(records.cursor)

        def work() -> None:
            scan = self._store.scan(lsn + 1) if by > 0 else self._store.scan(1, lsn, reverse=True)
            hits = (e.lsn for e in scan if needle in f"{type(e.record).__name__} {detail(e)}".lower())
            self.app.call_from_thread(self._jump, next(hits, None), f"{self._needle} is not found")

        self.run_worker(work, thread=True, exclusive=True, group="search")

    def action_filter(self) -> None:
        """Which records are shown."""
        self.app.push_screen(
            Prompt("filter: --type, --at, --name, --from, --to", str(self.records.selection)), self._filter
        )

    def _filter(self, text: str | None) -> None:
        if text is None:
            return
        try:
            self.records.selection = Selection.parse(text)
            self.records.read()
        except (FlorlogError, WalError) as error:
            self.say(str(error))
            return
        self.records.move_to(0)
        self.query_one("#status", Static).update(printable(f"{self._run}  {self.records.selection}"))

    def action_tail(self) -> None:
        """Follow a live run, or stop that."""
        if self._tailing is not None:
            self._tailing.stop()
            self._tailing = None
            self.say("no longer following")
            return
        self._tailing = self.set_interval(0.5, self._follow)
        self.say("following")

    def _follow(self) -> None:
        before = self.records.count
        self.records.read()
        if self.records.count != before:
            self.records.move_to(self.records.count - 1)
            self._analyse()

    def action_plan(self) -> None:
        """Colour the redo set of the chosen iteration, or no longer."""
        tree, records = self.query_one(IterationTree), self.records
        if records.overlay is not None or self.run_tree is None:
            records.overlay = None
        else:
            item = self.chosen()
            try:
                plan, _ = plan_for_iterations(self.run_tree, At.parse(item.at) if item and item.at else None)
            except FlorlogError as error:
                self.say(str(error))
                return
            records.overlay = Overlay(plan)
            self.say(f"redo predicted to take {plan.seconds:.2f} s, a full rerun {plan.rerun_seconds:.2f} s")
        tree.show_overlay(records.overlay)
        records.refresh()

    def action_copy(self) -> None:
        """The equivalent command line."""
        pane = self.query_one(ContentSwitcher).current
        words = [self._run, *self.records.selection.words(), "--format", "text"]
        if pane in ("source", "curves"):
            words = ["source" if pane == "source" else "values", self._run]
        elif self.records.overlay is not None and (item := self.chosen()) is not None:
            words = ["plan", self._run, "--at", item.at]
        self.say("copied: " + self.app.copied_command(words))  # type: ignore[attr-defined]

    def action_compare(self) -> None:
        """Another run's curves and parameters beside these."""
        others = [view for view in Log(self._store).runs if view.id != self._run]
        curves = self.query_one(Curves)
        self._others = (self._others + 1) % (len(others) + 1)
        curves.other, curves.notes = [], []
        if self._others and self.run_tree is not None:
            other = others[-self._others]
            curves.other = list(other.logged())
            mine, theirs = self.run_tree.begin.params, other.tree().begin.params
            differing = [
                f"{printable(str(key)[:30])}: {brief(mine.get(key), 30)} here, {brief(theirs.get(key), 30)} there"
                for key in {**mine, **theirs}
                if brief(mine.get(key), 200) != brief(theirs.get(key), 200)
            ]
            curves.notes = [printable(f"compared with {other.id}"), *differing[:6]]
        self.action_show("curves")
        curves.draw()

    def action_ask(self) -> None:
        """Hindsight."""
        source = self.query_one(SourceView)
        if self.run_tree is None:
            self.say("the run is still being read")
            return
        try:
            at = source.place() if self.query_one(ContentSwitcher).current == "source" else None
            if at is None or at[1] == 0:
                at = default_line(source.sources, self.run_tree)
        except FlorlogError as error:
            self.say(str(error))
            return
        item = self.chosen()
        where = "" if item is None or (item.whole and not item.loop.parent.path) else item.at
        self.app.push_screen(Ask(self._store, self.run_tree, source.sources, at, where), self._asked)

    def _asked(self, found: bool | None) -> None:
        if found:
            self.records.read()
            self._analyse()
