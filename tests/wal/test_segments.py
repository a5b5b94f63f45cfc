"""Large pages lie in segments: where, in what order they become durable, and how their space comes back."""

from __future__ import annotations

import errno
import mmap
import os
import random
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from florlog_wal import (
    PAGE_SIZE,
    CheckpointBegin,
    CorruptPage,
    CorruptStore,
    MissingPage,
    NotAStore,
    PageEntry,
    PagesFailed,
    RunLog,
    Thinner,
    compact,
    encode_table,
    gc,
    page_digest,
    segments,
    verify,
)
from florlog_wal import pages as wal_pages
from florlog_wal.segments import BLOCK_BYTES, MAX_WRITE_BYTES, MIN_PAGE_BYTES, SegmentWriter, numbers, read
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.wal.samples import checkpoint_end, commit, run_begin


def aligned(data: bytes, after: int = 0) -> memoryview:
    """A copy that begins so many bytes after a boundary of blocks."""
    memory = mmap.mmap(-1, len(data) + after)
    memory[after : after + len(data)] = data
    return memoryview(memory)[after:]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store"


@settings(deadline=None, max_examples=40)
@given(
    sizes=st.lists(
        st.one_of(
            st.integers(1, 5 * BLOCK_BYTES),
            st.sampled_from([BLOCK_BYTES, PAGE_SIZE, PAGE_SIZE - 1, MAX_WRITE_BYTES, MAX_WRITE_BYTES + 1]),
        ),
        max_size=12,
    ),
    after=st.sampled_from([0, 1, 512]),
    direct=st.booleans(),
    seed=st.integers(0, 99),
)
def test_what_was_appended_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], after: int, direct: bool, seed: int
) -> None:
    store = tmp_path_factory.mktemp("segments")
    pages = [random.Random(seed + k).randbytes(size) for k, size in enumerate(sizes)]
    writer = SegmentWriter(store)
    writer._direct = direct
    views = [aligned(page, after if k % 2 else 0) for k, page in enumerate(pages)]
    places = [*writer.append(views[:5]), *writer.append(views[5:])]
    writer.sync()
    writer.close()
    assert [read(store, place) for place in places] == pages
    assert all(place.offset % BLOCK_BYTES == 0 for place in places)
    ends = sorted((place.offset, place.end) for place in places)
    assert all(one[1] <= other[0] for one, other in pairwise(ends))


def test_large_pages_are_in_segments_and_small_ones_and_equal_ones_are_not(path: Path) -> None:
    large, small = os.urandom(MIN_PAGE_BYTES), os.urandom(MIN_PAGE_BYTES - 1)
    with RunLog.open(path, mode="w") as store:
        first = store.put_pages([large, small, large])
        assert first.written_bytes == len(large) + len(small)
        assert store.put_pages([large, small]).written_bytes == 0
    assert (path / "segments" / "00000001").stat().st_size == MIN_PAGE_BYTES
    with RunLog.open(path, mode="w") as store:  # each writer begins a segment of its own
        store.put_pages([os.urandom(MIN_PAGE_BYTES)])
        assert [store.get_page(digest) for digest in first.digests] == [large, small, large]
    assert numbers(path) == [1, 2]
    assert verify(path).ok


