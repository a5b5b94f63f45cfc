"""The code does what the specification says: the examples of specs/log-format.md against the code."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest
import xxhash
from florlog_wal import (
    RECORD_TYPES,
    Commit,
    PageEntry,
    RunLog,
    decode_table,
    decode_value,
    encode_table,
    encode_value,
    page_digest,
)
from florlog_wal.codec import decode, encode
from florlog_wal.directory import seal
from florlog_wal.sessions import Summary
from florlog_wal.tail import FIRST_FRAME_AT, SEGMENT_BYTES, frame_size

from tests.wal.samples import commit, run_begin

SPEC = Path(__file__).parents[2] / "specs" / "log-format.md"


def example(name: str) -> bytes:
    """The bytes of a hex block: of each line the bytes before the comment."""
    block = re.search(rf"```hex {name}\n(.*?)```", SPEC.read_text("utf-8"), re.DOTALL)
    assert block is not None
    lines = [re.match(r" *((?:[0-9a-f]{2} )*[0-9a-f]{2})(?: |$)", line) for line in block[1].splitlines()]
    assert all(lines)
    return bytes.fromhex("".join(line[1] for line in lines if line))


def test_the_example_record_is_what_is_written_and_read() -> None:
    record = Commit(2, 17, 0, ((1, "loss", 0.25),), 0.05, b"", b"", b"", False)
    assert encode(record, 4660, 1, 2) == example("record")
    entry = decode(4660, example("record"))
    assert (entry.record, entry.session, entry.prev_lsn) == (record, 1, 2)


def test_the_example_value_is_what_is_written_and_read() -> None:
    assert encode_value({"a": (1, 2.5)}) == example("value")
    assert decode_value(example("value")) == {"a": (1, 2.5)}


def test_the_example_page_table_is_what_is_written_and_read() -> None:
    table = {"w": PageEntry("tensor", "float32", (2, 3), 24, (page_digest(b"x" * 24),))}
    assert encode_table(table) == example("table")
    assert decode_table(example("table")) == table


def test_the_example_summary_row_is_what_is_written_and_read() -> None:
    summary = Summary(7, 300, {1: 1, 8: 6})
    assert summary.encode(1) == example("summary")
    assert Summary.decode(1, example("summary")) == summary


def test_the_table_of_record_types_is_complete() -> None:
    rows = re.findall(r"^\| (\d+) \| ([A-Z]\w+) \| (\d+) \|$", SPEC.read_text("utf-8"), re.MULTILINE)
    assert [(int(number), name, int(fields)) for number, name, fields in rows] == [
        (number, cls.__name__, len(dataclasses.fields(cls))) for number, cls in RECORD_TYPES.items()
    ]


def test_the_tail_is_laid_out_as_written(tmp_path: Path) -> None:
    with RunLog.open(tmp_path / "s", mode="w", window=3600) as store:
        store.append(run_begin())
        store.append(commit(0), session=1)
        first, second = (encode(run_begin(), 1, 0, 0), encode(commit(0), 2, 1, 0))
        data = (tmp_path / "s" / "tail.0").read_bytes()
    assert len(data) == SEGMENT_BYTES
    assert data[:FIRST_FRAME_AT] == b"FLORTAIL" + bytes([0, 0, 0, 2]) + bytes(12) + seal(data[:24])
    at = FIRST_FRAME_AT
    for lsn, record in ((1, first), (2, second)):
        assert data[at : at + 8 + len(record)] == lsn.to_bytes(8, "big") + record
        at += frame_size(len(record))


def test_the_small_files_read_as_written(tmp_path: Path) -> None:
    with RunLog.open(tmp_path / "s", mode="w") as store:
        store.append(run_begin())
    assert (tmp_path / "s" / "FLORLOG").read_text() == "florlog run\nformat 4\nengine lmdb-0.9\n"
    assert re.fullmatch(r"1\n[0-9a-f]{16}\n", (tmp_path / "s" / "end").read_text())
    assert sorted(entry.name for entry in (tmp_path / "s").iterdir()) == [
        "FLORLOG",
        "end",
        "lock",
        "log",
        "pages",
    ]


@pytest.mark.parametrize("lsn", [1, 255, 256, 2**63 - 1])
def test_the_checksum_is_as_the_table_says(lsn: int) -> None:
    data = encode(commit(1), lsn, 1, 0)
    expected = xxhash.xxh3_64_intdigest(data[8:]) ^ (lsn * 0x9E3779B97F4A7C15 % 2**64)
    assert int.from_bytes(data[:8], "big") == expected
