"""The run tree: what analysis knows of a run.

A run is the root iteration.  The *loop executions* of an iteration, in the order in which they ran, cut its body
into *segments*: segment i lies before loop execution i and after the one before it; the last segment lies after the
last loop execution.  A segment of one iteration is an *atom*, the unit that redo executes or skips.  The atoms of a
run in order of execution are its *timeline*.  Loop execution L with n iterations has the boundaries 0..n; boundary k
lies before iteration k, and images belong to boundaries.

Innermost iterations are by far the most numerous and have one atom each, so they are not objects: a loop
execution keeps their costs and commit LSNs in flat arrays.  Only an iteration with loops of its own is a `Node`.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from florlog_wal import Failure, Path, RunBegin, StackFrame, Statement

Digest = bytes
FORCED = "forced"
"""The kind of the note that marks a run which was resumed though it differed from the recording."""
BY_HOOKS = "by hooks"
"""The kind of the note with a framework whose loops are recorded by its hooks from there on: they can only be read."""
POLICY = "policy"
"""The kind of the notes that say when images are taken, and what they may take."""
CACHED = "page cache"
"""The kind of the note that says that the file system refuses to write pages past its cache."""
AUDITED = "audited"
"""The kind of the note that says what came of an audit while the run was recorded."""
EQUAL, DIFFERENT, NOT_POSSIBLE = "equal", "different", "not possible"
"""What can come of it."""


@dataclass(frozen=True, slots=True)
class Image:
    """A complete image: the state at a boundary, restorable without re-execution."""

    lsn: int  # of its CheckpointBegin: its place on the timeline
    table: bytes  # page digest of the page table, which identifies the state
    state_bytes: int
    seconds: float  # of making it: the stall of the training, and persisting


@dataclass(frozen=True, slots=True)
class Audit:
    """What came of redoing a stretch of a run, from an image to the next, while the run was recorded."""

    reached: Path  # the iteration before which the second image stands
    outcome: str  # EQUAL, DIFFERENT or NOT_POSSIBLE
    text: str  # for a person


@dataclass(slots=True, eq=False)
class Loop:
    """One execution of a loop inside one iteration of its parent."""

    parent: Node
    order: int  # position among the loop executions of the parent
    name: str  # unique among them
    lsn: int  # of its (latest) LoopBegin
    site: StackFrame
    stack: tuple[StackFrame, ...]
    form: str  # "for", "with"
    length: int  # -1 when unknown
    data: dict[str, object]
    before: float  # seconds of the parent's segment that this loop ends
    seconds: array[float] = field(default_factory=lambda: array("d"))  # per iteration, loops included
    commits: array[int] = field(default_factory=lambda: array("Q"))  # LSN per iteration
    nodes: dict[int, Node] = field(default_factory=dict)  # iterations that have loops of their own
    images: dict[int, Image] = field(default_factory=dict)  # by boundary
    ended: bool = False
    left: bool = False  # its body left it early, by a break, a return or an exception
    cut: bool = False  # by an exception that the script caught, in the iteration after the last committed one

    @property
    def depth(self) -> int:
        """1 for an outermost loop."""
        return len(self.parent.path) + 1

    @property
    def count(self) -> int:
        """Committed iterations."""
        return len(self.commits)

    def path(self, index: int) -> Path:
        """The address of iteration ``index``."""
        return (*self.parent.path, (self.name, index))

    def reopen(self, count: int) -> None:
        """Take the iterations from ``count`` on back, with the images after them: the loop goes on there."""
        del self.commits[count:], self.seconds[count:]
        self.ended = self.left = self.cut = False
        self.images = {index: image for index, image in self.images.items() if index <= self.count}
        for index, node in self.nodes.items():
            node.committed = node.committed and index < self.count

    def take_back(self) -> None:
        """Reopen a loop that was left early at its last iteration, and those that were left in this."""
        inner: Loop | None = self
        while inner is not None and inner.left:
            inner.reopen(inner.count if inner.cut else inner.count - 1)
            node = inner.nodes.get(inner.count)
            inner = node.loops[-1] if node is not None and node.loops else None


@dataclass(slots=True, eq=False)
class Node:
    """An iteration with loop executions of its own, or the run (``path == ()``)."""

    path: Path
    loop: Loop | None
    index: int
    loops: list[Loop] = field(default_factory=list)
    committed: bool = False
    after: float = 0.0  # seconds of its last segment
    values: list[int] = field(default_factory=list)  # LSNs of its Values records

    def find(self, name: str) -> Loop | None:
        """The loop execution of that name, or None."""
        return next((loop for loop in self.loops if loop.name == name), None)


@dataclass(slots=True, eq=False)
class RunTree:
    """A run as all of its sessions recorded it."""

    run: str
    begin: RunBegin  # of the newest recording session
    sessions: list[int]  # LSNs of the recording sessions (record, resume), oldest first
    root: Node
    statements: dict[int, dict[int, Statement]]  # session -> id -> statement
    status: str  # "complete", "failed", "crashed", "running"
    failure: Failure | None
    losers: list[Path]  # iterations that began, did not commit and cannot be continued
    bytes: int  # of its records
    last_lsn: int
    costs: list[dict[str, Any]] = field(default_factory=list)  # data of its cost notes, see `costs`
    sources: dict[str, tuple[str, Digest]] = field(
        default_factory=dict
    )  # path -> module name, page of the text
    problems: list[tuple[int, str]] = field(default_factory=list)  # LSN of a record without effect, and why
    forced: list[str] = field(default_factory=list)
    """How each resume that was forced differed from the recording before it went on."""
    hooked: str = ""
    """The framework, and its version, whose loops were recorded by its hooks: the run cannot be executed again."""
    audits: list[Audit] = field(default_factory=list)
    """One at most of each session."""
    budget: int | None = None
    """The bytes that the images of the newest session may take; None: as many as there is room for."""
    cached: bool = False
    """Whether pages were written through the page cache, because the file system refuses otherwise."""
    unproven: list[Loop] = field(default_factory=list)
    """Loops that a body left last of all, inner before outer: no later record shows that execution went on normally."""

    def reopen_unproven(self) -> None:
        """Take back what may have been written while an exception was unwinding: a resume executes it again."""
        for loop in self.unproven:
            loop.reopen(loop.count - 1)
        self.unproven.clear()

    def loops(self) -> Iterator[Loop]:
        """Every loop execution, outer before inner, in timeline order."""
        stack = [iter(self.root.loops)]
        while stack:
            loop = next(stack[-1], None)
            if loop is None:
                stack.pop()
                continue
            yield loop
            stack.append(inner for _, node in sorted(loop.nodes.items()) for inner in node.loops)

    def locate(self, path: Path) -> tuple[Loop, int] | None:
        """The loop execution and index of an iteration, or None when the run has no such iteration."""
        node: Node | None = self.root
        found: tuple[Loop, int] | None = None
        for name, index in path:
            if node is None or (loop := node.find(name)) is None:
                return None
            if not 0 <= index <= loop.count or (index == loop.count and index not in loop.nodes):
                return None
            found = (loop, index)
            node = loop.nodes.get(index)
        return found

    def innermost_iterations(self) -> int:
        """Committed iterations without loops of their own."""
        return sum(loop.count - sum(1 for index in loop.nodes if index < loop.count) for loop in self.loops())
