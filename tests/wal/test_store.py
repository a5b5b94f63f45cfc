"""The store as users see it: appended records are read, by this process and others, also after a kill."""

from __future__ import annotations

import dataclasses
import gc as garbage
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Literal
from unittest.mock import Mock

import pytest
from florlog_wal import (
    PAGE_SIZE,
    Begin,
    Commit,
    CommitFields,
    CorruptPage,
    CorruptRecord,
    CorruptStore,
    Forked,
    MissingPage,
    NoSuchRecord,
    NotAStore,
    ReadOnlyStore,
    Record,
    RunBegin,
    RunLocked,
    RunLog,
    StoreClosed,
    StoreFailed,
    TooManyReaders,
    Unencodable,
    UnsupportedFormat,
    page_digest,
    verify,
)
from florlog_wal.directory import filesystem
from florlog_wal.errors import NetworkFilesystem
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.wal.samples import commit, exact, records_of, run_begin

LONG_WINDOW_SECONDS = 3600.0  # a group window that no test outlasts


def fill(store: RunLog, count: int, run: str = "r1") -> int:
    """A session of ``count`` commits; its LSN."""
    session = store.append(run_begin(run))
    for index in range(count):
        store.append(commit(index), session=session, prev=0)
    return session


def fields(record: Record) -> CommitFields:
    """What `RunLog.commit` is given for a record."""
    return tuple(getattr(record, field.name) for field in dataclasses.fields(record))  # type: ignore[return-value]


