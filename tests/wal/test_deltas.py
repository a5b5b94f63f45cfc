"""Pages as differences: the same bytes back, only where it pays, and never a chain without its base."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from florlog_wal import (
    PAGE_SIZE,
    CheckpointBegin,
    CorruptPage,
    PageEntry,
    Store,
    compact,
    deltas,
    encode_table,
    gc,
    page_digest,
    verify,
)
from hypothesis import given
from hypothesis import strategies as st

from tests.wal.samples import checkpoint_end, run_begin


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
        data = deltas.encode(page, base * 40, b"b" * 16, 2, itemsize)
        if data is not None:
            assert len(data) <= len(page) * deltas.WORTH + deltas.HEADER.size
            assert deltas.head(data) == (3, b"b" * 16)
            assert deltas.decode(data, base * 40) == page
    finally:
        if library is None:
            deltas.zstandard = saved


def test_what_changed_much_is_stored_full() -> None:
    choose = random.Random(1)
    assert deltas.encode(choose.randbytes(PAGE_SIZE), choose.randbytes(PAGE_SIZE), b"", 0, 4) is None
    assert deltas.encode(b"a" * 100, b"a" * 99, b"", 0, 1) is None
    assert deltas.encode(b"a" * 100, b"a" * 100, b"", deltas.MAX_DEPTH, 1) is None


@given(st.binary(max_size=80))
def test_arbitrary_bytes_are_a_page_of_the_right_length_or_no_difference(data: bytes) -> None:
    for some in (data, deltas.HEADER.pack(1, 2, 1, 10, b"b" * 16) + data):
        try:
            deltas.head(some)
            assert len(deltas.decode(some, b"x" * 10)) == 10
        except deltas.NotADelta:
            pass


def put_images(store: Store, pages: list[bytes]) -> list[bytes]:
    """An image of each page, each a difference from the one before where that pays."""
    session = store.append(run_begin())
    digests: list[bytes] = []
    for page in pages:
        begin = store.append(CheckpointBegin(0, len(digests)), session=session)
        base = digests[-1] if digests else None
        digests += store.put_pages([page], bases=[base], itemsize=2).digests
        table = encode_table({"w": PageEntry("tensor", "bfloat16", (1,), len(page), (digests[-1],))})
        root = store.put_pages([table]).digests[0]
        store.append(checkpoint_end(begin, root), session=session)
    return digests


def test_small_changes_take_little_space_and_read_the_same(tmp_path: Path) -> None:
    pages = bf16_like(15)
    with Store.open(tmp_path / "s", mode="w") as store:
        digests = put_images(store, pages)
        assert digests == [page_digest(page) for page in pages]
        again = store.put_pages([pages[3]], bases=[digests[0]], itemsize=2)
        assert again.written_bytes == 0
        small = store.put_pages([bf16_like(1)[1][:-2] + b"zz"], bases=[digests[1]], itemsize=2)
        assert 0 < small.written_bytes < PAGE_SIZE / 5
    with Store.open(tmp_path / "s") as store:
        assert [store.get_page(digest) for digest in digests] == pages
    assert (tmp_path / "s/pages/data.mdb").stat().st_size < 0.45 * PAGE_SIZE * len(pages)
    report = verify(tmp_path / "s")
    assert report.ok, report.problems
    assert report.images == 16


def test_a_base_that_is_missing_gives_a_full_page(tmp_path: Path) -> None:
    pages = bf16_like(1)
    with Store.open(tmp_path / "s", mode="w") as store:
        assert (
            store.put_pages([pages[1]], bases=[page_digest(pages[0])], itemsize=2).written_bytes == PAGE_SIZE
        )


def test_gc_keeps_a_base_as_long_as_a_difference_needs_it(tmp_path: Path) -> None:
    pages = bf16_like(5)
    with Store.open(tmp_path / "s", mode="w") as store:
        digests = put_images(store, pages)
    report = gc(tmp_path / "s", redo_bound=1e9)
    assert report.images == 4
    with Store.open(tmp_path / "s") as store:
        assert store.get_page(digests[-1]) == pages[-1]
        assert store.has_page(digests[0])
    assert verify(tmp_path / "s").ok
    compact(tmp_path / "s", tmp_path / "copy")
    with Store.open(tmp_path / "copy") as store:
        assert store.get_page(digests[-1]) == pages[-1]
    assert verify(tmp_path / "copy").ok


def test_a_damaged_base_damages_what_is_built_on_it_and_nothing_else(tmp_path: Path) -> None:
    pages = bf16_like(2)
    with Store.open(tmp_path / "s", mode="w") as store:
        digests = put_images(store, pages)
        other = store.put_pages([b"other"]).digests[0]
    data = tmp_path / "s" / "pages" / "data.mdb"
    middle = pages[0][1000:1100]
    data.write_bytes(data.read_bytes().replace(middle, middle[::-1]))
    with Store.open(tmp_path / "s") as store:
        for digest in digests:
            with pytest.raises(CorruptPage, match=digest.hex()):
                store.get_page(digest)
        assert store.get_page(other) == b"other"
