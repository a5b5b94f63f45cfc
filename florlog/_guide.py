"""Following a plan through a recorded run, and checking every step of the way.

The guide stands beside a run that re-executes a recording.  It tells each loop which iterations to run and
where to restore, compares what the script does with what the log says (logged values, fingerprints, and the
whole state wherever an image stands), and collects the values of statements that the recording does not
have, labelled with how far they can be trusted.

A resume is guided up to its *frontier*, the first atom that the log does not have; from there on the run
records again.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from florlog_recovery import Image, Loop, Measured, Node, NodePlan, Plan, RunTree
from florlog_wal import Commit, Frame, Path, Store, Values, decode_value, encode_value

from ._data import check
from ._image import SavedState, differing, digests_only, page_table, state_digest
from ._inplace import bits
from ._open import Expected, OpenIteration, OpenLoop
from ._skip import SkipRest
from ._snapshot import snapshot
from .errors import ChangedError
from .source.regions import Exit

PROVEN, CONSISTENT, UNVERIFIED, DIVERGED = "PROVEN", "CONSISTENT", "UNVERIFIED", "DIVERGED"


Variables = Mapping[str, Collection[str]]
"""Frame -> names of variables."""


@dataclass(slots=True)
class Found:
    """A value that the recording does not have."""

    file: str
    line: int
    qualname: str
    name: str
    path: Path
    value: Any
    trust: str = UNVERIFIED
    detail: str = ""
    closed: int = 0  # comparisons of the whole state or iteration before it
    steady: bool = True  # nothing but the state decides what it is
    segment: int = 0  # loops of its iteration that had ended


def where(path: Path) -> str:
    """An iteration's address as text: ``epoch=3, step=17``."""
    return ", ".join(f"{name}={index}" for name, index in path) or "the run's start"


