"""Entries read as a whole are what page by page gives, or raise the same."""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from florlog_wal import (
    PAGE_SIZE,
    CorruptPage,
    CorruptValue,
    Lineage,
    MissingPage,
    PageEntry,
    ReusedMemory,
    RunLog,
    WalError,
    bulk,
    entry_bytes,
    gc,
    segments,
)
from florlog_wal.segments import BLOCK_BYTES, MIN_PAGE_BYTES
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.wal.samples import run_begin

ZEROS = "zeros"
NOISE = "noise"
CHANGED = "changed"  # a little, from the entry before it


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store"


def put(store: RunLog, data: bytes, lineage: Lineage | None = None) -> PageEntry:
    """An entry with the pages of some bytes."""
    views = [data[at : at + PAGE_SIZE] for at in range(0, len(data), PAGE_SIZE)]
    digests = store.put_pages(views, lineages=[lineage] * len(views)).digests
    return PageEntry("tensor", "uint8", (len(data),), len(data), tuple(digests))


def result(read: Callable[[], Any]) -> Any:
    try:
        return read()
    except WalError as error:
        return type(error), str(error)


def check(store: RunLog, entries: Sequence[PageEntry]) -> None:
    """Entries together and each alone are what they are page by page."""
    expected = [result(lambda one=one: bytes(entry_bytes(store.get_page, one))) for one in entries]
    for entry, wanted in zip(entries, expected, strict=True):
        assert result(lambda entry=entry: bytes(store.read_entries([entry])[0])) == wanted
    wanted = next((wanted for wanted in expected if isinstance(wanted, tuple)), expected)
    assert result(lambda: list(map(bytes, store.read_entries(entries)))) == wanted
    memory = ReusedMemory()
    for _ in range(2):  # into memory that had the same entries in another order
        assert result(lambda: list(map(bytes, store.begin_reading(entries, memory).result()))) == wanted
        result(lambda: store.begin_reading(entries[::-1], memory).result())


sizes = st.one_of(
    st.integers(0, 3 * PAGE_SIZE),
    st.sampled_from([MIN_PAGE_BYTES - 1, MIN_PAGE_BYTES, PAGE_SIZE, 5 * PAGE_SIZE, 2 * PAGE_SIZE + 1]),
)
damages = st.tuples(st.sampled_from(["flip", "cut", "gone", "hole"]), st.integers(0, 2**32))


