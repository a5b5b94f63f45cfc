"""Space by policy: kept data stays whole, and exactly the data that nothing needs is removed."""

from __future__ import annotations

import os
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
    Store,
    compact,
    encode_table,
    gc,
    page_digest,
    verify,
)

from tests.wal.samples import checkpoint_end, commit, run_begin

RUNS = ("c", "a", "b")
"""From the oldest to the newest."""


def record_run(log: RunLog, run: str, images: int, *, started: float = 1.5) -> list[bytes]:
    """A run with an image after each iteration of 0.05 s; its page tables' digests."""
    source = log.put_pages([f"source of {run}".encode()]).digests[0]
    session = prev = log.append(run_begin(run, started=started, sources=(("/t.py", "t", source),)))
    tables = []
    for index in range(images):
        prev = log.append(commit(index), session=session, prev=prev)
        begin = log.append(CheckpointBegin(0, index + 1), session=session, prev=prev)
        pages = [b"shared" * 1000, f"{run} {index}".encode() * 500]
        table = encode_table(
            {"w": PageEntry("tensor", "uint8", (1,), 1, tuple(log.put_pages(pages).digests))}
        )
        tables.append(log.put_pages([table]).digests[0])
        prev = log.append(checkpoint_end(begin, tables[-1]), session=session, prev=begin)
    return tables


@pytest.fixture
def path(tmp_path: Path) -> Path:
    with Store.make(tmp_path / "store") as store:
        for number, run in enumerate(RUNS):
            with store.new_log(run) as log:
                record_run(log, run, 10, started=100.0 + number)
    return tmp_path / "store"


@pytest.fixture
def alone(path: Path) -> Path:
    return path / "runs" / "a"


def images(path: Path, run: str) -> int:
    with RunLog.open(path / "runs" / run) as log:
        return sum(1 for _ in log.scan(types=[CheckpointEnd]))


def runs(path: Path) -> set[str]:
    return {entry.name for entry in (path / "runs").iterdir()}


def sound(path: Path) -> bool:
    return all(verify(path / "runs" / run).ok for run in runs(path))


def test_without_a_policy_only_pages_that_nothing_names_go(alone: Path) -> None:
    with RunLog.open(alone, mode="w") as log:
        orphan = log.put_pages([b"orphan"]).digests[0]
        with log.open_answers() as answers:
            answers.append(run_begin("a", kind="replay"))
            answers.put_pages([b"orphan, too"])
    before = verify(alone)
    report = gc(alone)
    assert (report.runs, report.busy, report.damaged, report.images) == ([], [], [], 0)
    assert (report.pages, report.freed_bytes) == (2, 6 + 11)
    with RunLog.open(alone) as log:
        assert not log.has_page(orphan)
    after = verify(alone)
    assert after.ok
    assert (after.records, after.pages) == (before.records, before.pages - 1)


def test_keep_last_removes_the_runs_that_began_first(path: Path) -> None:
    report = gc(path, keep_last=1)
    assert report.runs == ["c", "a"]
    assert (report.images, report.pages) == (20, 2 * 22)
    assert runs(path) == {"b"}
    kept = verify(path / "runs" / "b")
    assert kept.ok
    assert (kept.records, kept.pages) == (31, 1 + 10 * 2 + 1)
    assert gc(path, keep_last=1).runs == []


def test_thinning_bounds_the_redo_between_images(path: Path) -> None:
    report = gc(path, redo_bound=0.16)
    assert report.images == 3 * (10 - 4)
    with RunLog.open(path / "runs" / "a") as log:
        assert [entry.lsn for entry in log.scan(types=[CheckpointEnd])] == [4, 13, 22, 31]
    assert sound(path)


def test_an_image_that_a_session_continues_from_is_not_thinned_away(alone: Path) -> None:
    with RunLog.open(alone, mode="w") as log:
        begin = [entry.lsn for entry in log.scan(types=[CheckpointBegin])][4]
        log.append(run_begin("a", kind="resume", resumed_from=begin))
    gc(alone, redo_bound=1e9)
    with RunLog.open(alone) as log:
        kept = [entry.record for entry in log.scan(types=[CheckpointEnd])]
    assert len(kept) == 3
    assert begin in [end.begin for end in kept if isinstance(end, CheckpointEnd)]
    gc(alone, budget=1)
    assert len(kept) - 1 == verify(alone).images  # the newest, and that one


