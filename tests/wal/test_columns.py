"""Batches by column have the same contents as a scan."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from florlog_wal import Commit, CorruptRecord, Note, RunBegin, RunLog
from florlog_wal.codec import check, encode
from florlog_wal.columns import batch_of
from hypothesis import given, settings
from hypothesis import strategies as st

VALUES = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.lists(st.integers()))
COMMITS = st.lists(
    st.tuples(
        st.integers(0, 3),
        st.integers(0, 2**64 - 1),
        st.lists(st.tuples(st.integers(1, 2), st.text(max_size=1), VALUES)),
    ),
    max_size=8,
)  # fmt: skip
BEGIN = RunBegin("r", "r", "record", "/r.py", (), "/", {}, {}, (), 0.0, 0, 1, 0)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunLog]:
    with RunLog.open(tmp_path_factory.mktemp("columns") / "store", mode="w") as store:
        yield store


@settings(max_examples=60, deadline=None)
@given(COMMITS, st.booleans())
def test_a_batch_has_what_a_scan_has(store: RunLog, commits: list[Any], noted: bool) -> None:
    session = store.append(BEGIN)
    other = store.append(BEGIN)
    for number, (loop, index, values) in enumerate(commits):
        record = Commit(loop, index, 0, tuple(values), 0.5, b"", b"", b"", False)
        store.append(record, session=other if number % 3 == 2 else session)
    if noted:
        store.append(Note("k", "t", {}), session=session)
    entries = list(store.scan(session, session=session))
    scanned = [e for e in entries if isinstance(e.record, Commit)]
    batches = list(store.batches(session, session=session))
    assert [e for batch in batches for e in batch.others] == [e for e in entries if e not in scanned]
    found = [
        (lsn, loop, index)
        for batch in batches
        for lsn, loop, index in zip(batch.lsns, batch.loops, batch.indices, strict=True)
    ]
    assert found == [(e.lsn, e.record.loop, e.record.index) for e in scanned]
    cells = sorted(
        (batch.lsns[position], column.statement, column.name, repr(value))
        for batch in batches
        for column in batch.logged
        for position, value in zip(column.commits, column.values, strict=True)
    )
    assert cells == sorted((e.lsn, s, n, repr(v)) for e in scanned for s, n, v in e.record.values)


def test_many_batches_follow_each_other_without_a_gap(tmp_path: Path) -> None:
    with RunLog.open(tmp_path / "s", mode="w") as store:
        session = store.append(BEGIN)
        for index in range(3000):
            store.append(Commit(7, index, 0, ((1, "x", index),), 0.5, b"", b"", b"", False), session=session)
        batches = list(store.batches(5, 2900))
        assert [lsn for batch in batches for lsn in batch.lsns] == list(range(5, 2900))
        assert [v for batch in batches for c in batch.logged for v in c.values] == list(range(3, 2898))


@pytest.mark.parametrize(
    "payload",
    [
        b"\x90",
        b"\x93\x01\x02\x03",
        b"\xc0",
        b"\x99\xc3\x00\x00\x90\xcb" + b"\0" * 8 + b"\xc4\0" * 3 + b"\xc2",
    ],
)
def test_a_commit_that_nobody_could_have_written_is_named(payload: bytes) -> None:
    """Its checksum is right: it was not damaged but made wrong."""
    from florlog_wal.codec import BODY_HEADER, FORMAT_VERSION, checksum

    good = encode(Commit(1, 0, 0, (), 0.5, b"", b"", b"", False), 7, 1, 0)
    body = BODY_HEADER.pack(FORMAT_VERSION, Commit.TYPE, 0, len(payload), 1, 0) + payload
    bad = checksum(body, 8).to_bytes(8, "big") + body
    assert check(8, bad)[0] == Commit.TYPE
    with pytest.raises(CorruptRecord, match="LSN 8"):
        batch_of([(7, good), (8, bad)], None)
