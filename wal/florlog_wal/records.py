"""The record types of the log, as frozen dataclasses.

A loop iteration is a transaction.  Its *logical* redo record is what re-executing it needs (the loop,
the index, what it observed); its *physical* record is an image, the pages of the tracked state at an
iteration boundary.  Both are ARIES terms (Mohan et al., TODS 17(1), 1992); together they make the log
physiological: physical at a boundary, logical between two boundaries.

Records name each other by LSN.  ``loop`` in an iteration's records is the LSN of the `LoopBegin` of the
loop execution it belongs to, or 0 for the run itself, which is the root transaction.  The k-th *boundary*
of a loop execution lies before iteration k; a loop that ran n iterations has boundaries 0..n, and the
last is the loop's end.

An innermost iteration writes one record, its `Commit`; `Begin` is written only when something must reach
the log before the commit (an inner loop, an image, a value of an outer iteration).  The binary form is in
``specs/log-format.md``.  This module does no I/O.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

Path: TypeAlias = tuple[tuple[str, int], ...]
"""An iteration's address: ``(("epoch", 3), ("step", 17))``; ``()`` is the run itself."""

StackFrame: TypeAlias = tuple[str, str, int]
"""A stack frame as a source position: file, qualified name of the code, line."""

LoggedValues: TypeAlias = tuple[tuple[int, str, Any], ...]
"""Logged values in the order of logging: statement id, name, value."""


@dataclass(frozen=True, slots=True)
class RunBegin:
    """A session of a run starts: the recording itself, a resume of it, or a replay of it."""

    TYPE: ClassVar[int] = 1
    run: str
    name: str
    kind: str  # "record", "resume", "replay"
    script: str  # absolute path
    argv: tuple[str, ...]
    cwd: str
    params: dict[str, Any]
    environment: dict[str, Any]
    sources: tuple[tuple[str, str, bytes], ...]  # absolute path, module name, page digest of the text
    started: float  # Unix seconds
    rank: int
    world_size: int
    resumed_from: int  # LSN of the CheckpointBegin this session continues from; 0: from the start
    earlier: tuple[tuple[str, str], ...] = ()
    """The runs that the program had opened before, in order: name and id, "" for one that was not recorded.

    Of very many the first ones, and then ``("", "")``: where the run is among them is not known.
    """


@dataclass(frozen=True, slots=True)
class RunEnd:
    """A session ended by itself; a session without this record is running or crashed."""

    TYPE: ClassVar[int] = 2
    status: str  # "complete", "failed"
    seconds: float
    failure: Failure | None


@dataclass(frozen=True, slots=True)
class Failure:
    """The exception that ended a run, with its stack from the outermost stack frame inwards (not a record)."""

    exception: str
    message: str
    path: Path
    frames: tuple[tuple[str, str, int, str], ...]  # file, qualified name, line, source line


@dataclass(frozen=True, slots=True)
class Statement:
    """An entry of the statement table: a call site of ``log`` or ``loop``, written when first used."""

    TYPE: ClassVar[int] = 3
    id: int  # dense in a session, from 1
    kind: str  # "log", "loop"
    file: str
    qualname: str
    line: int
    source_hash: bytes
    loops: tuple[str, ...]  # names of the loops open when it was first used, outermost first
    names: tuple[str, ...]  # the names logged, or the loop's name


@dataclass(frozen=True, slots=True)
class LoopBegin:
    """A loop execution starts inside the iteration ``path``."""

    TYPE: ClassVar[int] = 4
    path: Path
    name: str  # unique among the loop executions of the parent iteration: "step", "step#2"
    parent: int  # LSN of the parent's LoopBegin; 0: the run
    statement: int
    form: str  # "for": run.loop; "with": run.iteration
    length: int  # -1 when unknown
    start: int  # the first index this session runs: 0, or where a resume continues
    stack: tuple[StackFrame, ...]  # call sites, from the loop's own outwards to the parent's body
    seconds: float  # the parent iteration's own time in the segment that this loop ends
    data: dict[str, Any]  # identity of the iterable


