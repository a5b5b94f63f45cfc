"""Space by policy: kept data stays whole, and exactly the data that nothing needs is removed."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from florlog_wal import (
    CheckpointBegin,
    CheckpointEnd,
    CorruptPage,
    CorruptStore,
    NoSuchRecord,
    Note,
    PageEntry,
    RunLog,
    compact,
    encode_table,
    gc,
    page_digest,
    verify,
)

from tests.wal.samples import checkpoint_end, commit, run_begin


def record_run(store: RunLog, run: str, images: int, shared: bytes = b"shared" * 1000) -> list[bytes]:
    """A run with an image after each ten seconds; its page tables' digests."""
    source = store.put_pages([f"source of {run}".encode()]).digests[0]
    session = prev = store.append(run_begin(run, sources=(("/t.py", "t", source),)))
    tables = []
    for index in range(images):
        prev = store.append(commit(index), session=session, prev=prev)
        begin = store.append(CheckpointBegin(0, index + 1), session=session, prev=prev)
        pages = [shared, f"{run} {index}".encode() * 500]
        table = encode_table(
            {"w": PageEntry("tensor", "uint8", (1,), 1, tuple(store.put_pages(pages).digests))}
        )
        tables.append(store.put_pages([table]).digests[0])
        prev = store.append(checkpoint_end(begin, tables[-1]), session=session, prev=begin)
    return tables


@pytest.fixture
def path(tmp_path: Path) -> Path:
    with RunLog.open(tmp_path / "store", mode="w") as store:
        for run in ("a", "b", "c"):
            record_run(store, run, 10)
    return tmp_path / "store"


def images(path: Path, run: str) -> int:
    with RunLog.open(path) as store:
        lsns = [info.lsn for info in store.sessions() if info.begin.run == run]
        return sum(1 for lsn in lsns for _ in store.scan(session=lsn, types=[CheckpointEnd]))


def test_without_a_policy_only_pages_that_nothing_names_go(path: Path) -> None:
    with RunLog.open(path, mode="w") as store:
        orphan = store.put_pages([b"orphan"]).digests[0]
    before = verify(path)
    report = gc(path)
    assert (report.runs, report.records, report.images, report.pages, report.freed_bytes) == ([], 0, 0, 1, 6)
    with RunLog.open(path) as store:
        assert not store.has_page(orphan)
    after = verify(path)
    assert after.ok
    assert (after.records, after.pages) == (before.records, before.pages - 1)


def test_keep_last_removes_whole_runs_with_their_resumes_and_replays(path: Path) -> None:
    with RunLog.open(path, mode="w") as store:
        replay = store.append(run_begin("a", kind="replay"))
        store.append(Note("x", "y", {}), session=replay)
    report = gc(path, keep_last=1)
    assert report.runs == ["a", "b"]
    with RunLog.open(path, mode="w") as store:
        assert [info.begin.run for info in store.sessions()] == ["c"]
        assert store.last_lsn == 95
        with pytest.raises(NoSuchRecord):
            store.record(1)
        with pytest.raises(NoSuchRecord):
            store.record(95)
        assert [entry.lsn for entry in store.scan()] == list(range(63, 94))
        assert store.append(run_begin("d")) == 96
    report = verify(path)
    assert report.ok, report.problems
    assert report.pages == 1 + 10 * 2 + 1


def test_thinning_bounds_the_redo_between_images(path: Path) -> None:
    # each image is 0.05 recorded seconds after the one before
    report = gc(path, redo_bound=0.16)
    assert report.images == 3 * (10 - 4)
    assert images(path, "a") == 4  # images 1, 4, 7 and 10 of ten
    after = verify(path)
    assert after.ok, after.problems
    with RunLog.open(path) as store:
        ends = [entry.lsn for entry in store.scan(session=1, types=[CheckpointEnd])]
    assert ends == [4, 13, 22, 31]


def test_an_image_that_a_session_continues_from_is_not_thinned_away(path: Path) -> None:
    with RunLog.open(path, mode="w") as store:
        begin = [entry.lsn for entry in store.scan(session=1, types=[CheckpointBegin])][4]
        store.append(run_begin("a", kind="resume", resumed_from=begin))
    gc(path, redo_bound=1e9)
    with RunLog.open(path) as store:
        kept = [entry.record.begin for entry in store.scan(session=1, types=[CheckpointEnd])]
    assert len(kept) == 3
    assert begin in kept


