"""What is open while a run executes: the stack of iterations, and their loops."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from types import CodeType
from typing import Any, TypeAlias

from florlog_recovery import Loop, LoopPlan, Node, NodePlan
from florlog_wal import Commit, Path

from florlog.errors import ImageError
from florlog.state.cursors import Cursor
from florlog.state.item_sources import gives_state

SAMPLE_BYTES = 8
"""The length of an item's fingerprint that covers a sample of the item; one of the whole item is longer."""

Site: TypeAlias = tuple[CodeType, int]
"""A call site: the code that runs and its line."""

Expected = dict[tuple[str, int, str], deque[bytes]]
"""Recorded values still to come in an iteration: file, line and name -> encodings in order."""


@dataclass(slots=True, eq=False)
class OpenLoop:
    """A loop execution that has begun."""

    name: str  # unique among the parent's loop executions
    form: str
    parent: OpenIteration
    site: Site
    stack: tuple[tuple[str, str, int], ...]
    length: int
    data: dict[str, Any]
    cursor: Cursor | None
    bare: bool = False  # whether it is known that nothing is wrapped around it
    handled: int = 0  # id of the exception that was being handled when it began
    entry: Any = None  # RNG states when it began, if starting in its middle needs them
    lsn: int = 0
    start: int = 0  # the index at which this session began to log it
    count: int = 0  # the next iteration's index
    plan: LoopPlan | None = None
    recorded: Loop | None = None
    stretch: int = 0  # position in the plan
    restored: int = -1  # the boundary whose image was restored last
    steps: Generator[Any, None, None] | None = None  # what carries out a run.iteration loop
    iterator: Any = None  # weak reference to what the script iterates over
    counters: list[Any] | None = None  # the enumerates around that
    gives_state: bool | None = None  # whether its items are made of state alone; None: not asked yet
    order: int = field(init=False)
    """Its position among the loops of the iteration around it."""
    depth: int = field(init=False)
    """1 for an outermost loop."""

    def __post_init__(self) -> None:
        self.depth = len(self.parent.path) + 1
        self.order = self.parent.segment

    def path(self, index: int) -> Path:
        """The address of iteration ``index``."""
        return (*self.parent.path, (self.name, index))


@dataclass(slots=True, eq=False)
class OpenIteration:
    """A transaction that has begun; the run itself is the one without a loop."""

    loop: OpenLoop | None
    index: int
    started: float
    own_seconds: float  # for which images had held up the training when it began
    prev: int = 0  # LSN of its latest record
    begun: bool = False  # its Begin is in the log
    values: list[tuple[int, str, Any]] = field(default_factory=list)
    writing: int = 0  # how many of them are being written
    data: bytes = b""  # fingerprint of its item
    segment: int = 0
    segment_started: float = 0.0  # of segments after the first
    segment_own_seconds: float = 0.0  # as own_seconds
    names: dict[str, int] = field(default_factory=dict)
    with_loop: OpenLoop | None = None  # the run.iteration loop that its body is in
    plan: NodePlan | None = None
    recorded: Node | None = None
    expected: Expected | None = None
    commit: Commit | None = None  # as recorded
    abandoned: bool = False  # nothing that it still does counts

    @property
    def path(self) -> Path:
        """Its address."""
        return () if self.loop is None else self.loop.path(self.index)


def check_can_go_on(loop: OpenLoop) -> None:
    """Raise `ImageError`, by the loop's name and line, where its data could not go on from here."""
    if loop.cursor is not None and loop.count and (why := loop.cursor.obstacle()):
        code, line = loop.site
        raise ImageError(
            f"loop {loop.name.split('#')[0]!r} ({FilePath(code.co_filename).name}:{line}): {why}"
        )


def gives_state_of(loop: OpenLoop | None) -> bool:
    """Whether the items of a loop are made of state alone, and so are compared with it."""
    if loop is None or loop.cursor is None:
        return False
    if loop.gives_state is None:
        try:
            loop.gives_state = gives_state(loop.cursor.iterable)
        except Exception:  # whatever an iterable of the user's raises when it is looked at
            loop.gives_state = False
    return loop.gives_state


def has_sampled_item(iteration: OpenIteration | None) -> bool:
    """Whether of the item of an open iteration, or of one around it, there is no more than a sample to compare."""
    while iteration is not None:
        loop = iteration.loop
        whole = len(iteration.data) not in (0, SAMPLE_BYTES)  # none: such as tensors on a GPU
        if loop is not None and loop.form == "for" and not whole and not gives_state_of(loop):
            return True
        iteration = None if loop is None else loop.parent
    return False


def places_of(loop: OpenLoop) -> dict[CodeType, int | None]:
    """The code objects that run loops now, innermost first.

    The innermost is at its loop's line, the others are at the call that led inwards (None).
    """
    places: dict[CodeType, int | None] = {loop.site[0]: loop.site[1]}
    outer = loop.parent.loop
    while outer is not None:
        places.setdefault(outer.site[0], None)
        outer = outer.parent.loop
    return places