@dataclass(frozen=True, slots=True)
class LoopEnd:
    """A loop execution ended; ``left``: its body left it early (break, return, exception)."""

    TYPE: ClassVar[int] = 5
    loop: int
    count: int  # boundaries are 0..count
    left: bool


@dataclass(frozen=True, slots=True)
class Begin:
    """An iteration began; written only if another record of it must come before its Commit."""

    TYPE: ClassVar[int] = 6
    loop: int
    index: int


@dataclass(frozen=True, slots=True)
class Values:
    """Values logged by an open iteration that has inner loops; ``segment`` counts those that began before."""

    TYPE: ClassVar[int] = 7
    loop: int
    index: int
    segment: int
    values: LoggedValues


@dataclass(frozen=True, slots=True)
class Commit:
    """An iteration committed: its logical redo record."""

    TYPE: ClassVar[int] = 8
    loop: int
    index: int
    segment: int  # inner loop executions of the iteration
    values: LoggedValues
    seconds: float  # of the iteration itself, inner loops included, florlog's own work excluded
    rng: bytes  # this and the next two: fingerprints of 8 bytes each, b"" if not taken
    data: bytes
    state: bytes
    left: bool  # its body left the loop early


@dataclass(frozen=True, slots=True)
class Abort:
    """An iteration was undone: its values do not count."""

    TYPE: ClassVar[int] = 9
    loop: int
    index: int
    reason: str


@dataclass(frozen=True, slots=True)
class CheckpointBegin:
    """The state at boundary ``index`` of ``loop`` was copied; its pages are not yet stored."""

    TYPE: ClassVar[int] = 10
    loop: int
    index: int


@dataclass(frozen=True, slots=True)
class CheckpointEnd:
    """An image is complete: every page it names is durable.  Only from now on can recovery reach it."""

    TYPE: ClassVar[int] = 11
    begin: int  # LSN of the CheckpointBegin
    table: bytes  # page digest of the encoded PageTable: equal digests are equal states
    state_bytes: int
    written_bytes: int
    snapshot_seconds: float  # stall of the training thread
    persist_seconds: float


@dataclass(frozen=True, slots=True)
class Hindsight:
    """Values that a replay computed for a recorded iteration."""

    TYPE: ClassVar[int] = 12
    path: Path
    values: LoggedValues
    trust: str  # "PROVEN", "CONSISTENT", "UNVERIFIED", "DIVERGED"
    detail: str  # the first difference, for DIVERGED


@dataclass(frozen=True, slots=True)
class Note:
    """Anything else to be remembered of a run: a warning, a decision."""

    TYPE: ClassVar[int] = 13
    kind: str
    text: str
    data: dict[str, Any]


Record: TypeAlias = (
    RunBegin | RunEnd | Statement | LoopBegin | LoopEnd | Begin | Values | Commit | Abort
    | CheckpointBegin | CheckpointEnd | Hindsight | Note
)  # fmt: skip

RECORD_TYPES: dict[int, type[Record]] = {
    cls.TYPE: cls
    for cls in (
        RunBegin, RunEnd, Statement, LoopBegin, LoopEnd, Begin, Values, Commit, Abort,
        CheckpointBegin, CheckpointEnd, Hindsight, Note,
    )
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Array:
    """A dense array as a value: dtype name (``"float32"``, ``"bfloat16"``), shape, bytes."""

    dtype: str
    shape: tuple[int, ...]
    data: bytes


@dataclass(frozen=True, slots=True)
class PageEntry:
    """One tracked tensor or encoded host value: its pages, in order."""

    kind: str  # "tensor": an array of dtype and shape; "host": one encoded value
    dtype: str
    shape: tuple[int, ...]
    size: int  # bytes
    pages: tuple[bytes, ...]  # xxh3-128 digests


PageTable: TypeAlias = dict[str, PageEntry]
"""The state at a boundary: tracked name -> entry.  Encoded with sorted names: equal states, equal bytes."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A record in the log, with its place there."""

    lsn: int
    session: int  # LSN of the session's RunBegin
    prev_lsn: int  # the previous record of the same transaction, 0 for its first
    nbytes: int  # as stored, header included
    record: Record