def test_a_budget_thins_first_and_then_removes_the_oldest_runs(path: Path) -> None:
    full = gc(path, dry_run=True).kept_bytes
    report = gc(path, budget=full // 2)
    assert report.runs == []
    assert report.images > 0
    assert report.kept_bytes <= full // 2
    small = gc(path, budget=1)
    assert small.runs == ["a", "b"]
    assert images(path, "c") == 2
    assert verify(path).ok


def test_a_dry_run_changes_nothing(path: Path) -> None:
    before = verify(path)
    report = gc(path, keep_last=1, dry_run=True)
    assert report.runs == ["a", "b"]
    assert report.pages > 0
    assert verify(path) == before


def test_pages_that_a_caller_names_stay(path: Path) -> None:
    with RunLog.open(path, mode="w") as store:
        kept = store.put_pages([b"named in a note"]).digests[0]
        store.append(Note("page", kept.hex(), {}), session=1)
    gc(path, also=lambda entry: [bytes.fromhex(entry.record.text)] if isinstance(entry.record, Note) else [])
    with RunLog.open(path) as store:
        assert store.get_page(kept) == b"named in a note"
    gc(path)
    with RunLog.open(path) as store:
        assert not store.has_page(kept)


def test_freed_space_is_used_again(path: Path) -> None:
    size = (path / "pages" / "data.mdb").stat().st_size
    for round_ in range(5):
        gc(path, keep_last=1)
        with RunLog.open(path, mode="w") as store:
            for run in range(2):
                record_run(store, f"{round_}.{run}", 10)
    assert (path / "pages" / "data.mdb").stat().st_size <= 1.5 * size


def test_a_compact_copy_holds_the_same_and_is_smaller(path: Path, tmp_path: Path) -> None:
    gc(path, keep_last=1, redo_bound=0.2)
    report = compact(path, tmp_path / "copy")
    with RunLog.open(path) as store, RunLog.open(tmp_path / "copy") as copy:
        assert list(copy.scan()) == list(store.scan())
        assert copy.sessions() == store.sessions()
        assert copy.last_lsn == store.last_lsn
        assert report.records == len(list(store.scan()))
    assert verify(tmp_path / "copy").ok
    assert (tmp_path / "copy/pages/data.mdb").stat().st_size < (path / "pages/data.mdb").stat().st_size
    with RunLog.open(tmp_path / "copy", mode="w") as copy:
        assert copy.append(run_begin("d")) == 94
    with pytest.raises(FileExistsError):
        compact(path, tmp_path / "copy")


def test_salvage_copies_what_is_whole(path: Path, tmp_path: Path) -> None:
    data = path / "pages" / "data.mdb"
    data.write_bytes(data.read_bytes().replace(b"b 3b 3b 3", b"b 3b 4b 3"))
    with pytest.raises(CorruptPage):
        compact(path, tmp_path / "strict")
    shutil.rmtree(tmp_path / "strict")
    report = compact(path, tmp_path / "copy", salvage=True)
    assert (report.lost_pages, report.lost_records) == (1, 0)
    problems = verify(tmp_path / "copy").problems
    assert len(problems) == 1
    assert page_digest(b"b 3" * 500).hex() in problems[0].text


def test_an_image_is_unreachable_before_its_pages_go(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """gc cut off between the records and the sweep leaves pages too many, never a record that lacks one."""

    def cut_off(*_: object) -> None:
        raise KeyboardInterrupt

    module = sys.modules["florlog_wal.gc"]  # the package shows the function of that name
    monkeypatch.setattr(module, "_sweep", cut_off)
    with pytest.raises(KeyboardInterrupt):
        gc(path, keep_last=1, redo_bound=0.2)
    monkeypatch.undo()
    assert verify(path).ok
    assert gc(path).pages > 0
    assert verify(path).ok


def test_a_file_that_ends_before_pages_that_are_free_is_whole(path: Path) -> None:
    with RunLog.open(path, mode="w") as store:
        env = store._pages

        def work(txn: Any) -> None:
            for index in range(30):
                txn.put(bytes([index]) * 16, bytes(100_000), db=env.dbs["full"])
            for index in range(30):
                txn.delete(bytes([index]) * 16, db=env.dbs["full"])

        env.write(work)  # takes pages at the file's end and never writes them, as a sweep may
    data = path / "pages" / "data.mdb"
    size = data.stat().st_size
    assert not verify(path).problems
    with RunLog.open(path, mode="w") as store:
        record_run(store, "d", 1)
    assert not verify(path).problems
    with data.open("r+b") as file:
        file.truncate(size - 4096 * 8)
    with pytest.raises(CorruptStore, match="cut off"):
        RunLog.open(path)
