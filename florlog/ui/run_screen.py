"""One run: its iterations next to its records, its source or its curves."""

from __future__ import annotations

from typing import ClassVar

from florlog_recovery import RunTree
from florlog_wal import Store
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Horizontal
from textual.screen import Screen
from textual.widgets import ContentSwitcher, Footer, Static, Tree

from florlog.errors import FlorlogError
from florlog.inspect.asking import default_line
from florlog.inspect.redo_view import PlanOverlay, plan_for_iterations
from florlog.inspect.selection import At, RecordSelection
from florlog.program.stores import log_of
from florlog.program.units import size_text
from florlog.programs.permission import Trust
from florlog.reading.reader import LoggedValue, RunView
from florlog.reading.render import printable
from florlog.ui.ask_dialog import Ask
from florlog.ui.curves import Curves
from florlog.ui.iteration_tree import IterationTree, TreeItem
from florlog.ui.prompt import TextPage
from florlog.ui.record_list import RecordList
from florlog.ui.record_pane import RecordPane
from florlog.ui.source_pane import SourcePane

HELP = """\
 h  hindsight: type an expression, get its values by replay
      in the source pane, it is evaluated at the cursor's line
 r  records        s  source        c  curves
 tab  next pane    escape  runs     q  quit      ?  this page

 in the records
   /  search           n N  next, previous hit
   g  go to an LSN, or to an iteration: epoch=3, step=17
   ] [  next, previous commit      i I  next, previous image
   p  previous record of the same transaction
   f  filter, as on the command line:  --type Commit --at 'epoch=3'
   m  bookmark         '  next bookmark      t  follow a live run
 in the curves
   n N  another name   v  compare with another run
 of the iteration chosen in the tree
   enter  its commit   P  plan: what would be executed to redo it

 y  copy the command line that shows the same
 The mouse works everywhere: click, double click, wheel."""