def test_a_budget_thins_all_runs_first_and_then_removes_the_oldest(path: Path) -> None:
    full = gc(path, dry_run=True).kept_bytes
    report = gc(path, budget=full // 2)
    assert report.runs == []
    assert len({images(path, run) for run in RUNS}) == 1
    assert 1 < images(path, "a") < 10
    assert report.kept_bytes <= full // 2
    one = gc(path, budget=16_000)  # two runs, each with an image of 7,500 bytes
    assert one.runs == ["c"]
    assert (images(path, "a"), images(path, "b")) == (1, 1)
    assert gc(path, budget=1).runs == ["a"]
    assert runs(path) == {"b"}
    assert images(path, "b") == 1
    assert sound(path)


def test_a_run_that_is_written_to_is_left_and_named(path: Path) -> None:
    with Store.open(path) as store, store.open_log("c") as log:
        orphan = log.put_pages([b"of an image that is being stored"]).digests[0]
        for options in ({"keep_last": 1}, {"budget": 1}, {"redo_bound": 1e9}):
            dry = gc(path, dry_run=True, **options)  # type: ignore[arg-type]
            report = gc(path, **options)  # type: ignore[arg-type]
            assert dry.busy == report.busy == ["c"]
            assert "c" not in report.runs
        assert log.has_page(orphan)
        assert images(path, "c") == 10
    assert runs(path) == {"c", "b"}
    assert gc(path, keep_last=1).runs == ["c"]


def test_answers_that_are_being_stored_keep_their_run(path: Path) -> None:
    with Store.open(path) as store, store.log("c").open_answers() as answers:
        answers.append(run_begin("c", kind="replay"))
        report = gc(path, keep_last=1)
        assert (report.runs, report.busy) == (["a"], ["c"])
    assert sound(path)


def test_a_dry_run_says_what_would_go_and_changes_nothing(path: Path) -> None:
    def files() -> dict[Path, tuple[int, int]]:
        return {
            file: (file.stat().st_size, file.stat().st_mtime_ns)
            for file in path.rglob("*")
            if file.name not in ("lock.mdb",)
        }

    before = files()
    for options in ({"keep_last": 2}, {"budget": 40_000}, {"redo_bound": 0.16, "keep_last": 1}):
        dry = gc(path, dry_run=True, **options)  # type: ignore[arg-type]
        assert files() == before
        copy = path.with_name("copy")
        shutil.copytree(path, copy)
        assert gc(copy, **options) == dry  # type: ignore[arg-type]
        assert dry.images > 0
        shutil.rmtree(copy)


def test_a_damaged_run_is_left_and_named_and_the_others_are_collected(path: Path) -> None:
    data = path / "runs" / "a" / "log" / "data.mdb"
    data.write_bytes(data.read_bytes()[:8192])
    report = gc(path, keep_last=1)
    assert report.runs == ["c"]
    (damaged,) = report.damaged
    assert damaged.startswith("run a: ")
    assert runs(path) == {"a", "b"}


def test_what_dead_processes_left_goes(path: Path) -> None:
    (path / "runs" / ".removed-0").mkdir()
    (path / "runs" / ".unpacking-0" / "log").mkdir(parents=True)
    (path / "runs" / "half").mkdir()
    with Store.open(path) as store:
        store.new_log("empty").close()  # its writer died before the first record
    report = gc(path)
    assert (report.swept, report.runs) == (3, ["empty"])
    assert runs(path) == set(RUNS)


def test_many_runs_need_few_files_at_a_time(tmp_path: Path) -> None:
    with Store.make(tmp_path / "store") as store:
        for number in range(60):
            with store.new_log(f"r{number}") as log:
                record_run(log, f"r{number}", 1, started=float(number))
    code = f"""
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))
from florlog_wal import gc
report = gc({str(tmp_path / "store")!r}, keep_last=30, budget=10**9)
assert (len(report.runs), report.damaged, report.busy) == (30, [], []), report
"""
    assert os.spawnl(os.P_WAIT, sys.executable, sys.executable, "-c", code) == 0
    assert len(runs(tmp_path / "store")) == 30


def test_pages_that_a_caller_names_stay(alone: Path) -> None:
    with RunLog.open(alone, mode="w") as log:
        kept = log.put_pages([b"named in a note"]).digests[0]
        log.append(Note("page", kept.hex(), {}), session=1)
    gc(alone, also=lambda entry: [bytes.fromhex(entry.record.text)] if isinstance(entry.record, Note) else [])
    with RunLog.open(alone) as log:
        assert log.get_page(kept) == b"named in a note"
    gc(alone)
    with RunLog.open(alone) as log:
        assert not log.has_page(kept)


def test_freed_space_is_used_again(alone: Path) -> None:
    size = (alone / "pages" / "data.mdb").stat().st_size
    for round_ in range(5):
        gc(alone, redo_bound=1e9)
        with RunLog.open(alone, mode="w") as log:
            record_run(log, f"{round_}", 10)
    assert (alone / "pages" / "data.mdb").stat().st_size <= 2 * size


def test_a_compact_copy_holds_the_same_and_is_smaller(path: Path, tmp_path: Path) -> None:
    alone = path / "runs" / "a"
    with RunLog.open(alone) as log, log.open_answers() as answers:
        answers.append(run_begin("a", kind="replay"))
    gc(path, redo_bound=0.2)
    report = compact(alone, tmp_path / "copy")
    with RunLog.open(alone) as log, RunLog.open(tmp_path / "copy") as copy:
        assert list(copy.scan()) == list(log.scan())
        assert copy.sessions() == log.sessions()
        assert copy.last_lsn == log.last_lsn
        assert report.records == len(list(log.scan())) + 1
        assert copy.answers is not None
        assert copy.answers.record(1).record == run_begin("a", kind="replay")
    assert verify(tmp_path / "copy").ok
    assert (tmp_path / "copy/pages/data.mdb").stat().st_size < (alone / "pages/data.mdb").stat().st_size
    with RunLog.open(tmp_path / "copy", mode="w") as copy:
        assert copy.append(run_begin("a", kind="resume")) == 32
        with pytest.raises(NoSuchRecord):
            copy.record(7)
    with pytest.raises(FileExistsError):
        compact(alone, tmp_path / "copy")


def test_a_copy_that_was_cut_off_after_its_answers_is_made_anew(path: Path, tmp_path: Path) -> None:
    alone = path / "runs" / "a"
    with RunLog.open(alone) as log, log.open_answers() as answers:
        answers.append(run_begin("a", kind="replay"))
    compact(alone, tmp_path / "copy")
    (tmp_path / "copy" / "FLORLOG").unlink()  # it is written last
    compact(alone, tmp_path / "copy")
    assert verify(tmp_path / "copy").ok
    assert verify(tmp_path / "copy" / "answers").ok


def test_salvage_copies_what_is_whole(alone: Path, tmp_path: Path) -> None:
    data = alone / "pages" / "data.mdb"
    data.write_bytes(data.read_bytes().replace(b"a 3a 3a 3", b"a 3a 4a 3"))
    with pytest.raises(CorruptPage):
        compact(alone, tmp_path / "strict")
    report = compact(alone, tmp_path / "copy", salvage=True)
    assert (report.lost_pages, report.lost_records) == (1, 0)
    problems = verify(tmp_path / "copy").problems
    assert len(problems) == 1
    assert page_digest(b"a 3" * 500).hex() in problems[0].text


def test_an_image_is_unreachable_before_its_pages_go(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """gc cut off between the records and the sweep leaves pages too many, never a record that lacks one."""

    def cut_off(*_: object) -> None:
        raise KeyboardInterrupt

    module = sys.modules["florlog_wal.gc"]  # the package shows the function of that name
    monkeypatch.setattr(module, "sweep", cut_off)
    with pytest.raises(KeyboardInterrupt):
        gc(path, redo_bound=0.2)
    monkeypatch.undo()
    assert sound(path)
    assert {images(path, run) for run in RUNS} == {10, 4}
    assert gc(path).pages > 0
    assert sound(path)


def test_a_file_that_ends_before_pages_that_are_free_is_whole(alone: Path) -> None:
    with RunLog.open(alone, mode="w") as log:
        env = log._pages

        def work(txn: Any) -> None:
            for index in range(30):
                txn.put(bytes([index]) * 16, bytes(100_000), db=env.dbs["full"])
            for index in range(30):
                txn.delete(bytes([index]) * 16, db=env.dbs["full"])

        env.write(work)  # takes pages at the file's end and never writes them, as a sweep may
    data = alone / "pages" / "data.mdb"
    size = data.stat().st_size
    assert not verify(alone).problems
    with RunLog.open(alone, mode="w") as log:
        record_run(log, "d", 1)
    assert not verify(alone).problems
    with data.open("r+b") as file:
        file.truncate(size - 4096 * 8)
    with pytest.raises(CorruptStore, match=r"cut off|beyond the end"):
        RunLog.open(alone)
