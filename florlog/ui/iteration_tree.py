"""The iteration tree: loop executions and iterations, unfolded on demand."""

from __future__ import annotations

from dataclasses import dataclass

from florlog_recovery import Loop, Node, RunTree
from florlog_wal import Path
from rich.text import Text
from textual.widgets import Tree
from textual.widgets.tree import TreeNode

from florlog.inspect.outline import loop_state, node_state
from florlog.inspect.redo_view import PlanOverlay
from florlog.program.units import duration_text
from florlog.reading.render import printable

_MAX_CHILDREN = 100  # children of one line; more are folded into ranges


@dataclass(slots=True)
class TreeItem:
    """What a line of the tree shows: iterations ``first`` to ``last`` of a loop execution."""

    loop: Loop
    first: int
    last: int
    whole: bool = False  # the loop execution itself

    @property
    def path(self) -> Path:
        """The iteration, or the one around the loop."""
        return self.loop.parent.path if self.whole else self.loop.path(self.first)

    @property
    def at(self) -> str:
        """The iterations as ``--at`` has them."""
        parts = [f"{name}={index}" for name, index in self.loop.parent.path]
        if not self.whole:
            one = self.first == self.last
            parts.append(f"{self.loop.name}={self.first}" + ("" if one else f":{self.last + 1}"))
        return ", ".join(parts)


class IterationTree(Tree[TreeItem | None]):
    """Loops and iterations with state and cost; what a plan redoes is coloured."""

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002 - textual's name
        super().__init__("reading ...", id=id)
        self.guide_depth = 2
        self.overlay: PlanOverlay | None = None
        self._run_tree: RunTree | None = None

    def show_run(self, tree: RunTree) -> None:
        """Show an analysed run."""
        self._run_tree = tree
        self.clear()
        self.root.set_label(Text("run", "bold"))
        self._loops(self.root, tree.root)
        self.root.expand()
        if self.root.children:
            self.root.children[0].expand()

    def on_tree_node_expanded(self, event: Tree.NodeExpanded[TreeItem | None]) -> None:
        """Make the children of a line when it is unfolded."""
        node, item = event.node, event.node.data
        if item is None or node.children:
            return
        if not item.whole and item.first == item.last:
            self._loops(node, item.loop.nodes[item.first])
            return
        size = item.last - item.first + 1
        step = 1
        while size > step * _MAX_CHILDREN:
            step *= _MAX_CHILDREN
        for first in range(item.first, item.last + 1, step):
            self._add(node, TreeItem(item.loop, first, min(first + step - 1, item.last)))

    def _loops(self, node: TreeNode[TreeItem | None], parent: Node) -> None:
        for loop in parent.loops:
            last = max(loop.count - 1, *loop.nodes, -1)
            self._add(node, TreeItem(loop, 0, last, whole=True))

    def _add(self, node: TreeNode[TreeItem | None], item: TreeItem) -> None:
        unfolds = item.whole or item.first != item.last or item.first in item.loop.nodes
        node.add("", item, allow_expand=unfolds and item.last >= 0).set_label(self._label(item))

    def _label(self, item: TreeItem) -> Text:
        loop = item.loop
        assert self._run_tree is not None
        seconds = duration_text(sum(loop.seconds[item.first : item.last + 1]))
        if item.whole:
            state = loop_state(self._run_tree, loop)
            text = Text(f"{printable(loop.name)} ")
            text.append(f"\u00d7{loop.count} {seconds}", "dim")
            if state != "ended":
                text.append(f" {state}", "yellow")
            return text
        if item.first != item.last:
            text = Text(f"{item.first}..{item.last} ")
            text.append(seconds, "dim")
            return text
        state = node_state(self._run_tree, loop, item.first)
        text = Text(f"{printable(loop.name)}={item.first} ")
        text.append(seconds, "dim")
        if state != "committed":
            text.append(f" {state}", "red" if state == "aborted" else "yellow")
        if item.first in loop.images:
            text.append(" \u25c6", "magenta")  # an image of its start
        if self.overlay is not None and loop.path(item.first) in self.overlay:
            text.stylize("black on yellow")
        return text

    def show_overlay(self, overlay: PlanOverlay | None) -> None:
        """Colour what a plan redoes."""
        self.overlay = overlay
        pending = list(self.root.children)
        while pending:
            node = pending.pop()
            pending.extend(node.children)
            if node.data is not None:
                node.set_label(self._label(node.data))