@settings(deadline=None, max_examples=25)
@given(
    writers=st.lists(
        st.lists(st.tuples(sizes, st.sampled_from([ZEROS, NOISE, CHANGED])), min_size=1, max_size=6),
        min_size=1,
        max_size=3,
    ),
    damage=st.lists(damages, max_size=3),
    collected=st.sampled_from(["before", "between", "never"]),
    limits=st.sampled_from([(8 << 20, 32 << 20), (3 * BLOCK_BYTES, 1), (PAGE_SIZE, PAGE_SIZE)]),
    seed=st.integers(0, 999),
)
def test_entries_are_what_their_pages_are(
    tmp_path_factory: pytest.TempPathFactory,
    writers: list[list[tuple[int, str]]],
    damage: list[tuple[str, int]],
    collected: str,
    limits: tuple[int, int],
    seed: int,
) -> None:
    path = tmp_path_factory.mktemp("bulk") / "store"
    generator = random.Random(seed)
    entries: list[PageEntry] = []
    for writer in writers:
        with RunLog.open(path, mode="w") as store:
            store.append(run_begin())
            before, lineage = b"", Lineage(itemsize=4, row=64)
            for size, kind in writer:
                data = bytearray(size) if kind == ZEROS else bytearray(generator.randbytes(size))
                if kind == CHANGED and before:
                    data = bytearray(before)
                    data[len(data) // 2] ^= 1
                else:
                    lineage = Lineage(itemsize=4, row=64)
                entries.append(put(store, bytes(data), lineage))
                before = bytes(data)
    if collected == "before":
        gc(path)  # no record names a page
        with RunLog.open(path, mode="w") as store:
            put(store, generator.randbytes(PAGE_SIZE))
    generator.shuffle(entries)
    with pytest.MonkeyPatch.context() as patched, RunLog.open(path) as store:
        patched.setattr(bulk, "READ_BYTES", limits[0])
        patched.setattr(bulk, "_BATCH_BYTES", limits[1])
        for kind, where in damage:
            harm(path, kind, where)
        check(store, entries)
        if collected == "between" and not damage:
            gc(path)
            check(store, entries)


def harm(path: Path, kind: str, where: int) -> None:
    files = [file for file in sorted((path / "segments").glob("*")) if file.stat().st_size]
    if not files:
        return
    file = files[where % len(files)]
    at = where % file.stat().st_size
    if kind == "gone":
        file.unlink()
    elif kind == "cut":
        os.truncate(file, at)
    else:
        with file.open("r+b") as held:
            held.seek(at)
            old = held.read(1 if kind == "flip" else BLOCK_BYTES)
            held.seek(at)
            held.write(bytes([old[0] ^ 1]) if kind == "flip" else bytes(len(old)))


def test_each_entry_has_memory_of_its_own(path: Path) -> None:
    data = os.urandom(2 * PAGE_SIZE + 5)
    with RunLog.open(path, mode="w") as store:
        store.append(run_begin())
        entry = put(store, data)
        one, other = store.read_entries([entry, entry])
    one[:] = bytes(len(data))
    assert other == data


@pytest.mark.parametrize(
    "pages",
    [
        [PAGE_SIZE - 16] * 4 + [100],
        [PAGE_SIZE, 1000, PAGE_SIZE],
        [100, PAGE_SIZE],
        [3 * PAGE_SIZE],
        [MIN_PAGE_BYTES + 1] * 3,
    ],
)
def test_entries_of_pages_of_any_size_are_read(path: Path, pages: list[int]) -> None:
    data = [os.urandom(size) for size in pages]
    with RunLog.open(path, mode="w") as store:
        digests = tuple(store.put_pages(data).digests)
        whole = b"".join(data)
        (read,) = store.read_entries([PageEntry("tensor", "uint8", (1,), len(whole), digests)])
        assert read == whole


def test_an_entry_that_lies_about_its_size_is_refused_before_memory_is_taken(path: Path) -> None:
    with RunLog.open(path, mode="w") as store:
        entry, small = put(store, os.urandom(PAGE_SIZE)), put(store, os.urandom(1000))
        for size, digests in (
            (999, small.pages),
            (1001, small.pages),
            (0, entry.pages),
            (PAGE_SIZE - 1, entry.pages),
            (PAGE_SIZE + 1, entry.pages),
            (2**62, entry.pages),
            (2**62, ()),
            (1, ()),
        ):
            with pytest.raises(CorruptValue):
                store.read_entries([PageEntry("tensor", "uint8", (1,), size, digests)])
        with pytest.raises(MissingPage):
            store.read_entries(
                [PageEntry("tensor", "uint8", (1,), 2**36, (bytes(16),) * (2**36 // PAGE_SIZE))]
            )


def test_the_first_bad_page_in_order_is_named(path: Path) -> None:
    with RunLog.open(path, mode="w") as store:
        entries = [put(store, os.urandom(2 * PAGE_SIZE)) for _ in range(20)]
    with (path / "segments" / "00000001").open("r+b") as file:
        for page in (33, 14, 9):
            file.seek(page * PAGE_SIZE)
            file.write(b"other")
    with RunLog.open(path) as store:
        with pytest.raises(CorruptPage, match=entries[4].pages[1].hex()):
            store.read_entries(entries)
        with pytest.raises(CorruptPage, match=entries[16].pages[1].hex()):
            store.read_entries(entries[::-1])
        assert len(store.read_entries(entries[:4] + entries[5:7])) == 6


def test_a_page_that_was_moved_while_it_was_read_is_found(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = os.urandom(3 * PAGE_SIZE)
    with RunLog.open(path, mode="w") as store:
        store.append(run_begin())
        entry = put(store, data)
    look_up = bulk._look_up

    def then_moved(*given: Any) -> Any:
        found = look_up(*given)
        gc(path)
        with RunLog.open(path, mode="w") as store:
            put(store, data[:PAGE_SIZE])
            put(store, data)
        return found

    with RunLog.open(path) as store, monkeypatch.context() as patched:
        patched.setattr(bulk, "_look_up", then_moved)
        assert store.read_entries([entry])[0] == data
    gc(path)
    with RunLog.open(path) as store, pytest.raises(MissingPage):
        store.read_entries([entry])


@pytest.mark.parametrize("at", ["open", "read"])
def test_without_direct_reads_pages_are_read_through_the_page_cache(
    path: Path, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    opened, read = os.open, os.preadv
    direct: set[int] = set()
    cached: list[int] = []

    def opening(name: object, how: int, *rest: object, **options: object) -> int:
        if at == "open" and how & os.O_DIRECT:
            raise OSError(errno.EINVAL, "invalid argument")
        fd: int = opened(name, how, *rest, **options)  # type: ignore[arg-type]
        (direct.add if how & os.O_DIRECT else direct.discard)(fd)
        return fd

    def reading(fd: int, parts: list[memoryview], at: int) -> int:
        if fd in direct:
            raise OSError(errno.EINVAL, "invalid argument")
        cached.append(at)
        return read(fd, parts, at)

    data = os.urandom(3 * PAGE_SIZE + 5000)
    with RunLog.open(path, mode="w") as store:
        store.append(run_begin())
        entry = put(store, data)
        monkeypatch.setattr(os, "open", opening)
        monkeypatch.setattr(os, "preadv", reading)
        monkeypatch.setattr(bulk, "MAX_THREADS", 1)  # `direct` knows of one descriptor at a time
        assert store.read_entries([entry])[0] == data
    assert cached


def test_short_reads_are_gone_on_with(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = os.preadv

    def shortly(fd: int, parts: list[memoryview], at: int) -> int:
        return read(fd, [parts[0][: max(BLOCK_BYTES, parts[0].nbytes // 2 // BLOCK_BYTES * BLOCK_BYTES)]], at)

    data = [os.urandom(size) for size in (5 * PAGE_SIZE, 7 * BLOCK_BYTES, PAGE_SIZE + BLOCK_BYTES)]
    with RunLog.open(path, mode="w") as store:
        entries = [put(store, some) for some in data]
        monkeypatch.setattr(os, "preadv", shortly)
        monkeypatch.setattr(segments, "read", None)  # nothing is read page by page
        assert store.read_entries(entries) == data


def test_large_pages_are_read_many_at_once(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = os.urandom(20 * PAGE_SIZE + 12345)
    reads: list[int] = []
    read = os.preadv

    def counting(fd: int, parts: list[memoryview], at: int) -> int:
        reads.append(at)
        return read(fd, parts, at)

    with RunLog.open(path, mode="w") as store:
        store.append(run_begin())
        entry = put(store, data)
        monkeypatch.setattr(os, "preadv", counting)
        monkeypatch.setattr(segments, "read", None)  # nothing is read page by page
        assert store.read_entries([entry])[0] == data
        assert reads == [0]
        parts = [
            PageEntry("tensor", "uint8", (1,), PAGE_SIZE * len(digests), digests)
            for digests in (entry.pages[9:10], entry.pages[3:5], entry.pages[12:0:-4])
        ]
        read_parts = store.read_entries(parts)
    wanted = [range(9, 10), range(3, 5), range(12, 0, -4)]
    pages = [data[at : at + PAGE_SIZE] for at in range(0, len(data), PAGE_SIZE)]
    assert read_parts == [b"".join(pages[number] for number in numbers) for numbers in wanted]
    assert sorted(reads[1:]) == [number * PAGE_SIZE for number in (3, 8, 12)]  # 3 and 4, 8 and 9, 12
