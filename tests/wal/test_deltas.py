"""Pages as differences: they give the same bytes back, are used only where they pay, and never lack their base."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from florlog_wal import (
    PAGE_SIZE,
    CheckpointBegin,
    CorruptPage,
    Lineage,
    PageEntry,
    RunLog,
    compact,
    deltas,
    encode_table,
    gc,
    page_digest,
    pages,
    verify,
)
from florlog_wal.lineage import MAX_EXCESS_MISSES, MAX_PAUSE_IMAGES
from hypothesis import given
from hypothesis import strategies as st

from tests.wal.samples import checkpoint_end, run_begin


def applied(data: bytes, base: bytes) -> bytes:
    """The page that a difference makes of its base."""
    page = bytearray(base)
    deltas.apply(data, page)
    return bytes(page)


def bf16_like(steps: int, size: int = PAGE_SIZE) -> list[bytes]:
    """Parameters of two bytes of which a twentieth changes its last bits at each step."""
    choose = np.random.default_rng(7)
    page = choose.integers(0, 2**16, size // 2, dtype=np.uint16)
    pages = [page.tobytes()]
    for _ in range(steps):
        page = page ^ (choose.random(page.size) < 0.05).astype(np.uint16)
        pages.append(page.tobytes())
    return pages


@given(
    st.binary(min_size=1, max_size=200),
    st.integers(0, 2**32),
    st.integers(1, 16),
    st.sampled_from([None, "zstandard"]),
)
def test_a_difference_gives_its_page_back(base: bytes, seed: int, itemsize: int, library: str | None) -> None:
    if library is None:
        saved, deltas.zstandard = deltas.zstandard, None
    try:
        choose = random.Random(seed)
        page = bytes(byte ^ (choose.random() < 0.1) for byte in base * 40)
        data = deltas.encode_planes(page, base * 40, b"b" * 16, 2, itemsize)
        if data is not None:
            max_share = deltas.MAX_SHARE_OF_PAIRS if itemsize == 2 else deltas.MAX_SHARE
            assert len(data) <= len(page) * max_share + deltas.HEADER.size
            assert deltas.head(data) == (3, b"b" * 16)
            assert applied(data, base * 40) == page
    finally:
        if library is None:
            deltas.zstandard = saved


def test_what_changed_much_is_stored_full() -> None:
    choose = random.Random(1)
    assert deltas.encode_planes(choose.randbytes(PAGE_SIZE), choose.randbytes(PAGE_SIZE), b"", 0, 4) is None
    assert deltas.encode_planes(b"a" * 100, b"a" * 99, b"", 0, 1) is None
    assert deltas.encode_planes(b"a" * 100, b"a" * 100, b"", deltas.MAX_DEPTH, 1) is None


@given(st.binary(max_size=80))
def test_arbitrary_bytes_are_a_page_of_the_right_length_or_no_difference(data: bytes) -> None:
    for some in (data, deltas.HEADER.pack(1, 2, 1, 10, b"b" * 16) + data):
        try:
            deltas.head(some)
            assert len(applied(some, b"x" * 10)) == 10
        except deltas.NotADelta:
            pass


def put_images(store: RunLog, pages: list[bytes]) -> list[bytes]:
    """Put an image for each page, a difference from the one before where that pays."""
    session = store.append(run_begin())
    digests: list[bytes] = []
    lineage = Lineage(itemsize=2)
    for page in pages:
        begin = store.append(CheckpointBegin(0, len(digests)), session=session)
        digests += store.put_pages([page], lineages=[lineage]).digests
        table = encode_table({"w": PageEntry("tensor", "bfloat16", (1,), len(page), (digests[-1],))})
        root = store.put_pages([table]).digests[0]
        store.append(checkpoint_end(begin, root), session=session)
    return digests


def test_small_changes_take_little_space_and_read_the_same(tmp_path: Path) -> None:
    pages = bf16_like(15)
    with RunLog.open(tmp_path / "s", mode="w") as store:
        digests = put_images(store, pages)
        assert digests == [page_digest(page) for page in pages]
        again = store.put_pages([pages[3]], lineages=[Lineage(2, digests=[digests[0]])])
        assert again.written_bytes == 0
        small = store.put_pages([bf16_like(1)[1][:-2] + b"zz"], lineages=[Lineage(2, digests=[digests[1]])])
        assert 0 < small.written_bytes < PAGE_SIZE / 5
    with RunLog.open(tmp_path / "s") as store:
        assert [store.get_page(digest) for digest in digests] == pages
    assert (tmp_path / "s/pages/data.mdb").stat().st_size < 0.45 * PAGE_SIZE * len(pages)
    report = verify(tmp_path / "s")
    assert report.ok, report.problems
    assert report.images == 16


def test_a_base_that_is_missing_gives_a_full_page(tmp_path: Path) -> None:
    pages = bf16_like(1)
    with RunLog.open(tmp_path / "s", mode="w") as store:
        lineage = Lineage(2, digests=[page_digest(pages[0])])
        assert store.put_pages([pages[1]], lineages=[lineage]).written_bytes == PAGE_SIZE


def test_gc_keeps_a_base_as_long_as_a_difference_needs_it(tmp_path: Path) -> None:
    pages = bf16_like(5)
    with RunLog.open(tmp_path / "s", mode="w") as store:
        digests = put_images(store, pages)
    report = gc(tmp_path / "s", redo_bound=1e9)
    assert report.images == 4
    with RunLog.open(tmp_path / "s") as store:
        assert store.get_page(digests[-1]) == pages[-1]
        assert store.has_page(digests[0])
    assert verify(tmp_path / "s").ok
    compact(tmp_path / "s", tmp_path / "copy")
    with RunLog.open(tmp_path / "copy") as store:
        assert store.get_page(digests[-1]) == pages[-1]
    assert verify(tmp_path / "copy").ok


def test_a_damaged_base_damages_what_is_built_on_it_and_nothing_else(tmp_path: Path) -> None:
    pages = bf16_like(2)
    with RunLog.open(tmp_path / "s", mode="w") as store:
        store.put_pages(pages[:1])  # as it is, not as planes
        digests = put_images(store, pages)
        other = store.put_pages([b"other"]).digests[0]
    data = tmp_path / "s" / "segments" / "00000001"
    middle = pages[0][1000:1100]
    data.write_bytes(data.read_bytes().replace(middle, middle[::-1]))
    with RunLog.open(tmp_path / "s") as store:
        for digest in digests:
            with pytest.raises(CorruptPage, match=digest.hex()):
                store.get_page(digest)
        assert store.get_page(other) == b"other"


# -- rows --------------------------------------------------------------------------------------------


@given(
    row=st.integers(1, 40),
    lead=st.integers(0, 39),
    size=st.integers(1, 400),
    changed=st.sets(st.integers(0, 399), max_size=6),
    depth=st.integers(0, deltas.MAX_DEPTH),
)
def test_rows_give_their_page_back_wherever_the_page_begins(
    row: int, lead: int, size: int, changed: set[int], depth: int
) -> None:
    base = bytes(k % 251 for k in range(size))
    page = bytes(byte ^ (k in changed) for k, byte in enumerate(base))
    data = deltas.encode_rows(page, base, b"b" * 16, depth, row, lead)
    if data is None:
        touched = {(lead + k) // row for k in changed if k < size}
        too_many = len(touched) * (row + 4) > deltas.MAX_SHARE * size
        assert too_many or lead >= row or row > size or depth == deltas.MAX_DEPTH
    else:
        assert deltas.head(data) == (depth + 1, b"b" * 16)
        assert applied(data, base) == page


@given(st.binary(max_size=60), st.integers(0, 30), st.integers(0, 30), st.integers(0, 2**32 - 1))
def test_arbitrary_rows_are_a_page_of_the_right_length_or_no_difference(
    body: bytes, row: int, lead: int, count: int
) -> None:
    for number in (count, len(body) // (row + 4)):
        data = deltas.HEADER.pack(deltas.ROWS, 1, 1, 20, b"b" * 16)
        data += deltas.ROWS_HEAD.pack(row, lead, number) + body
        try:
            assert len(applied(data, b"x" * 20)) == 20
        except deltas.NotADelta:
            pass


def embedding(steps: int, rows: int = 8000, width: int = 64, touched: int = 200) -> list[bytes]:
    """A float32 table of which each step changes a few rows wholly, several pages long."""
    choose = np.random.default_rng(3)
    table = choose.standard_normal((rows, width), dtype=np.float32)
    images = [table.tobytes()]
    for _ in range(steps):
        table[choose.integers(0, rows, touched)] = choose.standard_normal((touched, width), dtype=np.float32)
        images.append(table.tobytes())
    return images


def cut(image: bytes) -> list[bytes]:
    return [image[at : at + PAGE_SIZE] for at in range(0, len(image), PAGE_SIZE)]


def test_sparse_updates_store_their_rows(tmp_path: Path) -> None:
    images = embedding(12)
    lineage = Lineage(itemsize=4, row=256)
    written, digests = [], []
    with RunLog.open(tmp_path / "s", mode="w") as store:
        for image in images:
            pages = cut(image)
            result = store.put_pages(pages, lineages=[lineage] * len(pages))
            written.append(result.written_bytes)
            digests.append(result.digests)
        forms = {page_form(store, digest) for digest in digests[1]}
        assert forms == {deltas.ROWS}
    with RunLog.open(tmp_path / "s") as store:
        for image, names in zip(images, digests, strict=True):
            assert b"".join(map(store.get_page, names)) == image
    assert written[0] == written[7] == len(images[0])  # a chain ends at its greatest depth
    assert all(size < 210 * 260 + 8 * 40 for size in written[1:7])
    assert verify(tmp_path / "s").ok


def page_form(store: RunLog, digest: bytes) -> int:
    """The codec of a stored difference; 0 for a full page."""
    with store._pages.read() as snapshot:
        stored = snapshot.get("deltas", digest)
    return stored[0] if stored else 0


def test_dense_updates_are_soon_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tries = []
    original = deltas.encode_planes

    def counted(*args: Any) -> bytes | None:
        tries.append(args)
        return original(*args)

    monkeypatch.setattr(deltas, "encode_planes", counted)
    choose = np.random.default_rng(5)
    lineage = Lineage(itemsize=4, row=256)
    per_image = []
    with RunLog.open(tmp_path / "s", mode="w") as store:
        for _ in range(40):
            pages = cut(choose.bytes(8 * PAGE_SIZE))
            store.put_pages(pages, lineages=[lineage] * 8)
            per_image.append(len(tries))
            tries.clear()
        assert max(per_image) == MAX_EXCESS_MISSES
        assert [number for number, count in enumerate(per_image) if count] == [1, 3, 6, 11, 20, 37]
        # A tensor that has become sparse is found again, at the latest when the pause is over.
        sparse = [
            store.put_pages(cut(image), lineages=[lineage] * len(cut(image))).written_bytes
            for image in embedding(MAX_PAUSE_IMAGES + 2, rows=2048)
        ]
    assert sparse[0] > 500_000
    assert min(sparse[-2:]) < 100_000


def test_bytes_that_the_caller_still_holds_are_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = embedding(1, touched=20)
    lineage = Lineage(itemsize=4, row=256)
    with RunLog.open(tmp_path / "s", mode="w") as store:
        store.put_pages(cut(first), lineages=[lineage] * 8)
        with monkeypatch.context() as blind:
            blind.setattr(pages, "_assemble", lambda *_: pytest.fail("a base was read"))
            result = store.put_pages(cut(second), lineages=[lineage] * 8, previous=cut(first))
        assert result.written_bytes < 6000
        assert b"".join(map(store.get_page, result.digests)) == second


def test_bytes_that_are_no_longer_those_of_the_base_are_not_believed(tmp_path: Path) -> None:
    first, second = embedding(1, touched=20)
    lineage = Lineage(itemsize=4, row=256)
    with RunLog.open(tmp_path / "s", mode="w") as store:
        store.put_pages(cut(first), lineages=[lineage] * 8)
        overwritten = cut(second)  # as when the buffer was filled again
        result = store.put_pages(cut(second), lineages=[lineage] * 8, previous=overwritten)
        assert b"".join(map(store.get_page, result.digests)) == second
        assert result.written_bytes < 6000
    assert verify(tmp_path / "s").ok


def test_a_tensor_that_grew_is_stored_whole(tmp_path: Path) -> None:
    lineage = Lineage(itemsize=4)
    with RunLog.open(tmp_path / "s", mode="w") as store:
        store.put_pages([b"a" * 4000], lineages=[lineage])
        result = store.put_pages([b"a" * 4004, b"b" * 4], lineages=[lineage] * 2)
        assert result.written_bytes == 4008
        assert [store.get_page(digest) for digest in result.digests] == [b"a" * 4004, b"b" * 4]
