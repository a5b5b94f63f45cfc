"""Analysis: one forward pass over a run's records that rebuilds its tree.

This is ARIES' first pass (Mohan et al. 1992, section 6.1): it reads no pages.  ARIES' transaction table is
here the set of open iterations.  In place of its dirty page table there is the set of images, because the pages of
uncommitted iterations never leave memory (no-steal, ``specs/recovery.md``).

A run may have several recording sessions: the first, and one for each resume.  A resume re-executes the
iterations between an image and the log's end without logging them again, and then goes on where the log ends.  So
the records of the sessions simply follow one another on the timeline.
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

from florlog_recovery import costs
from florlog_recovery.tree import Image, Loop, Node, RunTree


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
    recording = [session for session in sessions if session.begin.kind != "replay"]
    builder = _Builder()
    for session in recording:
        builder.session(session.lsn, store.scan(session.lsn, session.last_lsn + 1, session=session.lsn))
    return RunTree(
        run=recording[0].begin.run,
        begin=recording[-1].begin,
        sessions=[session.lsn for session in recording],
        replays=[session.lsn for session in sessions if session.begin.kind == "replay"],
        root=builder.root,
        statements=builder.statements,
        status=builder.status or ("running" if running else "crashed"),
        failure=builder.failure,
        losers=builder.losers(),
        bytes=builder.bytes,
        last_lsn=builder.last_lsn,
        costs=builder.costs,
        sources=builder.sources,
    )


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
        self._loops: dict[int, Loop] = {}  # by LoopBegin LSN
        self._copied: dict[int, tuple[Loop, int]] = {}  # by CheckpointBegin LSN
        self._aborted: set[Path] = set()
        self._logged: dict[tuple[Node, int], tuple[int, int]] = {}  # session and LSN of a segment's Values

    def session(self, lsn: int, entries: Iterable[Entry]) -> None:
        """Take in one session."""
        self.statements[lsn] = {}
        self.status, self.failure = None, None
        for entry in entries:
            self.bytes += entry.nbytes
            self.last_lsn = entry.lsn
            self._record(lsn, entry)

    def _record(self, session: int, entry: Entry) -> None:
        record = entry.record
        match record:
            case Statement():
                self.statements[session][record.id] = record
            case LoopBegin():
                self._loop_begin(session, entry.lsn, record)
            case LoopEnd():
                loop = self._loops[record.loop]
                loop.ended, loop.left = True, record.left
            case Begin():
                self._node(self._loops[record.loop], record.index)
            case Values():
                node = self._node(self._loops[record.loop], record.index) if record.loop else self.root
                self._values(node, record.segment, session, entry.lsn)
            case Commit():
                self._commit(entry.lsn, record)
            case Abort():
                self._abort(record)
            case CheckpointBegin():
                self._copied[entry.lsn] = (self._loops[record.loop], record.index)
            case CheckpointEnd():
                self._image(record)
            case RunEnd():
                self.status, self.failure = record.status, record.failure
                if record.status == "complete":
                    self.root.committed = True
                    loops = sum(loop.before + sum(loop.seconds) for loop in self.root.loops)
                    self.root.after = max(0.0, record.seconds - loops)  # a resumed session is shorter
            case Note(kind=costs.KIND):
                self.costs.append(record.data)
            case Note(kind="source"):
                late = record.text.rpartition(" ")[2], record.data["page"]
                self.sources.setdefault(record.data["path"], late)
            case RunBegin():  # the source may have changed before a resume
                began = {path: (module, page) for path, module, page in record.sources}
                self.sources = {**began, **{p: s for p, s in self.sources.items() if p not in began}}
            case Hindsight() | Note():
                pass

    def _loop_begin(self, session: int, lsn: int, record: LoopBegin) -> None:
        parent = self._parent(record)
        loop = parent.find(record.name)
        site = self.statements[session][record.statement]
        if loop is None:
            loop = Loop(
                parent=parent,
                order=len(parent.loops),
                name=record.name,
                lsn=lsn,
                site=(site.file, site.qualname, site.line),
                stack=record.stack,
                form=record.form,
                length=record.length,
                data=record.data,
                before=record.seconds,
            )
            parent.loops.append(loop)
        else:
            loop.lsn = lsn
        self._loops[lsn] = loop

    def _parent(self, record: LoopBegin) -> Node:
        return self._node(self._loops[record.parent], record.path[-1][1]) if record.parent else self.root

    @staticmethod
    def _node(loop: Loop, index: int) -> Node:
        node = loop.nodes.get(index)
        if node is None:
            node = loop.nodes[index] = Node(loop.path(index), loop, index)
        return node

    def _values(self, node: Node, segment: int, session: int, lsn: int) -> None:
        """Add values.  A resume executes a segment that was cut off after its values again, and logs them again."""
        earlier = self._logged.get((node, segment))
        if earlier is not None and earlier[0] != session:
            node.values.remove(earlier[1])
        self._logged[node, segment] = session, lsn
        node.values.append(lsn)

    def _commit(self, lsn: int, record: Commit) -> None:
        loop = self._loops[record.loop]
        loop.commits.append(lsn)
        loop.seconds.append(record.seconds)
        node = loop.nodes.get(record.index)
        if node is not None:
            node.committed = True
            inner = sum(child.before + sum(child.seconds) for child in node.loops)
            node.after = max(0.0, record.seconds - inner)

    def _abort(self, record: Abort) -> None:
        loop = self._loops[record.loop]
        self._aborted.add(loop.path(record.index))
        if record.index == loop.count - 1:  # the exception that ended the run left the loop here
            loop.commits.pop()
            loop.seconds.pop()
            loop.ended = loop.left = False
            for index in [index for index in loop.images if index > loop.count]:
                del loop.images[index]  # a state after the loser
            if (node := loop.nodes.get(record.index)) is not None:
                node.committed = False

    def _image(self, record: CheckpointEnd) -> None:
        if (boundary := self._copied.get(record.begin)) is not None:
            loop, index = boundary
            if index > loop.count:  # of a loser: its commit was taken back while the pages were being stored
                return
            seconds = record.snapshot_seconds + record.persist_seconds
            loop.images[index] = Image(record.begin, record.table, record.state_bytes, seconds)

    def losers(self) -> list[Path]:
        """The aborted iterations: each an innermost open one, because its ancestors can be continued."""
        return sorted(self._aborted)