class RunScreen(Screen[None]):
    """The panes of one run."""

    BINDINGS: ClassVar = [
        Binding("h", "ask", "hindsight"),
        Binding("r", "show('records')", "records"),
        Binding("s", "show('source')", "source"),
        Binding("c", "show('curves')", "curves"),
        Binding("slash", "records('search')", "search"),
        Binding("f", "records('filter')", "filter"),
        Binding("P", "plan", "plan"),
        Binding("question_mark", "help", "help"),
        Binding("escape", "app.pop_screen", show=False),
        Binding("y", "copy", show=False),
        Binding("v", "compare", show=False),
        Binding("g", "records('goto')", show=False),
        Binding("n", "records('again', 1)", show=False),
        Binding("N", "records('again', -1)", show=False),
        Binding("right_square_bracket", "records('commit', 1)", show=False),
        Binding("left_square_bracket", "records('commit', -1)", show=False),
        Binding("i", "records('image', 1)", show=False),
        Binding("I", "records('image', -1)", show=False),
        Binding("p", "records('previous')", show=False),
        Binding("m", "records('mark')", show=False),
        Binding("apostrophe", "records('next_mark')", show=False),
        Binding("t", "records('tail')", show=False),
    ]

    def __init__(self, store: Store, run: str, selection: RecordSelection) -> None:
        super().__init__()
        self._store, self._run, self._first = store, run, selection
        self._run_log = log_of(store, run)
        self.run_tree: RunTree | None = None
        self._pane = RecordPane(self._run_log, id="records")

    def compose(self) -> ComposeResult:
        """The panes."""
        yield Static("", id="status", markup=False)
        with Horizontal():
            yield IterationTree(id="tree")
            with ContentSwitcher(initial="records"):
                yield self._pane
                yield SourcePane(self._run_log, id="source")
                yield Curves(self._store, self._run, id="curves")
        yield Footer(compact=True)

    def on_mount(self) -> None:
        """Show the records at once; analyse the run in the background."""
        self.records.focus()
        if not self._first.everything:
            self._pane.select(self._first)
        else:
            self.records.move_to(0)
        self.set_timer(0.05, self._analyse)  # the records first: analysis is work for the same interpreter

    @property
    def records(self) -> RecordList:
        """The record list."""
        return self._pane.list

    @property
    def pane(self) -> str:
        """Which pane is shown: "records", "source", "curves"."""
        return self.query_one(ContentSwitcher).current or "records"

    def _analyse(self) -> None:
        def work() -> None:
            view = RunView(lambda: self._run_log, self._run)
            self.app.call_from_thread(self._analysed, view.tree(), list(view.hindsight()))

        self.run_worker(work, thread=True, exclusive=True, group="analysis")

    def _analysed(self, tree: RunTree, found: list[LoggedValue]) -> None:
        if not self.query(IterationTree):  # the screen was left meanwhile
            return
        self.run_tree = self._pane.run_tree = tree
        self.query_one(IterationTree).show_run(tree)
        self.query_one(SourcePane).show_run(tree, found)
        self.query_one(Curves).show_run(tree)
        self._show_status()

    def _show_status(self) -> None:
        records, tree = self.records, self.run_tree
        parts = [printable(self._run)]
        if tree is not None:
            parts.append(f"{tree.status}, {tree.innermost_iterations()} iterations, {size_text(tree.bytes)}")
            if tree.forced:
                parts.append("resumed by force")
            if tree.hooked:
                parts.append("for reading alone")
        if records.count:
            parts.append(f"{records.cursor + 1}/{records.count}")
        if not records.selection.everything:
            parts.append(printable(str(records.selection)))
        self.query_one("#status", Static).update(" " + "   ".join(parts))

    def say(self, text: str) -> None:
        """Show the user a line."""
        self.notify(printable(text), timeout=6, markup=False)

    # -- messages of the panes -----------------------------------------------------------------------

    def on_record_pane_shown(self) -> None:
        """Another record is shown."""
        self._show_status()

    def on_record_pane_grown(self) -> None:
        """A live run has written more."""
        self._analyse()

    def on_tree_node_highlighted(self, event: Tree.NodeHighlighted[TreeItem | None]) -> None:
        """The values of the iteration, in the source."""
        if (item := event.node.data) is not None:
            self.query_one(SourcePane).choose(item.path)

    def on_tree_node_selected(self, event: Tree.NodeSelected[TreeItem | None]) -> None:
        """Enter on an iteration: its commit."""
        if (item := event.node.data) is None:
            return
        loop = item.loop
        self._pane.jump(loop.lsn if item.whole or item.first >= loop.count else loop.commits[item.first])

    def chosen(self) -> TreeItem | None:
        """The tree's line."""
        node = self.query_one(IterationTree).cursor_node
        return None if node is None else node.data

    # -- keys --------------------------------------------------------------------------------------

    def action_show(self, pane: str) -> None:
        """Another pane."""
        self.query_one(ContentSwitcher).current = pane
        (self.records if pane == "records" else self.query_one(f"#{pane}")).focus()

    def action_records(self, what: str, by: int = 0) -> None:
        """Something that the record pane does, forwards or backwards where it has both."""
        if self.pane == "curves" and what == "again":
            self.query_one(Curves).action_turn(by)
            return
        if self.pane != "records":
            self.action_show("records")
        action = getattr(self._pane, f"action_{what}")
        action(by) if by else action()

    def action_help(self) -> None:
        """The keys."""
        self.app.push_screen(TextPage("Keys", HELP))

    def action_plan(self) -> None:
        """Colour the redo set of the chosen iteration, or take the colour away."""
        records, item = self.records, self.chosen()
        if self.run_tree is None:
            self.say("the run is still being read")
            return
        if records.overlay is not None:
            records.overlay = None
        else:
            try:
                at = At.parse(item.at) if item and item.at else None
                plan, _ = plan_for_iterations(self._run_log, self.run_tree, at)
            except FlorlogError as error:
                self.say(str(error))
                return
            records.overlay = PlanOverlay(plan)
            self.say(
                f"to redo {item.at if item and item.at else 'the run'}: {plan.seconds:.2f} s predicted, "
                f"a full rerun {plan.rerun_seconds:.2f} s"
            )
        self.query_one(IterationTree).show_overlay(records.overlay)
        records.refresh()

    def action_copy(self) -> None:
        """The equivalent command line."""
        words = [self._run, *self.records.selection.words(), "--format", "text"]
        item = self.chosen()
        if self.pane in ("source", "curves"):
            words = ["source" if self.pane == "source" else "values", self._run]
        elif self.records.overlay is not None and item is not None:
            words = ["plan", self._run, "--at", item.at]
        self.say("copied: " + self.app.copied_command(words))  # type: ignore[attr-defined]

    def action_compare(self) -> None:
        """Another run's curves and parameters next to these."""
        self.action_show("curves")
        self.query_one(Curves).compare()

    def action_ask(self) -> None:
        """Hindsight."""
        source = self.query_one(SourcePane)
        if self.run_tree is None:
            self.say("the run is still being read")
            return
        try:
            at = source.place() if self.pane == "source" else None
            if at is None or at[1] == 0:
                at = default_line(source.sources, self.run_tree)
        except FlorlogError as error:
            self.say(str(error))
            return
        item = self.chosen()
        where = "" if item is None or (item.whole and not item.loop.parent.path) else item.at
        trust: Trust = self.app.trust  # type: ignore[attr-defined]
        self.app.push_screen(
            Ask(self._run_log, self.run_tree, source.sources, at, where, trust, self._answered)
        )

    def _answered(self) -> None:
        if self.is_attached:
            if self.app.screen is self:
                self.say("what was asked for has been found")
            self.records.read()
            self._analyse()
