"""A segment and its index after a crash: blocks that were written and never named, and blocks that are gone."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from florlog_wal import CorruptPage, MissingPage, PageEntry, RunLog, decode_table, gc, page_digest, verify
from florlog_wal.records import CheckpointEnd
from florlog_wal.segments import BLOCK_BYTES, numbers, rounded

from tests.wal.many_runs import image, record

SIZES = (16_384, 20_000, 3 * BLOCK_BYTES + 16_384)
"""Of the pages of an image that a writer appends, with a part of a block and without."""
BLOCKS = sum(map(rounded, SIZES)) // BLOCK_BYTES


def pages(text: str) -> list[bytes]:
    """Pages without a block of zeros, each block another one."""
    return [b"".join(f"{text} {size} {at:5} ".encode() for at in range(size))[:size] for size in SIZES]


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose writer was killed after it had appended an image's pages and before it named them."""
    path = tmp_path_factory.mktemp("torn") / "run"
    child = os.fork()
    if child == 0:
        try:
            log = RunLog.open(path, mode="w")
            record(log, "r", 2)
            log._segments.append([memoryview(page) for page in pages("lost")])
        finally:
            os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    return path


def images(log: RunLog) -> list[list[bytes]]:
    found = []
    for entry in log.scan(types=[CheckpointEnd]):
        assert isinstance(entry.record, CheckpointEnd)
        table = decode_table(log.get_page(entry.record.table))
        found.append([bytes(memory) for memory in log.read_entries(list(table.values()))])
    return found


@pytest.mark.drawn(8)
@pytest.mark.parametrize("block", range(BLOCKS + 1))
@pytest.mark.parametrize("torn", ["cut", "cut in a block", "missing", "alone"])
def test_a_write_torn_at_any_block_leaves_what_was_named(
    killed: Path, tmp_path: Path, torn: str, block: int
) -> None:
    path = tmp_path / "run"
    shutil.copytree(killed, path)
    with RunLog.open(path) as log:
        before = images(log)
    segment = path / "segments" / "00000001"
    content = bytearray(segment.read_bytes())
    size = len(content)
    start = size - BLOCKS * BLOCK_BYTES
    at = start + block * BLOCK_BYTES
    if torn == "missing":
        content[at : at + BLOCK_BYTES] = bytes(len(content[at : at + BLOCK_BYTES]))
    elif torn == "alone":
        content[start:at] = bytes(at - start)
        content[at + BLOCK_BYTES :] = bytes(len(content[at + BLOCK_BYTES :]))
    else:
        del content[at + (100 if torn == "cut in a block" else 0) :]
    segment.write_bytes(content)
    assert verify(path).ok
    with RunLog.open(path) as log:
        assert images(log) == before
        assert not any(log.has_page(page_digest(page)) for page in pages("lost"))
    with RunLog.open(path, mode="r+") as log:
        assert [log.get_page(page) for page in log.put_pages(pages("lost")).digests] == pages("lost")
        image(log, 1, "r", 9)
    gc(path)
    assert verify(path).ok
    assert segment.stat().st_size == start
    with RunLog.open(path) as log:
        assert images(log)[:2] == before
        assert len(images(log)) == 3


def test_an_index_newer_than_its_segment_is_told_for_each_block_that_is_gone(tmp_path: Path) -> None:
    made = tmp_path / "made"
    with RunLog.open(made, mode="w") as log:
        record(log, "r", 1)
        before = images(log)
        start = (made / "segments" / "00000001").stat().st_size
        digests = log.put_pages(pages("kept")).digests
    assert (made / "segments" / "00000001").stat().st_size == start + BLOCKS * BLOCK_BYTES
    whole = dict(zip(digests, pages("kept"), strict=True))
    for block in range(BLOCKS):
        for cut in (True, False):
            path = tmp_path / f"{block}{cut}"
            shutil.copytree(made, path)
            segment, at = path / "segments" / "00000001", start + block * BLOCK_BYTES
            content = bytearray(segment.read_bytes())
            if cut:
                del content[at:]
            else:
                content[at : at + BLOCK_BYTES] = bytes(BLOCK_BYTES)
            segment.write_bytes(content)
            ends = [sum(map(rounded, SIZES[: k + 1])) // BLOCK_BYTES for k in range(len(SIZES))]
            gone = {
                digest
                for k, digest in enumerate(digests)
                if (ends[k] > block if cut else ends[k] > block >= (ends[k - 1] if k else 0))
            }
            found = {problem.where for problem in verify(path).problems}
            assert found == {digest.hex() for digest in gone}
            with RunLog.open(path) as log:
                assert images(log) == before
                for digest, page in whole.items():
                    if digest in gone:
                        with pytest.raises((CorruptPage, MissingPage)):
                            log.get_page(digest)
                        entry = PageEntry("tensor", "uint8", (len(page),), len(page), (digest,))
                        with pytest.raises((CorruptPage, MissingPage)):
                            log.read_entries([entry])
                    else:
                        assert log.get_page(digest) == page


def test_an_index_older_than_its_segment_has_what_it_names(tmp_path: Path) -> None:
    path, old = tmp_path / "run", tmp_path / "old"
    with RunLog.open(path, mode="w") as log:
        record(log, "r", 2)
        before = images(log)
    size = (path / "segments" / "00000001").stat().st_size
    shutil.copytree(path, old)
    with (path / "segments" / "00000001").open("ab") as segment:
        segment.write(b"".join(pages("later")))
    with RunLog.open(path, mode="r+") as log:
        image(log, 1, "r", 2)
    for folder in ("log", "pages"):
        shutil.rmtree(path / folder)
        shutil.copytree(old / folder, path / folder)
    shutil.copy(old / "end", path / "end")
    assert numbers(path) == [1, 2]
    assert verify(path).ok
    with RunLog.open(path, mode="r+") as log:
        assert images(log) == before
        image(log, 1, "r", 3)
    assert numbers(path) == [1, 2, 3]
    gc(path)
    assert numbers(path) == [1, 3]
    assert (path / "segments" / "00000001").stat().st_size == size
    assert verify(path).ok
    with RunLog.open(path) as log:
        assert images(log)[:2] == before
