"""Analysis: one forward pass over a run's records that rebuilds its tree.

This is ARIES' first pass (Mohan et al. 1992, section 6.1): it reads no pages.  ARIES' transaction table is
here the set of open iterations.  In place of its dirty page table there is the set of images, because the pages of
uncommitted iterations never leave memory (no-steal, ``specs/recovery.md``).

A run may have several recording sessions: the first, and one for each resume.  A resume re-executes the
iterations between an image and the log's end without logging them again, and then goes on where the log ends.  So
the records of the sessions simply follow one another on the timeline.  A resume that goes back behind what the log has
says so by the index at which it continues a loop: what the loop has from there on is superseded.

Analysis takes any records that the codec can read.  One that does not fit what stands before it has no effect, and is
reported with its LSN (`RunTree.problems`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Protocol

from florlog_wal import (
    Abort,
    Begin,
    CheckpointBegin,
    CheckpointEnd,
    Commit,
    Entry,
    Failure,
    Hindsight,
    LoopBegin,
    LoopEnd,
    Note,
    Path,
    RunBegin,
    RunEnd,
    SessionInfo,
    Statement,
    Values,
)

from florlog_recovery import costs, tree
from florlog_recovery.tree import Audit, Image, Loop, Node, RunTree


class RecordSource(Protocol):
    """The part of a store that analysis needs."""

    def scan(
        self,
        start: int = ...,
        stop: int | None = ...,
        *,
        types: None = ...,
        session: int | None = ...,
        reverse: bool = ...,
    ) -> Iterable[Entry]:
        """The entries of one session, in LSN order."""


def analyse(store: RecordSource, sessions: Sequence[SessionInfo], *, running: bool = False) -> RunTree:
    """The tree of the run to which ``sessions`` (oldest first) belong.

    ``running``: a live process is still writing the newest session.
    """
    builder = _Builder()
    for session in sessions:
        builder.session(session.lsn, store.scan(session.lsn, session.last_lsn + 1, session=session.lsn))
    return RunTree(
        run=sessions[0].begin.run,
        begin=sessions[-1].begin,
        sessions=[session.lsn for session in sessions],
        root=builder.root,
        statements=builder.statements,
        status=builder.status or ("running" if running else "crashed"),
        failure=builder.failure,
        losers=builder.losers(),
        bytes=builder.bytes,
        last_lsn=builder.last_lsn,
        costs=builder.costs,
        sources=builder.sources,
        problems=builder.problems,
        forced=builder.forced,
        hooked=builder.hooked,
        audits=builder.audits,
        budget=builder.budget,
        cached=builder.cached,
        unproven=builder.unproven,
    )


_PRELIMINARY = (RunBegin, Statement, Note)
"""Records of a session that does not execute anything yet."""


class _MisplacedError(Exception):
    """A record does not fit what stands before it."""


class _Builder:
    def __init__(self) -> None:
        self.root = Node((), None, 0)
        self.statements: dict[int, dict[int, Statement]] = {}
        self.status: str | None = None
        self.failure: Failure | None = None
        self.bytes = 0
        self.last_lsn = 0
        self.costs: list[dict[str, Any]] = []
        self.sources: dict[str, tuple[str, bytes]] = {}
        self.problems: list[tuple[int, str]] = []
        self.forced: list[str] = []
        self.hooked = ""
        self.audits: list[Audit] = []
        self.budget: int | None = None
        self.cached = False
        self.unproven: list[Loop] = []
        self._loops: dict[int, Loop] = {}  # by LoopBegin LSN
        self._copied: dict[int, tuple[Loop, int]] = {}  # by CheckpointBegin LSN
        self._aborted: set[Path] = set()
        self._logged: dict[
            tuple[Node, int], tuple[int, list[int]]
        ] = {}  # session and LSNs of a segment's Values

    def session(self, lsn: int, entries: Iterable[Entry]) -> None:
        """Take in one session."""
        self.statements[lsn] = {}
        # A resume of a complete run that ended before it did anything leaves the run as it was.
        as_it_was = self.status == "complete"
        if not as_it_was:
            self.status, self.failure = None, None
        for entry in entries:
            self.bytes += entry.nbytes
            self.last_lsn = entry.lsn
            if as_it_was and isinstance(entry.record, RunEnd) and entry.record.status != "complete":
                continue
            if as_it_was and not isinstance(entry.record, _PRELIMINARY):
                self.status, self.failure, as_it_was = None, None, False
            try:
                self._record(lsn, entry)
            except _MisplacedError as error:
                self.problems.append((entry.lsn, f"{type(entry.record).__name__}: {error}"))

    def _record(self, session: int, entry: Entry) -> None:
        record = entry.record
        match record:
            case Statement():
                self.statements[session][record.id] = record
            case LoopBegin():
                self._loop_begin(session, entry.lsn, record)
            case LoopEnd():
                self._loop_end(self._loop(record.loop), record)
            case Begin():
                self._node(self._loop(record.loop), record.index)
            case Values():
                self.unproven.clear()
                node = self._node(self._loop(record.loop), record.index) if record.loop else self.root
                self._values(node, record.segment, session, entry.lsn)
            case Commit():
                if not record.left:
                    self.unproven.clear()
                self._commit(session, entry.lsn, record)
                if record.left and (left := self._loop(record.loop)) not in self.unproven:
                    self.unproven.append(left)
            case Abort():
                self._abort(record)
            case CheckpointBegin():
                self._copied[entry.lsn] = (self._loop(record.loop), record.index)
            case CheckpointEnd():
                self._image(record)
            case RunEnd():
                self.status, self.failure = record.status, record.failure
                if record.status == "complete":
                    self._executed(self.root, len(self.root.loops), session)
                    self.unproven.clear()
                    self.root.committed = True
                    loops = sum(loop.before + sum(loop.seconds) for loop in self.root.loops)
                    self.root.after = max(0.0, record.seconds - loops)  # a resumed session is shorter
            case Note(kind=costs.KIND):
                self.costs.append(record.data)
            case Note(kind=tree.FORCED):
                self.forced.append(record.text)
            case Note(kind=tree.BY_HOOKS):
                self.hooked = self.hooked or record.text
            case Note(kind=tree.AUDITED):
                self.audits.append(_audit(record))
            case Note(kind=tree.POLICY, data={"budget": int(budget)}) if 0 <= budget < 2**63:
                self.budget = budget
            case Note(kind=tree.CACHED):
                self.cached = True
            case Note(kind="source"):
                self._late_source(record)
            case RunBegin():  # the source may have changed before a resume
                began = {path: (module, page) for path, module, page in record.sources}
                self.sources = {**began, **{p: s for p, s in self.sources.items() if p not in began}}
            case Hindsight() | Note():
                pass

    def _loop(self, lsn: int) -> Loop:
        loop = self._loops.get(lsn)
        if loop is None:
            raise _MisplacedError(f"the run has no loop that begins at LSN {lsn}")
        return loop

    def _late_source(self, record: Note) -> None:
        path, page = record.data.get("path"), record.data.get("page")
        if not isinstance(path, str) or not isinstance(page, bytes):
            raise _MisplacedError("it does not name a source and its page")
        self.sources.setdefault(path, (record.text.rpartition(" ")[2], page))

    def _loop_begin(self, session: int, lsn: int, record: LoopBegin) -> None:
        parent = self._parent(record)
        statement = self.statements[session].get(record.statement)
        if statement is None:
            raise _MisplacedError(f"the session has no statement {record.statement}")
        loop = parent.find(record.name)
        if loop is None:
            loop = Loop(
                parent=parent,
                order=len(parent.loops),
                name=record.name,
                lsn=lsn,
                site=(statement.file, statement.qualname, statement.line),
                stack=record.stack,
                form=record.form,
                length=record.length,
                data=record.data,
                before=record.seconds,
            )
            parent.loops.append(loop)
            self.unproven.clear()
            self._executed(parent, loop.order, session)
        else:
            loop.lsn = lsn
            if loop in self.unproven:
                self.unproven.remove(loop)
            again = loop.ended or record.start < loop.count
            if again:
                self._undo_behind(loop)
            loop.reopen(max(0, record.start))
            inside = loop.nodes.get(loop.count)
            if again and inside is not None and inside.loops:
                inside.loops[-1].take_back()
            self._aborted.discard(loop.path(loop.count))
        self._loops[lsn] = loop

    def _loop_end(self, loop: Loop, record: LoopEnd) -> None:
        if record.count != loop.count:
            raise _MisplacedError(f"its loop has {loop.count} iterations and not {record.count}")
        loop.ended, loop.left = True, record.left
        loop.cut = record.left and loop.path(loop.count) in self._aborted
        if loop.cut:
            # The boundary is the loop's end now, and no longer the one before the iteration that was cut off.
            loop.images.pop(loop.count, None)
        elif record.left and loop not in self.unproven:
            self.unproven.append(loop)

    def _parent(self, record: LoopBegin) -> Node:
        node = self.root
        if record.parent:
            if not record.path:
                raise _MisplacedError("it has a parent and no path")
            node = self._node(self._loop(record.parent), record.path[-1][1])
        if node.path != record.path:
            raise _MisplacedError("its path is not that of its parent")
        return node

    @staticmethod
    def _node(loop: Loop, index: int) -> Node:
        node = loop.nodes.get(index)
        if node is None:
            node = loop.nodes[index] = Node(loop.path(index), loop, index)
        return node

    def _values(self, node: Node, segment: int, session: int, lsn: int) -> None:
        """Add values.  A resume executes a segment that was cut off after its values again, and logs them again."""
        self._executed(node, segment, session)
        self._logged.setdefault((node, segment), (session, []))[1].append(lsn)
        node.values.append(lsn)

    def _undo_behind(self, loop: Loop) -> None:
        """A loop that had ended goes on: what was logged behind it, and behind the loops around it, does not count."""
        around: Loop | None = loop
        while around is not None:
            node = around.parent
            for other, segment in list(self._logged):
                if other is node and segment > around.order:
                    self._forget(node, segment)
            around = node.loop

    def _executed(self, node: Node, segment: int, session: int) -> None:
        """A session has executed a segment: what an earlier one logged in it does not count."""
        earlier = self._logged.get((node, segment))
        if earlier is not None and earlier[0] != session:
            self._forget(node, segment)

    def _forget(self, node: Node, segment: int) -> None:
        """What was logged in a segment does not count."""
        _, lsns = self._logged.pop((node, segment))
        node.values = [lsn for lsn in node.values if lsn not in lsns]

    def _commit(self, session: int, lsn: int, record: Commit) -> None:
        loop = self._loop(record.loop)
        if record.index != loop.count:
            raise _MisplacedError(f"iteration {record.index} of a loop that has {loop.count}")
        self._aborted.discard(loop.path(record.index))
        loop.commits.append(lsn)
        loop.seconds.append(record.seconds)
        node = loop.nodes.get(record.index)
        if node is not None:
            self._executed(node, record.segment, session)
            node.committed = True
            inner = sum(child.before + sum(child.seconds) for child in node.loops)
            node.after = max(0.0, record.seconds - inner)

    def _abort(self, record: Abort) -> None:
        loop = self._loop(record.loop)
        self._aborted.add(loop.path(record.index))
        if record.index == loop.count - 1:  # the exception that ended the run left the loop here
            loop.reopen(record.index)
            if loop in self.unproven:
                self.unproven.remove(loop)

    def _image(self, record: CheckpointEnd) -> None:
        if (boundary := self._copied.get(record.begin)) is not None:
            loop, index = boundary
            # Of a loser: its commit was taken back, or it was cut off, while the pages were being stored.
            if not 0 <= index <= loop.count or (loop.cut and index == loop.count):
                return
            seconds = record.snapshot_seconds + record.persist_seconds
            loop.images[index] = Image(record.begin, record.table, record.state_bytes, seconds)

    def losers(self) -> list[Path]:
        """The aborted iterations: each an innermost open one, because its ancestors can be continued."""
        return sorted(self._aborted)


def _audit(record: Note) -> Audit:
    match record.data:
        case {"outcome": tree.EQUAL | tree.DIFFERENT | tree.NOT_POSSIBLE as outcome, "reached": [*steps]}:
            reached = tuple(
                (step[0], step[1])
                for step in steps
                if isinstance(step, list | tuple) and [*map(type, step)] == [str, int]
            )
            if len(reached) == len(steps):
                return Audit(reached, outcome, record.text)
    raise _MisplacedError("it does not say what came of an audit")
