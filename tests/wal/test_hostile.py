"""A store that somebody made to do harm: what it says is checked before it is believed."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path

import msgpack
import pytest
from florlog_wal import (
    CorruptPage,
    CorruptRecord,
    CorruptStore,
    CorruptValue,
    NotAStore,
    RunLog,
    WalError,
    btree,
    codec,
    decode_table,
    decode_value,
    deltas,
    directory,
    tail,
    verify,
)
from florlog_wal.records import Commit
from florlog_wal.values import EXT_ARRAY, EXT_INT, EXT_LIST

from .samples import commit, run_begin

MAX_FACTOR = 300
"""Bytes of memory for each byte that a decoder is given."""
FIXED_BYTES = 8 << 20
"""What a decoder may take in addition: a buffer for each of 100 levels."""


def made(path: Path, records: int = 40) -> Path:
    with RunLog.open(path, mode="w") as store:
        session = store.append(run_begin())
        for _ in range(records):
            store.append(commit(session), session=session)
        store.put_pages([b"page" * 100])
    return path


# -- names that lead elsewhere ------------------------------------------------------------------------

NAMES = sorted({*directory._FILES, directory.LOG, directory.PAGES})


def kept(path: Path) -> tuple[object, ...]:
    """What must not change: all but the time at which it was read."""
    found = path.stat()
    content = None if path.is_dir() else path.read_bytes()
    return found.st_ino, found.st_mode, found.st_size, found.st_mtime_ns, content


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("mode", ["r", "w"])
def test_a_link_in_a_store_is_not_followed(tmp_path: Path, name: str, mode: str) -> None:
    path = made(tmp_path / "store")
    victim = tmp_path / "victim"
    place = path / name
    if place.is_dir():
        place.rename(victim)
    else:
        victim.write_bytes(place.read_bytes() if place.exists() else b"the user's")
        place.unlink(missing_ok=True)
    place.symlink_to(victim)
    before = kept(victim)
    with pytest.raises(NotAStore, match="is no plain"):
        RunLog.open(path, mode=mode)  # type: ignore[call-overload]
    assert kept(victim) == before
    place.unlink()
    place.symlink_to(tmp_path / "nothing")
    with pytest.raises(NotAStore, match="is no plain"):
        RunLog.open(path, mode=mode)  # type: ignore[call-overload]
    assert not (tmp_path / "nothing").exists()


@pytest.mark.parametrize("name", sorted(directory._FILES))
def test_a_pipe_in_a_store_is_not_waited_for(tmp_path: Path, name: str) -> None:
    path = made(tmp_path / "store")
    (path / name).unlink(missing_ok=True)
    os.mkfifo(path / name)
    with pytest.raises(NotAStore):
        RunLog.open(path)


def test_small_files_are_small_whatever_they_have(tmp_path: Path) -> None:
    path = made(tmp_path / "store")
    manifest = (path / "FLORLOG").read_bytes()
    with (path / "FLORLOG").open("ab") as file:
        file.truncate(1 << 40)
    with pytest.raises(WalError):
        RunLog.open(path)
    (path / "FLORLOG").write_bytes(manifest)
    for number in (b"9" * 5000, b"9" * 21, b"-1", b"1e3", b"", b"\xff"):
        text = number + b"\n"
        (path / "end").write_bytes(text + directory.seal(text).hex().encode() + b"\n")
        with pytest.raises(CorruptStore):
            directory.read_end(path)
        with RunLog.open(path) as store:
            assert len(list(store.scan())) == 41


# -- trees whose branches lead to the same pages ------------------------------------------------------


def with_thick_tree(path: Path, name: str, depth: int = 6, width: int = 100) -> None:
    """Let a named tree have branch pages each of whose children is the one next page."""
    data = path / "log" / "data.mdb"
    raw = bytearray(data.read_bytes())
    size = btree._DB.unpack_from(raw, btree._META.size)[0]
    with data.open("rb") as file:
        snapshot = btree.Snapshot(file.fileno(), None)
        old = snapshot.tree(name)
        row = snapshot._lookup(snapshot.meta.main, name.encode())
    assert row is not None
    assert old.depth == 1
    first = len(raw) // size
    for level in range(depth):
        child = old.root if level == depth - 1 else first + level + 1
        page = bytearray(size)
        nodes = b"".join(
            struct.pack("<HHHH", child & 0xFFFF, child >> 16 & 0xFFFF, child >> 32, 8)
            + number.to_bytes(8, "big")
            for number in range(width)
        )
        upper = size - len(nodes)
        page[upper:] = nodes
        btree.PAGE.pack_into(page, 0, first + level, 0, btree.BRANCH, btree.PAGE.size + 2 * width, upper)
        struct.pack_into(f"<{width}H", page, btree.PAGE.size, *(upper + 16 * i for i in range(width)))
        raw += page
    new = bytearray(row)
    struct.pack_into("<H", new, 6, depth + 1)
    struct.pack_into("<Q", new, 40, first)
    assert raw.count(row) >= 1
    raw = bytearray(bytes(raw).replace(row, bytes(new)))
    for meta in (0, size):
        struct.pack_into("<Q", raw, meta + btree._META.size + 2 * btree._DB.size, len(raw) // size - 1)
    data.write_bytes(raw)


@pytest.mark.parametrize("use", ["sessions", "verify", "write"])
def test_a_tree_with_more_leaves_than_pages_is_damage(tmp_path: Path, use: str) -> None:
    path = made(tmp_path / "store")
    with_thick_tree(path, "sessions")
    with pytest.raises(WalError):  # noqa: PT012
        if use == "write":
            RunLog.open(path, mode="w")
        with RunLog.open(path) as store:
            if use == "verify":
                found = verify(path)
                assert found.problems
                raise CorruptStore(str(path), "as expected")
            store.sessions()


# -- values, records and page tables ------------------------------------------------------------------


def bounded(decode: Callable[[bytes], object], data: bytes) -> None:
    """Decode what must be refused, within memory in proportion to the data."""
    tracemalloc.start()
    try:
        with pytest.raises((CorruptValue, CorruptRecord, deltas.NotADelta)):
            decode(data)
        assert tracemalloc.get_traced_memory()[1] < MAX_FACTOR * len(data) + FIXED_BYTES
    finally:
        tracemalloc.stop()


def ext(code: int, payload: bytes) -> bytes:
    return bytes(msgpack.packb(msgpack.ExtType(code, payload)))


def nested(levels: int) -> bytes:
    data = b""
    for _ in range(levels):
        data = ext(EXT_LIST, data)
    return data


VALUES = {
    "an array of 2**32 items": b"\xdd\xff\xff\xff\xff",
    "a map of 2**32 items": b"\xdf\xff\xff\xff\xff",
    "text of 4 GB": b"\xdb\xff\xff\xff\xff",
    "bytes of 4 GB": b"\xc6\xff\xff\xff\xff",
    "an extension of 4 GB": b"\xc9\xff\xff\xff\xff\x02",
    "arrays in arrays": b"\xdd\x00\x01\x00\x00" * 5000,
    "lists in lists": nested(200),
    "lists in lists, 3000 deep": nested(3000),
    "a long integer that is short": ext(EXT_INT, b"\x01"),
    "an array without fields": ext(EXT_ARRAY, b""),
    "an array of a negative shape": ext(EXT_ARRAY, b"\xa1f\xc4\x00\xff"),
    "a list whose item says 4 GB": ext(EXT_LIST, b"\xc6\xff\xff\xff\xff"),
    "cut off": ext(EXT_LIST, b"\x01" * 100)[:50],
}


@pytest.mark.parametrize("name", VALUES)
def test_a_value_is_refused_before_memory_is_taken(name: str) -> None:
    bounded(decode_value, VALUES[name])


@pytest.mark.parametrize("name", VALUES)
def test_a_record_is_refused_before_memory_is_taken(name: str) -> None:
    def decode(payload: bytes) -> object:
        body = codec.BODY_HEADER.pack(1, Commit.TYPE, 0, len(payload), 1, 0) + payload
        return codec.decode(7, codec.checksum(body, 7).to_bytes(8, "big") + body)

    bounded(decode, VALUES[name])


TABLES = {
    "a shape of 2**63 lengths": [1, "w", "tensor", "float32", 2**63],
    "a shape of -1 lengths": [1, "w", "tensor", "float32", -1, 0, b""],
    "a size of 2**64": [1, "w", "tensor", "float32", 1, 2**64 - 1, 2**64 - 1, b"x"],
    "a negative size": [1, "w", "tensor", "float32", 1, 4, -1, b""],
    "digests cut off": [1, "w", "tensor", "float32", 1, 4, 16, b"d" * 17],
    "names out of order": [1, "w", "host", "", 0, 0, b"", "a", "host", "", 0, 0, b""],
    "a name twice": [1, "w", "host", "", 0, 0, b"", "w", "host", "", 0, 0, b""],
    "a kind that is none": [1, "w", "code", "", 0, 0, b""],
    "another version": [2],
    "nothing": [],
}


@pytest.mark.parametrize("name", TABLES)
def test_a_page_table_is_refused_before_memory_is_taken(name: str) -> None:
    bounded(decode_table, b"".join(map(msgpack.packb, TABLES[name])))


def test_a_page_table_with_absurd_counts_is_refused() -> None:
    for head in (
        b"\xdd\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
        b"\xdb\xff\xff\xff\xff",
        b"\xc9\xff\xff\xff\xff\x01",
    ):
        bounded(decode_table, b"\x01" + head)


# -- differences --------------------------------------------------------------------------------------

LENGTH = 4096


def difference(
    codec_number: int, body: bytes, *, itemsize: int = 1, depth: int = 1, length: int = LENGTH
) -> bytes:
    return deltas.HEADER.pack(codec_number, itemsize, depth, length, b"b" * 16) + body


def bomb() -> bytes:
    return zlib.compress(bytes(100 << 20), 9)


def zstd_bomb() -> bytes:
    return bytes(deltas.zstandard.ZstdCompressor().compress(bytes(100 << 20)))


DIFFERENCES: dict[str, Callable[[], bytes]] = {
    "a length of 4 GB": lambda: difference(deltas.ZLIB, b"", length=2**32 - 1),
    "too little": lambda: difference(deltas.ZLIB, zlib.compress(b"x")),
    "items of no bytes": lambda: difference(deltas.ZLIB, bomb(), itemsize=0),
    "items that do not fill it": lambda: difference(deltas.ZLIB, bomb(), itemsize=7),
    "an unknown codec": lambda: difference(99, b""),
    "rows of 4 GB": lambda: difference(deltas.ROWS, deltas.ROWS_HEAD.pack(2**32 - 1, 0, 1)),
    "2**32 rows": lambda: difference(deltas.ROWS, deltas.ROWS_HEAD.pack(8, 0, 2**32 - 1)),
    "a row beyond the page": lambda: difference(deltas.ROWS, deltas.ROWS_HEAD.pack(8, 0, 1) + b"\xff" * 12),
    "rows out of order": lambda: difference(
        deltas.ROWS, deltas.ROWS_HEAD.pack(8, 0, 2) + b"\0\0\0\2\0\0\0\1" + bytes(16)
    ),
    "rows of no bytes": lambda: difference(deltas.ROWS, deltas.ROWS_HEAD.pack(0, 0, 5) + bytes(20)),
    "no head of its rows": lambda: difference(deltas.ROWS, b"x"),
}


@pytest.mark.parametrize("name", DIFFERENCES)
def test_a_difference_is_refused_before_memory_is_taken(name: str) -> None:
    bounded(lambda data: deltas.apply(data, bytearray(LENGTH)), DIFFERENCES[name]())


@pytest.mark.parametrize("kind", ["zlib", "zstd"])
def test_no_more_is_decompressed_than_the_page_has(kind: str) -> None:
    if kind == "zstd" and deltas.zstandard is None:
        pytest.skip("needs zstandard")
    data = difference(*((deltas.ZLIB, bomb()) if kind == "zlib" else (deltas.ZSTD, zstd_bomb())))
    tracemalloc.start()
    try:
        deltas.apply(data, bytearray(LENGTH))
        assert tracemalloc.get_traced_memory()[1] < len(data) + (1 << 20)
    finally:
        tracemalloc.stop()


def test_a_difference_from_itself_or_from_a_chain_that_does_not_end_is_refused(tmp_path: Path) -> None:
    path = made(tmp_path / "store")
    with RunLog.open(path, mode="w") as store:
        env = store._pages
        one, two = b"1" * 16, b"2" * 16

        def head(depth: int, base: bytes) -> bytes:
            return deltas.HEADER.pack(deltas.ZLIB, 1, depth, 4, base)

        def put(items: dict[bytes, bytes]) -> None:
            env.write(lambda txn: [txn.put(key, data, db=env.dbs["deltas"]) for key, data in items.items()])

        for items in (
            {one: head(1, one)},
            {one: head(2, two), two: head(2, one)},
            {one: head(6, two), two: head(5, one)},
            {one: head(255, two)},
            {one: head(0, two)},
            {one: b"short"},
            {one: head(1, b"3" * 16), two: b""},
        ):
            put(items)
            with pytest.raises(CorruptPage):
                store.get_page(one)


# -- the tail -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [0, 1, 2**31 - 1, 2**32 - 1])
def test_a_frame_of_the_tail_that_lies_about_its_length_ends_it(tmp_path: Path, length: int) -> None:
    path = made(tmp_path / "store")
    frame = struct.pack(">Q", 42) + codec.HEADER.pack(0, 1, 8, 0, length, 1, 0)
    (path / "tail.0").write_bytes(tail.MAGIC + bytes(16) + frame + bytes(100))
    with RunLog.open(path) as store:
        assert len(list(store.scan())) == 41


@pytest.mark.parametrize("floor", [42, 2**62, 2**64 - 1])
def test_a_floor_that_the_log_never_reached_is_reported(tmp_path: Path, floor: int) -> None:
    path = made(tmp_path / "store")
    (path / "tail.0").write_bytes(tail.MAGIC + tail._floor(floor) + bytes(100))
    with RunLog.open(path) as store, pytest.raises(CorruptRecord):
        store.sessions()
    with RunLog.open(path) as store, pytest.raises(CorruptRecord):
        list(store.scan())


def test_what_is_read_fits_into_little_memory(tmp_path: Path) -> None:
    """What a record and a value of 1 MB declare is not taken from the system."""
    payload = b"\xdd\x00\x0f\x00\x00" * 400 + bytes(1 << 20)
    body = codec.BODY_HEADER.pack(1, Commit.TYPE, 0, len(payload), 1, 0) + payload
    (tmp_path / "record").write_bytes(codec.checksum(body, 7).to_bytes(8, "big") + body)
    (tmp_path / "value").write_bytes(nested(90) + b"x" * (1 << 20))
    code = (
        "import resource, sys; from pathlib import Path; from florlog_wal import WalError, codec, decode_value\n"
        "here = int(Path('/proc/self/statm').read_text().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (here + (12 << 30), here + (12 << 30)))\n"
        "for decode, name in ((lambda d: codec.decode(7, d), 'record'), (decode_value, 'value')):\n"
        "    try: decode(Path(sys.argv[1], name).read_bytes())\n"
        "    except WalError as error: print(type(error).__name__)\n"
        "peak = Path('/proc/self/status').read_text().partition('VmHWM:')[2].split()[0]\n"
        "print(int(peak) < 300 << 10)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert not done.stderr
    assert done.stdout.split() == ["CorruptRecord", "CorruptValue", "True"]