class Guide:
    """Leads one run along ``plan``.

    ``lines`` maps a source file to its path when recorded and its lines' numbers then; None: unchanged.
    """

    def __init__(
        self,
        store: Store,
        tree: RunTree,
        plan: Plan | None,
        lines: Mapping[str, tuple[str, Mapping[int, int]]] | None,
        *,
        frontier: tuple[Node, int | Loop] | None = None,
        exits: Mapping[Loop | tuple[Node, int], Exit] | None = None,
        unsteady: Collection[tuple[Frame | None, str, int]] = (),
    ) -> None:
        self.store = store
        self.tree = tree
        self.plan = plan
        self.resuming = frontier is not None
        self._frontier = frontier
        self._exits = exits or {}
        self._unsteady = unsteady
        self._closed = 0  # comparisons of what an iteration, or a state, was as a whole
        self._arrived = False
        self.found: list[Found] = []
        self.differences: list[str] = []
        self.redone = 0  # innermost iterations executed
        self.restored = 0
        self.measured = Measured()
        self.spans: list[float] = []  # seconds to the first restore, and from each to the next
        self._began = self._span = time.perf_counter()
        self.progress: Callable[[int], None] = lambda redone: None
        self._lines = lines
        self._statements = tree.statements
        self._base = "start"
        self._difference = ""
        self._local = ""
        self._compared = 0
        self._pending: list[Found] = []

    # -- navigation --------------------------------------------------------------------------------

    @property
    def navigating(self) -> bool:
        """Whether loops still follow the plan."""
        return not self._arrived

    @property
    def unchecked(self) -> bool:
        """Whether the set-up produced values, and nothing has told yet whether it made the recorded state."""
        return bool(self._pending) and self._base == "start"

    def start(self, root: OpenIteration) -> None:
        """The run itself begins."""
        root.recorded = self.tree.root
        root.plan = self.plan.root if self.plan else None
        self._expect(root)
        self.reached(root)

    def reached(self, iteration: OpenIteration) -> None:
        """So many loops of an iteration have ended: is what follows the frontier?"""
        if self._frontier is not None and self._frontier == (iteration.recorded, iteration.segment):
            self._arrived = True

    def enter(self, loop: OpenLoop) -> None:
        """A loop begins: find it in the recording and in the plan.

        Raises `SkipRest` when nothing after this place is planned, and `ChangedError` when the recording
        has another loop here.
        """
        parent = loop.parent
        if self.measured.setup is None:
            self.measured.setup = time.perf_counter() - self._began
        if parent.abandoned:
            raise SkipRest
        node = parent.recorded
        if node is None:
            return
        recorded = node.find(loop.name)
        if recorded is None:
            if self.navigating and parent.plan is not None and len(parent.plan.loops) > parent.segment:
                expected = node.loops[parent.segment].name
                if not any(known.name == loop.name for known in self.tree.loops()):
                    return  # a loop that the script did not have: it runs as it is
                raise ChangedError(
                    f"the script entered loop {loop.name!r} at {where(parent.path)}, "
                    f"where it entered {expected!r} when recorded"
                )
            return
        loop.recorded = recorded
        check(loop.name, loop.cursor.iterable if loop.cursor else None, recorded.length, recorded.data)
        if not self.navigating:
            return
        planned = parent.plan.loops if parent.plan else []
        if recorded.order >= len(planned):
            self.abandon(parent)
            raise SkipRest
        loop.plan = planned[recorded.order]

    def ended(self, loop: OpenLoop) -> bool:
        """A loop ended; whether the log does not have its end, which makes this place the frontier."""
        unfinished = self._at_frontier(loop)
        self._arrived = self._arrived or unfinished
        self.reached(loop.parent)
        return unfinished

    def _at_frontier(self, loop: OpenLoop) -> bool:
        recorded = loop.recorded
        if self._frontier is None or recorded is None or self._frontier[1] is not recorded:
            return False
        return loop.count == recorded.count

    def next_index(self, loop: OpenLoop, restore: Callable[[OpenLoop, int, Image], None]) -> int | None:
        """The iteration to run now, None at the planned end; calls ``restore`` where the plan says so."""
        index = self._planned_index(loop, restore)
        self._arrived = self._arrived or self._at_frontier(loop)
        return index

    def _planned_index(self, loop: OpenLoop, restore: Callable[[OpenLoop, int, Image], None]) -> int | None:
        plan = loop.plan
        if plan is None or not self.navigating:
            return loop.count
        if loop.parent.abandoned:
            raise SkipRest
        if loop.stretch > 0 and loop.count <= plan.stretches[loop.stretch - 1].last:
            return loop.count
        if loop.stretch < len(plan.stretches):
            stretch = plan.stretches[loop.stretch]
            loop.stretch += 1
            if stretch.restore:
                self._restore(loop, stretch.first, restore)
            loop.count = stretch.first
            return loop.count
        if plan.restore_end:
            loop.count = plan.loop.count
            self._restore(loop, loop.count, restore)
            return None
        if plan.finished:
            return loop.count
        self.abandon(loop.parent)
        raise SkipRest

    def _restore(self, loop: OpenLoop, index: int, restore: Callable[[OpenLoop, int, Image], None]) -> None:
        assert loop.recorded is not None
        self._label()
        image, started = loop.recorded.images[index], time.perf_counter()
        self._next_span(started)
        restore(loop, index, image)
        self.measured.restored(image.state_bytes, time.perf_counter() - started)
        self.restored += 1
        self._settle()
        self._base = "image"

    def _next_span(self, now: float) -> None:
        self.spans.append(now - self._span)
        self._span = now

    def abandon(self, iteration: OpenIteration) -> None:
        """Nothing that this iteration still does is planned."""
        iteration.abandoned = True

    def leaves(self, iteration: OpenIteration, file: str, line: int) -> bool:
        """Execution stands behind a statement: is that the last one planned of the iteration?

        What the iteration received is compared here, as its commit will not be reached.
        """
        loop, found = iteration.loop, None
        if loop is None or loop.recorded is None or loop.plan is None or not self.navigating:
            return False
        if iteration.plan is not None:
            if iteration.plan.left and iteration.segment == len(iteration.plan.loops):
                found = self._exits.get((iteration.plan.node, iteration.segment))
        elif loop.stretch > 0:
            stretch = loop.plan.stretches[loop.stretch - 1]
            if stretch.left and stretch.last == iteration.index:
                found = self._exits.get(loop.recorded)
        if found is None or (found.file, found.line) != (file, line):
            return False
        if (record := iteration.commit) is not None and record.data and iteration.data:
            self._compared += 1
            if record.data != iteration.data:
                self._differ(f"data differ at {where(iteration.path)}")
        if iteration.plan is None:
            self.redone += 1
            self.progress(self.redone)
        self.abandon(iteration)
        return True

    def begin(self, iteration: OpenIteration) -> None:
        """An iteration begins."""
        loop = iteration.loop
        if loop is None or loop.recorded is None:
            return
        iteration.recorded = loop.recorded.nodes.get(iteration.index)
        if loop.plan is not None:
            iteration.plan = loop.plan.nodes.get(iteration.index)
        self._expect(iteration)

    def finish(self, iteration: OpenIteration, prints: tuple[bytes, bytes, bytes]) -> None:
        """An iteration ran to its end: compare what is left to compare."""
        loop = iteration.loop
        if loop is None or loop.recorded is None or iteration.abandoned:
            return
        if not iteration.names:
            self.redone += 1
            self.progress(self.redone)
        if (record := iteration.commit) is not None:
            self._closed += 1
            names = ("random numbers", "data", "sampled parameters")
            for name, now, then in zip(names, prints, (record.rng, record.data, record.state), strict=True):
                if now and then:
                    self._compared += 1
                    if now != then:
                        self._differ(f"{name} differ at {where(iteration.path)}")
            for (_, line, name), left in (iteration.expected or {}).items():
                if left:
                    self._differ(
                        f"{name} (line {line}) was logged at {where(iteration.path)}, and is not now"
                    )
        if loop.form == "with":  # whether another iteration follows is not known until it begins
            self._arrived = self._arrived or self._at_frontier(loop)
        plan = loop.plan
        if plan is not None and self.navigating and not plan.finished and not plan.restore_end:
            last = plan.stretches[-1]
            if loop.stretch == len(plan.stretches) and iteration.index == last.last:
                self.abandon(loop.parent)

    # -- comparison --------------------------------------------------------------------------------

    def _expect(self, iteration: OpenIteration) -> None:
        expected: Expected = {}
        iteration.expected = expected
        loop, node = iteration.loop, iteration.recorded
        lsns = list(node.values) if node is not None else []
        recorded = loop.recorded if loop is not None else None
        if recorded is not None and iteration.index < recorded.count:
            lsns.append(recorded.commits[iteration.index])
        for lsn in lsns:
            entry = self.store.record(lsn)
            assert isinstance(entry.record, Commit | Values)
            if isinstance(entry.record, Commit):
                iteration.commit = entry.record
            for statement, name, value in entry.record.values:
                site = self._statements[entry.session][statement]
                expected.setdefault((site.file, site.line, name), deque()).append(encode_value(value))

    def _then(self, file: str, line: int) -> tuple[str, int] | None:
        """A source position as it was when recorded, None for code that the recording does not have."""
        if self._lines is None or file not in self._lines:
            return file, line
        recorded, lines = self._lines[file]
        return (recorded, lines[line]) if line in lines else None

    def log(self, iteration: OpenIteration, site: tuple[str, int, str], name: str, value: Any) -> None:
        """A value was logged (``site``: file, line, qualified name): compare it, or keep it as found."""
        if iteration.abandoned:
            return
        file, line, qualname = site
        then = self._then(file, line)
        if then is not None and iteration.expected is not None:
            queue = iteration.expected.get((*then, name))
            if queue:
                self._compare(iteration, line, name, queue.popleft(), value)
                return
            if self._has_name(*then, name):
                loop = iteration.loop
                if loop is not None and loop.recorded is not None and iteration.index < loop.recorded.count:
                    self._differ(f"{name} (line {line}) is logged at {where(iteration.path)}, and was not")
                return
        if not self.resuming:
            found = Found(
                file,
                line,
                qualname,
                name,
                iteration.path,
                value,
                closed=self._closed,
                segment=iteration.segment,
            )
            around = None if iteration.loop is None else _present(iteration.loop)
            found.steady = (around, file, line) not in self._unsteady
            self.found.append(found)
            self._pending.append(found)

    def _compare(self, iteration: OpenIteration, line: int, name: str, recorded: bytes, value: Any) -> None:
        self._compared += 1
        if recorded != encode_value(value):
            then, now = _short(decode_value(recorded)), _short(value)
            self._differ(f"{name} (line {line}) was {then} at {where(iteration.path)}, and is {now} now")

    def _has_name(self, file: str, line: int, name: str) -> bool:
        return any(
            statement.file == file and statement.line == line and name in statement.names
            for table in self._statements.values()
            for statement in table.values()
        )

    def arrive(self, loop: OpenLoop, index: int, trees: Callable[[Variables | None], dict[str, Any]]) -> None:
        """Execution reached a boundary: where an image stands, compare the whole state.

        ``trees`` gives the state now, with certain variables of each frame or with all.
        """
        if loop.recorded is None or (image := loop.recorded.images.get(index)) is None:
            return
        live = page_table(snapshot(trees(None)), digests_only)
        self._compared += 1
        self._closed += 1
        shared: list[str] = []
        if state_digest(live) != image.table:
            saved = SavedState(self.store, image.table)
            names = [name for name in differing(saved.table, live) if not name.startswith("/locals")]
            shared = [name for name in names if name.split(".")[0] in saved.table]
            here = where(loop.path(index))
            if self._base == "start" and shared and all(name.startswith("/rng.") for name in shared):
                # The set-up drew from an RNG that nobody seeded, or nobody drew from it: all else is equal.
                self._local = (
                    f"random numbers were not seeded alike: {', '.join(shared[:4])} differ at {here}"
                )
                shared = []
            elif shared:
                self._differ(f"state differs at {here}: {', '.join(shared[:4])}")
            elif local := _local_difference(saved, trees(_variables(saved))):
                self._local = f"variable {local} differs at {here}"
        self._label()
        # What differs here goes on differing: what follows does not start from the recorded state.
        if not shared and not self._local:
            self._settle()
        self._base = "image"

    def _differ(self, text: str) -> None:
        self.differences.append(text)
        self._difference = self._difference or text

    def _label(self) -> None:
        for found in self._pending:
            if self._difference:
                found.trust, found.detail = DIVERGED, self._difference
            elif self._base == "image":
                doubt = self._local
                if not doubt and not found.steady and found.closed == self._closed:
                    doubt = _UNSTEADY
                found.trust, found.detail = (CONSISTENT, doubt) if doubt else (PROVEN, "")
            else:
                found.trust = CONSISTENT if self._compared else UNVERIFIED
        self._pending = []

    def _settle(self) -> None:
        """Everything up to here is labelled; what follows starts from a known state."""
        self._label()
        self._difference = self._local = ""

    def end(self) -> None:
        """The run is over."""
        self._label()
        self._next_span(time.perf_counter())