def in_child(work) -> int:  # type: ignore[no-untyped-def]
    """Run in a forked child; the wait status."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    return os.waitpid(child, 0)[1]


def elsewhere(code: str, path: Path) -> str:
    """What another process prints."""
    command = [sys.executable, "-c", f"PATH = {str(path)!r}\n{code}"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store"


def test_records_come_back_in_order_with_their_chains(path: Path) -> None:
    with RunLog.open(path, mode="w") as store:
        session = store.append(run_begin())
        first = store.append(Begin(0, 3), session=session, prev=session)
        second = store.append(commit(3), session=session, prev=first)
        assert (session, first, second) == (1, 2, 3)
    with RunLog.open(path) as store:
        found = list(store.scan())
        assert [entry.record for entry in found] == [run_begin(), Begin(0, 3), commit(3)]
        assert [entry.session for entry in found] == [1, 1, 1]
        assert [entry.prev_lsn for entry in found] == [0, 1, 2]
        assert store.record(2) == found[1]
        assert store.last_lsn == store.durable_lsn == 3


def test_the_writer_reads_what_it_has_not_yet_committed(path: Path) -> None:
    with RunLog.open(path, mode="w", window=LONG_WINDOW_SECONDS) as store:
        fill(store, 3)
        assert store.durable_lsn == 0
        assert [entry.lsn for entry in store.scan()] == [1, 2, 3, 4]
        assert store.record(4).record == commit(2)
        assert store.sessions()[0].counts == {RunBegin: 1, Commit: 3}
        assert store.sync() == store.durable_lsn == 4


def test_another_process_reads_beside_the_writer_before_the_group_commit(path: Path) -> None:
    with RunLog.open(path, mode="w", window=LONG_WINDOW_SECONDS) as store:
        fill(store, 2)
        store.sync()
        store.append(commit(2), session=1)
        code = "from florlog_wal import RunLog; s = RunLog.open(PATH); print(s.last_lsn, s.durable_lsn)"
        assert elsewhere(code, path).split() == ["4", "3"]


def test_the_group_window_bounds_what_a_power_cut_may_lose(path: Path) -> None:
    with RunLog.open(path, mode="w", window=0.02) as store:
        fill(store, 1)
        deadline = time.monotonic() + 5
        while store.durable_lsn < 2 and time.monotonic() < deadline:
            time.sleep(0.005)
        assert store.durable_lsn == 2


def test_with_durability_sync_a_commit_is_durable_on_return(path: Path) -> None:
    with RunLog.open(path, mode="w", durability="sync", window=LONG_WINDOW_SECONDS) as store:
        session = store.append(run_begin())
        assert store.durable_lsn == 0
        for index in range(5):
            lsn = store.append(commit(index), session=session)
            assert store.durable_lsn == lsn


def test_after_a_kill_everything_appended_is_there(path: Path) -> None:
    def die() -> None:
        store = RunLog.open(path, mode="w", window=LONG_WINDOW_SECONDS)
        fill(store, 500)
        os.kill(os.getpid(), signal.SIGKILL)

    assert in_child(die) == signal.SIGKILL
    with RunLog.open(path) as reader:
        assert reader.last_lsn == 501
        assert reader.durable_lsn == 0
        assert reader.writer() is None
        assert [entry.record for entry in reader.scan(2)] == [commit(index) for index in range(500)]
        with RunLog.open(path, mode="w") as store:
            assert store.durable_lsn == 501
            assert store.append(commit(500), session=1) == 502
        assert reader.last_lsn == reader.durable_lsn == 502
    assert verify(path).ok


def test_a_record_larger_than_the_tail_is_taken(path: Path) -> None:
    with RunLog.open(path, mode="w") as store:
        session = fill(store, 2)
        big = commit(2, value=b"x" * (9 << 20))
        lsn = store.append(big, session=session)
        assert store.record(lsn).record == big
        assert store.append(commit(3), session=session) == lsn + 1
    with RunLog.open(path) as store:
        assert store.record(lsn).record == big


def test_a_store_that_nobody_closed_is_closed_with_the_interpreter(path: Path) -> None:
    code = (
        "from florlog_wal import RunLog; from tests.wal.samples import *\n"
        "store = RunLog.open(PATH, mode='w', window=3600); store.append(run_begin())\n"
    )
    elsewhere(code, path)
    assert (path / "end").read_text().startswith("1\n")
    elsewhere(code + "del store; assert RunLog.open(PATH).durable_lsn == 2", path)
    assert verify(path).records == 2


def test_many_threads_append_densely(path: Path) -> None:
    with RunLog.open(path, mode="w", window=0.001) as store:
        session = store.append(run_begin())
        lsns: list[list[int]] = [[] for _ in range(4)]

        def work(mine: list[int]) -> None:
            mine += [store.append(commit(index), session=session) for index in range(2000)]

        threads = [threading.Thread(target=work, args=(mine,)) for mine in lsns]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(lsn for mine in lsns for lsn in mine) == list(range(2, 8002))
        assert all(mine == sorted(mine) for mine in lsns)
    assert verify(path).ok


def test_append_waits_for_room_when_both_segments_are_full(path: Path) -> None:
    with RunLog.open(path, mode="w", window=LONG_WINDOW_SECONDS) as store:
        session = store.append(run_begin())
        value = b"v" * 100_000
        for index in range(200):  # 20 MB through two segments of 4
            store.append(commit(index, value=value), session=session)
        assert store.sync() == 201
    assert verify(path).records == 201


def test_scan_selects_by_range_type_session_and_direction(path: Path) -> None:
    with RunLog.open(path, mode="w") as store:
        fill(store, 3)
        second = fill(store, 2, "r2")
        assert [entry.lsn for entry in store.scan(3, 6)] == [3, 4, 5]
        assert [entry.lsn for entry in store.scan(types=[RunBegin])] == [1, second]
        assert [entry.lsn for entry in store.scan(session=second)] == [5, 6, 7]
        assert [entry.lsn for entry in store.scan(reverse=True)] == [7, 6, 5, 4, 3, 2, 1]
        assert [entry.lsn for entry in store.scan(2, 5, types=[Commit], session=1, reverse=True)] == [4, 3, 2]
        assert list(store.scan(8)) == list(store.scan(3, 3)) == list(store.scan(5, 2)) == []


def test_a_scan_longer_than_a_batch_is_whole_in_both_directions(path: Path) -> None:
    with RunLog.open(path, mode="w") as store:
        fill(store, 3000)
        assert [entry.lsn for entry in store.scan()] == list(range(1, 3002))
        assert [entry.lsn for entry in store.scan(reverse=True)] == list(range(3001, 0, -1))


def test_sessions_are_summed_up(path: Path) -> None:
    with RunLog.open(path, mode="w") as store:
        fill(store, 3)
        fill(store, 2, "r2")
        sizes = [sum(e.nbytes for e in store.scan(session=lsn)) for lsn in (1, 5)]
    with RunLog.open(path) as store:
        first, second = store.sessions()
        assert (first.lsn, first.last_lsn, first.nbytes, first.begin.run) == (1, 4, sizes[0], "r1")
        assert (second.lsn, second.last_lsn, second.nbytes) == (5, 7, sizes[1])
        assert second.counts == {RunBegin: 1, Commit: 2}


def test_a_record_that_cannot_be_encoded_takes_no_lsn(path: Path) -> None:
    with RunLog.open(path, mode="w") as store:
        session = store.append(run_begin())
        with pytest.raises(Unencodable):
            store.append(commit(0, value=object()), session=session)
        assert store.append(commit(0), session=session) == 2


def test_an_lsn_outside_the_log_is_named(path: Path) -> None:
    with RunLog.open(path, mode="w") as store:
        fill(store, 1)
        for lsn in (0, 3, -1, 2**64):
            with pytest.raises(NoSuchRecord, match="holds 1 to 2"):
                store.record(lsn)


# -- pages -------------------------------------------------------------------------------------------


def test_pages_are_stored_once_and_verified(path: Path) -> None:
    pages = [b"a" * PAGE_SIZE, b"b" * 10, memoryview(b"a" * PAGE_SIZE), b""]
    with RunLog.open(path, mode="w") as store:
        result = store.put_pages(pages)
        assert result.digests == [page_digest(page) for page in pages]
        assert result.written_bytes == PAGE_SIZE + 10
        assert store.put_pages(pages).written_bytes == 0
    with RunLog.open(path) as store:
        assert [store.get_page(digest) for digest in result.digests] == [bytes(page) for page in pages]
        assert store.has_page(result.digests[1])
        assert not store.has_page(b"?" * 16)
        with pytest.raises(MissingPage, match="3f3f"):
            store.get_page(b"?" * 16)


def test_many_small_and_large_pages_come_back(path: Path) -> None:
    pages = [bytes([k % 256]) * (k * 37 % 9000 + 1) for k in range(2000)]
    with RunLog.open(path, mode="w", page_map_size=1 << 20) as store:
        digests = store.put_pages(pages).digests
        assert [store.get_page(digest) for digest in digests] == pages
    assert verify(path).ok


@pytest.mark.parametrize(("count", "file"), [(2000, "pages/data.mdb"), (5000, "segments/00000001")])
def test_a_damaged_page_is_named(path: Path, count: int, file: str) -> None:
    with RunLog.open(path, mode="w") as store:
        digest = store.put_pages([b"needle" * count]).digests[0]
    data = path / file
    data.write_bytes(data.read_bytes().replace(b"needleneedle", b"needlenoodle", 1))
    with RunLog.open(path) as store, pytest.raises(CorruptPage, match=digest.hex()):
        store.get_page(digest)
    assert [problem.where for problem in verify(path).problems] == [digest.hex()]


# -- opening -----------------------------------------------------------------------------------------


def test_a_second_writer_is_told_who_holds_the_store(path: Path) -> None:
    with RunLog.open(path, mode="w") as store:
        holder = store.writer()
        assert holder is not None
        assert holder.pid == os.getpid()
        with pytest.raises(RunLocked, match=f"process {os.getpid()}"):
            RunLog.open(path, mode="w")
        code = "from florlog_wal import *\ntry: RunLog.open(PATH, mode='w')\n"
        assert int(elsewhere(code + "except RunLocked as error: print(error.pid)", path)) == os.getpid()
    with RunLog.open(path) as store:
        assert store.writer() is None


def test_readers_and_the_writer_of_one_process_share_the_store(path: Path) -> None:
    RunLog.open(path, mode="w").close()
    with RunLog.open(path) as before, RunLog.open(path, mode="w") as store, RunLog.open(path) as after:
        fill(store, 2)
        assert before.last_lsn == after.last_lsn == 3
        store.close()
        assert before.last_lsn == 3
        with pytest.raises(StoreClosed):
            store.append(commit(1))


def test_a_reader_cannot_write(path: Path) -> None:
    RunLog.open(path, mode="w").close()
    with RunLog.open(path) as store:
        for call in (lambda: store.append(commit(1)), store.sync, lambda: store.put_pages([b""])):
            with pytest.raises(ReadOnlyStore):
                call()


def test_what_is_not_a_store_is_refused_and_left_alone(tmp_path: Path) -> None:
    with pytest.raises(NotAStore, match="no FLORLOG"):
        RunLog.open(tmp_path)
    with pytest.raises(NotAStore):
        RunLog.open(tmp_path / "missing")
    (tmp_path / "thesis.txt").write_text("x")
    with pytest.raises(NotAStore, match="other things"):
        RunLog.open(tmp_path, mode="w")
    assert [entry.name for entry in tmp_path.iterdir()] == ["thesis.txt"]


def test_an_unknown_format_is_refused(path: Path) -> None:
    RunLog.open(path, mode="w").close()
    manifest = path / "FLORLOG"
    text = manifest.read_text()
    for old, new in (("format 4", "format 5"), ("lmdb-0.9", "lmdb-1.0")):
        manifest.write_text(text.replace(old, new))
        with pytest.raises(UnsupportedFormat, match=new.split()[-1]):
            RunLog.open(path, mode="w")
    manifest.write_text("florlog store\n")
    with pytest.raises(NotAStore, match="damaged"):
        RunLog.open(path)


def test_a_truncated_file_is_an_error_and_not_a_signal(path: Path) -> None:
    with RunLog.open(path, mode="w") as store:
        fill(store, 5000)
    data = path / "log" / "data.mdb"
    whole = data.read_bytes()
    for size in (0, 100, 5000, len(whole) // 2, len(whole) - 4096):
        data.write_bytes(whole[:size])
        for mode in ("r", "w"):
            with pytest.raises(CorruptStore):
                RunLog.open(path, mode=mode)  # type: ignore[arg-type]
        report = verify(path)
        assert not report.ok
        assert "log/data.mdb is damaged" in str(report)


def test_a_file_truncated_under_an_open_reader_is_an_error(path: Path) -> None:
    with RunLog.open(path, mode="w") as store:
        fill(store, 5000)
    with RunLog.open(path) as store:
        os.truncate(path / "log" / "data.mdb", 40960)
        with pytest.raises((CorruptRecord, CorruptStore)):
            list(store.scan())


def test_a_log_shorter_than_at_its_last_close_has_lost_records(path: Path) -> None:
    with RunLog.open(path, mode="w", window=LONG_WINDOW_SECONDS) as store:
        fill(store, 5)
        older = (path / "log" / "data.mdb").read_bytes()
    (path / "log" / "data.mdb").write_bytes(older)
    with RunLog.open(path) as store, pytest.raises(CorruptRecord, match="LSN 6"):
        store.last_lsn  # noqa: B018
    with pytest.raises(CorruptRecord, match="LSN 1 "):
        RunLog.open(path, mode="w")
    assert not verify(path).ok


@pytest.mark.parametrize("name", ["log", "pages"])
def test_a_missing_file_is_a_loss_and_not_a_beginning(path: Path, name: str) -> None:
    with RunLog.open(path, mode="w") as store:
        fill(store, 5)
    (path / name / "data.mdb").unlink()
    for mode in ("r", "w"):
        with pytest.raises(CorruptStore, match="missing"):
            RunLog.open(path, mode=mode)  # type: ignore[arg-type]
    assert not (path / name / "data.mdb").exists()


def test_the_map_grows_as_needed(path: Path) -> None:
    with RunLog.open(path, mode="w", log_map_size=1 << 16, page_map_size=1 << 16, window=0.001) as store:
        reader = RunLog.open(path)
        fill(store, 3000)
        pages = [os.urandom(5000) for _ in range(200)]
        digests = store.put_pages(pages).digests
        store.sync()
        assert reader.last_lsn == 3001
        assert [reader.get_page(digest) for digest in digests] == pages
        reader.close()
    assert verify(path).ok


def _read_while_growing(path: str, ready, done) -> None:  # type: ignore[no-untyped-def]
    with RunLog.open(path, log_map_size=1 << 16) as store:
        ready.set()
        while not done.is_set():
            lsns = [entry.lsn for entry in store.scan()]
            assert lsns == list(range(1, len(lsns) + 1))
        assert len(list(store.scan())) == 5001


def test_a_reader_of_another_process_follows_a_growing_map(path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    ready, done = spawn.Event(), spawn.Event()
    with RunLog.open(path, mode="w", log_map_size=1 << 16, window=0.001) as store:
        reader = spawn.Process(target=_read_while_growing, args=(str(path), ready, done))
        reader.start()
        assert ready.wait(30)
        fill(store, 5000)
        store.sync()
        done.set()
        reader.join(30)
        assert reader.exitcode == 0


def test_commits_between_the_reads_of_the_two_meta_pages_are_no_damage(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, left = os.pread, [3]
    with RunLog.open(path, mode="w") as writer, RunLog.open(path) as reader:
        session = writer.append(run_begin())
        writer.sync()

        def reading(fd: int, size: int, at: int) -> bytes:
            data = read(fd, size, at)
            while at == 0 and left[0]:
                left[0] -= 1
                writer.append(commit(left[0]), session=session)
                writer.sync()
            return data

        monkeypatch.setattr(os, "pread", reading)
        assert reader.record(session).record == run_begin()
        assert not left[0]


def test_a_slow_scan_holds_nothing_back_in_the_store(path: Path) -> None:
    with RunLog.open(path, mode="w", window=LONG_WINDOW_SECONDS) as store:
        fill(store, 3000)
        store.sync()
        slow = store.scan()
        next(slow)
        size = (path / "log" / "data.mdb").stat().st_size
        for index in range(200):
            store.append(commit(index), session=1)
            store.sync()
        assert (path / "log" / "data.mdb").stat().st_size < size + 60 * 4096
        assert sum(1 for _ in slow) == 3000


def test_the_slot_of_a_killed_reader_is_cleared_when_a_writer_opens(path: Path) -> None:
    RunLog.open(path, mode="w").close()
    code = (
        f"import os; from florlog_wal import RunLog; store = RunLog.open({str(path)!r})\n"
        "with store._log.read(): print(os.getpid(), flush=True); os.kill(os.getpid(), 9)"
    )
    with RunLog.open(path) as store:  # LMDB forgets all slots when nobody has the store open
        out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert out.returncode == -signal.SIGKILL
        assert out.stdout.strip() in store._log._env.readers()
        with RunLog.open(path, mode="w"):
            assert out.stdout.strip() not in store._log._env.readers()


def test_with_all_reader_slots_taken_a_reader_is_told_and_the_dead_make_room(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("florlog_wal.environment._MAX_READERS", 3)
    with RunLog.open(path, mode="w") as store:
        session = store.append(run_begin())
    code = (
        f"import time; from florlog_wal import RunLog; store = RunLog.open({str(path)!r})\n"
        "with store._log.read(): print('in', flush=True); time.sleep(100)"
    )
    with RunLog.open(path, mode="w") as store:
        command = [sys.executable, "-c", code]
        readers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
        assert [reader.stdout.readline() for reader in readers if reader.stdout] == ["in\n"] * 3
        with pytest.raises(TooManyReaders, match="no reader slot left"):
            store.record(session)
        late = subprocess.run(command, capture_output=True, text=True, check=False)
        assert "TooManyReaders" in late.stderr
        store.append(commit(0), session=session)
        assert store.sync() == 2  # the writer needs no slot
        for reader in readers:
            reader.kill()
            reader.communicate()
        assert store.record(session).record == run_begin()


def test_a_read_error_is_an_error_of_this_layer(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    RunLog.open(path, mode="w").close()
    with RunLog.open(path) as store:
        monkeypatch.setattr("florlog_wal.btree.os.pread", Mock(side_effect=OSError(5, "Input/output error")))
        with pytest.raises(StoreFailed, match="Input/output error"):
            store.get_page(b"0" * 16)
        monkeypatch.undo()


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_a_store_on_read_only_media_is_readable(path: Path) -> None:
    with RunLog.open(path, mode="w") as store:
        fill(store, 3)
        digest = store.put_pages([b"page"]).digests[0]
    code = (
        "import sys, subprocess; from florlog_wal import RunLog; p = sys.argv[1]\n"
        "subprocess.run(['mount', '--bind', p, p], check=True)\n"
        "subprocess.run(['mount', '-o', 'remount,ro,bind', p], check=True)\n"
        "s = RunLog.open(p); print(s.last_lsn, s.get_page(bytes.fromhex(sys.argv[2])))\n"
    )
    command = ["unshare", "-m", sys.executable, "-c", code, str(path), digest.hex()]
    out = subprocess.run(command, capture_output=True, text=True, check=False)
    if "unshare" in out.stderr or "mount" in out.stderr:
        pytest.skip(f"cannot mount here: {out.stderr.splitlines()[-1]}")
    assert out.stdout.strip() == "4 b'page'", out.stderr


def test_a_network_file_system_is_refused_unless_allowed(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("florlog_wal.directory.filesystem", lambda path: "nfs4")
    with pytest.raises(NetworkFilesystem, match="nfs4"):
        RunLog.open(path, mode="w")
    RunLog.open(path, mode="w", allow_network=True).close()
    for said, allowed in (("0", False), ("1", True)):
        monkeypatch.setenv("FLORLOG_ALLOW_NETWORK", said)
        with nullcontext() if allowed else pytest.raises(NetworkFilesystem, match="FLORLOG_ALLOW_NETWORK=1"):
            RunLog.open(path).close()


def test_the_file_system_is_that_of_the_deepest_mount(tmp_path: Path) -> None:
    table = tmp_path / "mountinfo"
    table.write_text(
        "1 0 8:1 / / rw - ext4 /dev/a rw\n"
        "2 1 0:1 / /home rw,x shared:1 - nfs4 server:/home rw\n"
        "3 2 0:2 / /home/my\\040disk rw - xfs /dev/b rw\n"
    )
    assert filesystem(Path("/srv/x"), table) == "ext4"
    assert filesystem(Path("/home/me/store"), table) == "nfs4"
    assert filesystem(Path("/home/my disk/store"), table) == "xfs"
    assert filesystem(Path("/homework"), table) == "ext4"


# -- fork --------------------------------------------------------------------------------------------


def test_a_forked_child_can_neither_write_nor_read_nor_harm_the_parent(path: Path) -> None:
    store = RunLog.open(path, mode="w", window=0.001)
    session = fill(store, 3)
    held = [store]

    def child() -> None:
        calls = (
            lambda: held[0].append(commit(9), session=session),
            lambda: held[0].sync(),
            lambda: held[0].put_pages([b"x"]),
            lambda: held[0].last_lsn,
            lambda: list(held[0].scan()),
            lambda: held[0].get_page(b"0" * 16),
            lambda: RunLog.open(path),
        )
        for call in calls:
            try:
                call()
            except Forked:
                continue
            raise AssertionError("no Forked")
        held[0].close()
        held.clear()
        garbage.collect()

    assert in_child(child) == 0
    for index in range(3, 50):
        store.append(commit(index), session=session)
        store.put_pages([bytes([index]) * 100])
    assert store.writer() is not None
    with pytest.raises(RunLocked):
        RunLog.open(path, mode="w")
    store.close()
    report = verify(path)
    assert report.ok
    assert report.records == 51


FORK_HOOKS = """
import os
hooks, register = [], os.register_at_fork
def watched(**calls):
    hooks.extend(call for call in calls.values() if call.__module__.startswith("florlog"))
    register(**calls)
