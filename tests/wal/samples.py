"""Records and values for tests: builders with short names, and hypothesis strategies for everything."""

from __future__ import annotations

import dataclasses
import math
import struct
from collections import deque
from typing import Any

from florlog_wal import (
    Abort,
    Array,
    Begin,
    CheckpointBegin,
    CheckpointEnd,
    Commit,
    Failure,
    Hindsight,
    LoopBegin,
    LoopEnd,
    Note,
    PageEntry,
    Record,
    RunBegin,
    RunEnd,
    Statement,
    Values,
)
from hypothesis import strategies as st


def run_begin(run: str = "r1", **changes: Any) -> RunBegin:
    earlier = (("digits", "r0"), ("unrecorded", ""))
    begin = RunBegin(
        run, "digits", "record", "/t.py", ("t.py",), "/", {"lr": 0.1}, {}, (), 1.5, 0, 1, 0, earlier
    )
    return dataclasses.replace(begin, **changes)


def commit(index: int, value: Any = 0.25, loop: int = 0) -> Commit:
    return Commit(loop, index, 0, ((1, "loss", value),), 0.05, b"r" * 8, b"d" * 8, b"s" * 8, False)


def checkpoint_end(begin: int, table: bytes) -> CheckpointEnd:
    return CheckpointEnd(begin, table, 0, 0, 0.0, 0.0)


def bounded_deque(items: list[Any], room: int) -> deque[Any]:
    return deque(items, len(items) + room)


int64 = st.integers(-(2**63), 2**64 - 1)
text = st.text(st.characters(), max_size=20) | st.just("\ud800 alone")
blobs = st.binary(max_size=40)
floats = st.floats() | st.binary(min_size=8, max_size=8).map(lambda b: struct.unpack(">d", b)[0])
arrays = st.builds(Array, text, st.lists(st.integers(0, 2**40), max_size=4).map(tuple), blobs)
hashable = st.recursive(
    st.none() | st.booleans() | st.integers() | floats | text | blobs | st.builds(complex, floats, floats),
    lambda inner: (
        st.lists(inner, max_size=4).map(tuple)
        | st.frozensets(inner.filter(lambda value: not has_nan(value)), max_size=4)
    ),
    max_leaves=8,
)
values = st.recursive(
    hashable | arrays,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(hashable.filter(lambda value: not has_nan(value)), inner, max_size=4)
        | st.sets(hashable.filter(lambda value: not has_nan(value)), max_size=4)
        | st.builds(bounded_deque, st.lists(inner, max_size=3), st.integers(0, 3))
        | st.lists(inner, max_size=3).map(deque)
    ),
    max_leaves=20,
)  # fmt: skip


def has_nan(value: Any) -> bool:
    """Whether a hashable value contains a NaN, which equals nothing, not even its own copy in a set."""
    if isinstance(value, float):
        return math.isnan(value)
    if isinstance(value, complex):
        return math.isnan(value.real) or math.isnan(value.imag)
    return isinstance(value, tuple | frozenset) and any(has_nan(item) for item in value)


def exact(value: Any) -> Any:
    """A form in which two values are equal only if they are the same in type and in every bit."""
    kind = type(value)
    if kind is float:
        return ("float", struct.pack(">d", value))
    if kind is complex:
        return ("complex", struct.pack(">dd", value.real, value.imag))
    if kind in (list, tuple):
        return (kind.__name__, [exact(item) for item in value])
    if kind is deque:
        return ("deque", value.maxlen, [exact(item) for item in value])
    if kind is dict:
        return ("dict", [(exact(key), exact(item)) for key, item in value.items()])
    if kind in (set, frozenset):
        return (kind.__name__, sorted((exact(item) for item in value), key=repr))
    if dataclasses.is_dataclass(value):
        return (kind.__name__, [exact(getattr(value, field.name)) for field in dataclasses.fields(value)])
    return (kind.__name__, value)


paths = st.lists(st.tuples(text, int64), max_size=3).map(tuple)
dicts = st.dictionaries(text, values, max_size=3)
logged = st.lists(st.tuples(int64, text, values), max_size=4).map(tuple)
texts = st.lists(text, max_size=3).map(tuple)
lines = st.lists(st.tuples(text, text, int64, text), max_size=2).map(tuple)
failures = st.none() | st.builds(Failure, text, text, paths, lines)
_BY_NAME = {
    "int": int64, "str": text, "bytes": blobs, "float": floats, "bool": st.booleans(), "Path": paths,
    "tuple[str, ...]": texts, "dict[str, Any]": dicts, "LoggedValues": logged, "Failure | None": failures,
    "tuple[StackFrame, ...]": st.lists(st.tuples(text, text, int64), max_size=2).map(tuple),
    "tuple[tuple[str, str], ...]": st.lists(st.tuples(text, text), max_size=3).map(tuple),
    "tuple[tuple[str, str, bytes], ...]": st.lists(st.tuples(text, text, blobs), max_size=2).map(tuple),
}  # fmt: skip


def records_of(cls: type[Record]) -> st.SearchStrategy[Record]:
    """Records of a type, each field by its annotation; a new kind of field must be added above."""
    return st.builds(cls, *[_BY_NAME[str(field.type)] for field in dataclasses.fields(cls)])


ALL_TYPES: tuple[type[Record], ...] = (
    RunBegin, RunEnd, Statement, LoopBegin, LoopEnd, Begin, Values, Commit, Abort, CheckpointBegin,
    CheckpointEnd, Hindsight, Note,
)  # fmt: skip
records = st.one_of([records_of(cls) for cls in ALL_TYPES])
digests = st.binary(min_size=16, max_size=16)
entries = st.builds(
    PageEntry,
    st.sampled_from(["tensor", "host"]),
    text,
    st.lists(st.integers(0, 2**40), max_size=3).map(tuple),
    st.integers(0, 2**50),
    st.lists(digests, max_size=4).map(tuple),
)
tables = st.dictionaries(text, entries, max_size=5)