_UNSTEADY = (
    "the code before it uses more than the recorded state, such as a clock or a file, and nothing that was recorded "
    "after it was reached"
)


def _present(loop: OpenLoop) -> Frame:
    code, line = loop.site
    return code.co_filename, code.co_qualname, line


def last_restore(plan: NodePlan) -> tuple[Loop, int] | None:
    """The last boundary that a plan restores."""
    for loop in reversed(plan.loops):
        if loop.restore_end:
            return loop.loop, loop.loop.count
        for stretch in reversed(loop.stretches):
            inner = [index for index in loop.nodes if stretch.first <= index <= stretch.last]
            for index in sorted(inner, reverse=True):
                if (found := last_restore(loop.nodes[index])) is not None:
                    return found
            if stretch.restore:
                return loop.loop, stretch.first
    return None


def _variables(saved: SavedState) -> Variables:
    names = (name for name in saved.names() if name.startswith("/locals"))
    return {name.removeprefix("/"): saved.tree(name).keys() for name in names}


def _local_difference(saved: SavedState, trees: dict[str, Any]) -> str:
    for name in _variables(saved):
        then, now = saved.tree(f"/{name}"), trees.get(f"/{name}", {})
        for variable in then.keys() & now.keys():
            if _differ(then[variable], now[variable]):
                return str(variable)
    return ""


def _differ(then: Any, now: Any) -> bool:
    """Whether two trees differ in a leaf: which of them share memory does not matter."""
    if isinstance(then, dict) and isinstance(now, dict):
        return then.keys() != now.keys() or any(_differ(then[key], now[key]) for key in then)
    if isinstance(then, (list, tuple)) and isinstance(now, (list, tuple)):
        return len(then) != len(now) or any(_differ(*pair) for pair in zip(then, now, strict=True))
    return bits(then) != bits(now)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."


__all__ = [
    "CONSISTENT",
    "DIVERGED",
    "PROVEN",
    "UNVERIFIED",
    "Expected",
    "Found",
    "Guide",
    "last_restore",
    "where",
]