def test_a_place_is_named_only_after_its_page_is_durable(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page, seen = os.urandom(PAGE_SIZE), []
    sync = SegmentWriter.sync

    def synced(writer: SegmentWriter) -> None:
        with RunLog.open(path) as reader:
            seen.append(reader.has_page(page_digest(page)))
        sync(writer)

    monkeypatch.setattr(SegmentWriter, "sync", synced)
    with RunLog.open(path, mode="w") as store:
        store.put_pages([page])
        assert store.has_page(page_digest(page))
    assert seen == [False]


def test_what_a_full_disk_took_of_an_image_is_given_back(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pages = [os.urandom(PAGE_SIZE) for _ in range(250)]  # more than one batch
    written, left = os.pwritev, [12 * MAX_WRITE_BYTES // 2]

    def until_full(fd: int, parts: list[memoryview], at: int) -> int:
        if not left[0]:
            raise OSError(errno.ENOSPC, "no space left")
        done: int = written(fd, [parts[0][: left[0]]], at)
        left[0] -= done
        return done

    with RunLog.open(path, mode="w") as store:
        store.put_pages(pages[:2])
        monkeypatch.setattr(os, "pwritev", until_full)
        with pytest.raises(PagesFailed):
            store.put_pages(pages)
        assert (path / "segments" / "00000001").stat().st_size == 2 * PAGE_SIZE
        monkeypatch.undo()
        assert [store.get_page(digest) for digest in store.put_pages(pages).digests] == pages
    assert numbers(path) == [1]
    assert verify(path).ok


@pytest.mark.parametrize("call", ["pwritev", "fdatasync"])
def test_a_disk_that_refuses_a_page_costs_that_image_alone(
    path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    kept, lost, later = (os.urandom(PAGE_SIZE) for _ in range(3))

    def refused(*_: object) -> int:
        raise OSError(errno.ENOSPC, "no space left")

    with RunLog.open(path, mode="w") as store:
        digest = store.put_pages([kept]).digests[0]
        with monkeypatch.context() as patched:
            patched.setattr(os, call, refused)
            with pytest.raises(PagesFailed, match="no space"):
                store.put_pages([lost])
        assert not store.has_page(page_digest(lost))
        assert store.get_page(store.put_pages([later]).digests[0]) == later
        assert store.get_page(digest) == kept
    assert verify(path).ok


@pytest.mark.parametrize("at", ["open", "write"])
def test_without_direct_writes_pages_go_through_the_page_cache(
    path: Path, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    flags: dict[int, int] = {}
    opened, written = os.open, os.pwritev

    def opening(name: object, how: int, *rest: object, **options: object) -> int:
        if at == "open" and how & os.O_DIRECT:
            raise OSError(errno.EINVAL, "invalid argument")
        fd: int = opened(name, how, *rest, **options)  # type: ignore[arg-type]
        flags[fd] = how
        return fd

    def writing(fd: int, *rest: object) -> int:
        if at == "write" and flags.get(fd, 0) & os.O_DIRECT:
            raise OSError(errno.EINVAL, "invalid argument")
        return written(fd, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", opening)
    monkeypatch.setattr(os, "pwritev", writing)
    pages = [os.urandom(PAGE_SIZE), os.urandom(MIN_PAGE_BYTES + 1)]
    with RunLog.open(path, mode="w") as store:
        assert [store.get_page(digest) for digest in store.put_pages(pages).digests] == pages
        assert not store.direct
    assert verify(path).ok


@pytest.mark.parametrize("after", [1, 2, 3, 4])
def test_direct_writes_that_are_refused_later_are_gone_on_with_through_the_page_cache(
    path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    flags: dict[int, int] = {}
    opened, written, left = os.open, os.pwritev, [after]
    cached: list[int] = []

    def opening(name: object, how: int, *rest: object, **options: object) -> int:
        fd: int = opened(name, how, *rest, **options)  # type: ignore[arg-type]
        flags[fd] = how
        return fd

    def writing(fd: int, parts: list[memoryview], at: int) -> int:
        if flags[fd] & os.O_DIRECT:
            if not left[0]:
                raise OSError(errno.EINVAL, "invalid argument")
            left[0] -= 1
            return written(fd, parts[:1], at)  # so that one append is refused halfway
        cached.append(at)
        return written(fd, parts, at)

    monkeypatch.setattr(os, "open", opening)
    monkeypatch.setattr(os, "pwritev", writing)
    images = [[os.urandom(size) for size in (PAGE_SIZE, MIN_PAGE_BYTES + 1, PAGE_SIZE)] for _ in range(2)]
    with RunLog.open(path, mode="w") as store:
        digests = []
        for pages in images:
            digests += store.put_pages([aligned(page) for page in pages]).digests
        assert not store.direct
        assert [store.get_page(digest) for digest in digests] == [page for pages in images for page in pages]
    assert len(cached) >= 1
    assert numbers(path) == [1]
    assert verify(path).ok


def test_a_segment_that_is_full_is_followed_by_another_one(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segments, "MAX_SEGMENT_BYTES", 4 * PAGE_SIZE)
    fill_segments(path, 4 * PAGE_SIZE)


def test_a_put_that_fills_several_segments_makes_each_durable(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segments, "MAX_SEGMENT_BYTES", 4 * PAGE_SIZE)
    monkeypatch.setattr(wal_pages, "MAX_BATCH_BYTES", 2 * PAGE_SIZE)
    synced: list[str] = []
    sync = os.fdatasync

    def noting(fd: int) -> None:
        synced.append(Path(f"/proc/self/fd/{fd}").readlink().name)
        sync(fd)

    pages = [os.urandom(PAGE_SIZE) for _ in range(9)]
    with RunLog.open(path, mode="w") as store:
        monkeypatch.setattr(os, "fdatasync", noting)
        digests = store.put_pages(pages).digests
        assert [name for name in synced if name.startswith("0")] == ["00000001", "00000002", "00000003"]
        assert [store.get_page(digest) for digest in digests] == pages
    assert verify(path).ok


@pytest.mark.long
def test_a_segment_of_full_size_is_followed_by_another_one(path: Path) -> None:
    fill_segments(path, segments.MAX_SEGMENT_BYTES)


def fill_segments(path: Path, limit: int) -> None:
    """Write a little more than two segments of ``limit`` bytes, and read them back."""
    memory = mmap.mmap(-1, MAX_WRITE_BYTES if limit > MAX_WRITE_BYTES else limit // 2)
    whole = memoryview(memory)
    put = 0
    entries: list[tuple[int, PageEntry]] = []
    with RunLog.open(path, mode="w") as store:
        while put < 2 * limit + PAGE_SIZE:
            fill(whole, put)
            pages = [whole[at : at + PAGE_SIZE] for at in range(0, len(whole), PAGE_SIZE)]
            digests = store.put_pages(pages).digests
            entries.append((put, PageEntry("tensor", "uint8", (1,), len(whole), tuple(digests))))
            put += len(whole)
        session = store.append(run_begin("r"))
        table = {f"{number:09}": entry for number, entry in entries}
        begin = store.append(CheckpointBegin(0, 1), session=session)
        digest = store.put_pages([encode_table(table)]).digests[0]
        store.append(checkpoint_end(begin, digest), session=session)
    assert numbers(path) == [1, 2, 3]
    sizes = [(path / "segments" / f"{number:08}").stat().st_size for number in (1, 2)]
    assert sizes == [limit, limit]  # a put ends where the segment does
    with RunLog.open(path) as store:
        for number, entry in entries:
            fill(whole, number)
            assert store.read_entries([entry]) == [whole]
    before = numbers(path)
    gc(path)
    assert numbers(path) == before
    assert verify(path).ok


def fill(memory: memoryview, number: int) -> None:
    """Other bytes for each number."""
    words = np.frombuffer(memory, np.uint64)
    words[:] = np.arange(number, number + len(words), dtype=np.uint64) * 0x9E3779B97F4A7C15


def test_short_writes_are_gone_on_with(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = os.pwritev

    def shortly(fd: int, parts: list[memoryview], at: int) -> int:
        return written(
            fd, [parts[0][: max(BLOCK_BYTES, parts[0].nbytes // 2 // BLOCK_BYTES * BLOCK_BYTES)]], at
        )

    monkeypatch.setattr(os, "pwritev", shortly)
    pages = [os.urandom(size) for size in (PAGE_SIZE, 7 * BLOCK_BYTES, PAGE_SIZE + 1)]
    with RunLog.open(path, mode="w") as store:
        digests = store.put_pages([aligned(page) for page in pages]).digests
        assert [store.get_page(digest) for digest in digests] == pages


@pytest.mark.parametrize("change", ["cut", "gone", "flipped", "link", "pipe"])
def test_a_segment_that_is_not_as_it_was_is_told_and_never_followed(path: Path, change: str) -> None:
    page = os.urandom(PAGE_SIZE)
    with RunLog.open(path, mode="w") as store:
        digest = store.put_pages([page]).digests[0]
    file = path / "segments" / "00000001"
    if change == "cut":
        os.truncate(file, PAGE_SIZE // 2)
    elif change == "flipped":
        file.write_bytes(page[:-1] + bytes([page[-1] ^ 1]))
    else:
        file.unlink()
        (path.parent / "other").write_bytes(page)
        if change == "link":
            file.symlink_to(path.parent / "other")
        elif change == "pipe":
            os.mkfifo(file)
    with RunLog.open(path) as store, pytest.raises((CorruptPage, CorruptStore, MissingPage)):
        store.get_page(digest)
    assert not verify(path).ok


def test_a_row_that_is_no_place_is_told(path: Path) -> None:
    with RunLog.open(path, mode="w") as store:
        store.append(run_begin())
        digest = store.put_pages([os.urandom(PAGE_SIZE)]).digests[0]
        env = store._pages
        env.write(lambda txn: txn.put(digest, b"short", db=env.dbs["places"]))
        with pytest.raises(CorruptPage, match=digest.hex()):
            store.get_page(digest)
    (damaged,) = gc(path).damaged
    assert digest.hex() in damaged
    assert not verify(path).ok


def test_a_directory_of_segments_that_is_a_link_is_refused(path: Path) -> None:
    RunLog.open(path, mode="w").close()
    (path / "segments").symlink_to(path.parent)
    with pytest.raises(NotAStore, match="segments"):
        RunLog.open(path, mode="w")


def image(store: RunLog, session: int, index: int, pages: list[bytes]) -> None:
    begin = store.append(CheckpointBegin(0, index), session=session)
    size = sum(map(len, pages))
    entry = PageEntry("tensor", "uint8", (size,), size, tuple(store.put_pages(pages).digests))
    table = store.put_pages([encode_table({"w": entry})]).digests[0]
    store.append(checkpoint_end(begin, table), session=session)


def blocks(path: Path) -> int:
    """Bytes that segments take on the disk."""
    return sum(file.stat().st_blocks * 512 for file in (path / "segments").iterdir())


def test_gc_gives_the_space_of_segments_back(path: Path) -> None:
    shared = os.urandom(PAGE_SIZE)
    with RunLog.open(path, mode="w") as store:
        session = store.append(run_begin())
        for index in range(20):
            image(store, session, index, [os.urandom(PAGE_SIZE) for _ in range(8)] + [shared])
        before = blocks(path)
    with RunLog.open(path, mode="w") as store:
        session = store.append(run_begin(kind="resume"))
        image(store, session, 20, [shared, os.urandom(PAGE_SIZE)])
        (path / "segments" / "00000007").write_bytes(bytes(PAGE_SIZE))  # as a killed writer leaves it
    gc(path, redo_bound=1e9)
    assert numbers(path) == [1, 2]
    assert blocks(path) <= before / 10 + PAGE_SIZE
    assert verify(path).ok
    with RunLog.open(path) as store:
        assert store.get_page(page_digest(shared)) == shared


def test_thinning_gives_the_space_of_the_segment_back_that_is_being_written(path: Path) -> None:
    with RunLog.open(path, mode="w") as store:
        session = store.append(run_begin("r"))
        for index in range(10):
            store.append(commit(index), session=session)
            image(store, session, index + 1, [os.urandom(PAGE_SIZE)])
        late = memoryview(os.urandom(PAGE_SIZE))
        (place,) = store._segments.append([late])  # as a put does on another thread
        before = blocks(path)
        assert Thinner(store).thin(3 * PAGE_SIZE).images <= 3
        assert blocks(path) <= before - 6 * PAGE_SIZE
        assert read(path, place) == late
        image(store, session, 11, [os.urandom(PAGE_SIZE)])
    assert verify(path).ok


def test_a_reader_beside_a_gc_is_told_that_a_page_is_gone(path: Path) -> None:
    page = os.urandom(PAGE_SIZE)
    with RunLog.open(path, mode="w") as store:
        store.append(run_begin())
        digest = store.put_pages([page, os.urandom(PAGE_SIZE)]).digests[0]
    with RunLog.open(path) as reader:
        assert reader.get_page(digest) == page
        gc(path)
        with pytest.raises(MissingPage):
            reader.get_page(digest)


def test_a_copy_has_the_pages_of_segments(path: Path) -> None:
    pages = [os.urandom(MIN_PAGE_BYTES + k) for k in range(300)]
    with RunLog.open(path, mode="w") as store:
        digests = store.put_pages(pages).digests
    compact(path, path.with_name("copy"))
    assert verify(path.with_name("copy")).ok
    with RunLog.open(path.with_name("copy")) as store:
        assert [store.get_page(digest) for digest in digests] == pages