os.register_at_fork = watched
import florlog_recovery, florlog_wal
print(len(hooks))
RunLog = florlog_wal.RunLog
RunLog.open(PATH, mode="w").close()
print(len(hooks))
store = RunLog.open(PATH)
print(len(hooks), flush=True)
if os.fork() == 0:
    try:
        store.last_lsn
    except florlog_wal.Forked:
        print("Forked", flush=True)
    os._exit(0)
os.wait()
"""


def test_fork_hooks_come_with_the_first_store_and_not_with_the_import(path: Path) -> None:
    assert elsewhere(FORK_HOOKS, path).split() == ["0", "2", "2", "Forked"]


def test_a_child_that_outlives_a_killed_writer_does_not_hold_the_lock(path: Path) -> None:
    read, write = os.pipe()

    def writer() -> None:
        store = RunLog.open(path, mode="w")
        fill(store, 1)
        if os.fork() == 0:
            os.write(write, b"%d\n" % os.getpid())
            time.sleep(60)
            os._exit(0)
        time.sleep(0.2)
        os.kill(os.getpid(), signal.SIGKILL)

    assert in_child(writer) == signal.SIGKILL
    orphan = int(os.read(read, 20))
    try:
        with RunLog.open(path, mode="w") as store:
            assert store.last_lsn == 2
    finally:
        os.kill(orphan, signal.SIGKILL)
        os.close(read)
        os.close(write)


def test_a_fork_in_the_midst_of_appends_leaves_the_log_whole(path: Path) -> None:
    with RunLog.open(path, mode="w", window=0.001) as store:
        session = store.append(run_begin())
        stop = threading.Event()
        count = [0]

        def work() -> None:
            while not stop.is_set():
                store.append(commit(count[0]), session=session)
                count[0] += 1

        thread = threading.Thread(target=work)
        thread.start()
        for _ in range(20):
            assert in_child(lambda: None) == 0
        stop.set()
        thread.join()
        assert store.sync() == count[0] + 1
    assert verify(path).ok


@given(
    st.lists(records_of(Commit), min_size=1, max_size=5),
    st.sampled_from(["group", "sync"]),
    st.integers(0, 5),
)
@settings(max_examples=25, deadline=None)  # each makes a store
def test_commits_given_by_their_fields_are_the_records(
    commits: list[Record], durability: Literal["group", "sync"], first: int
) -> None:
    with (
        tempfile.TemporaryDirectory() as path,
        RunLog.open(path, mode="w", durability=durability, window=LONG_WINDOW_SECONDS) as store,
    ):
        session = store.append(run_begin())
        for record in commits:
            store.append(record, session=session)
        held: list[CommitFields] = [fields(record) for record in commits]
        first = min(first, len(held))
        store.commit(session, held, first)
        assert len(held) == len(commits) - first
        store.commit(session, held)
        assert held == []
        (_, *found) = store.scan(1)
        appended, by_fields = found[: len(commits)], found[len(commits) :]
        assert [exact(entry.record) for entry in by_fields] == [exact(entry.record) for entry in appended]
        assert [entry.nbytes for entry in by_fields] == [entry.nbytes for entry in appended]
        assert {(entry.session, entry.prev_lsn) for entry in by_fields} == {(session, 0)}
        if durability == "sync":
            assert store.durable_lsn == found[-1].lsn


def test_commits_that_a_signal_interrupts_are_each_appended_once(tmp_path: Path) -> None:
    class Rung(Exception):  # noqa: N818
        pass

    def ring(*_: object) -> None:
        raise Rung

    interrupted = 0
    earlier = signal.signal(signal.SIGALRM, ring)
    try:
        with RunLog.open(tmp_path / "store", mode="w", window=0.001) as store:
            session = store.append(run_begin())
            for batch in range(300):
                held: list[CommitFields] = [fields(commit(20 * batch + place)) for place in range(20)]
                delay = 1e-5 + 1e-7 * batch
                while held:
                    delay *= 1.1
                    try:
                        signal.setitimer(signal.ITIMER_REAL, delay)
                        store.commit(session, held)
                        signal.setitimer(signal.ITIMER_REAL, 0)
                    except Rung:
                        interrupted += 1
            (_, *found) = store.scan(1)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, earlier)
    assert [entry.record for entry in found] == [commit(index) for index in range(6000)]
    assert interrupted > 20


def test_a_list_of_sessions_is_the_present_one(tmp_path: Path) -> None:
    with RunLog.open(tmp_path / "store", mode="w") as writer, RunLog.open(tmp_path / "store") as reader:
        for count in range(1, 6):
            session = writer.append(run_begin(run=f"run-{count}"))
            assert len(reader.sessions()) == len(writer.sessions()) == count
            assert reader.sessions()[-1].last_lsn == session
            writer.append(commit(session), session=session)
            assert reader.sessions()[-1].counts[Commit] == 1
            assert reader.sessions() is not reader.sessions()
