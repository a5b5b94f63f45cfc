"""Failing disks: training goes on, committed records stay readable, recording resumes or stops cleanly."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from florlog_wal import LogStopped, PagesFailed, RunLog, log, pages, verify
from florlog_wal.errors import StoreFailed

from tests.wal.samples import commit, run_begin

LONG_WINDOW_SECONDS = 3600.0


class Disk:
    """Commits of the log that fail while ``broken``."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.broken = False
        self.attempts = 0
        original = log.write_records

        def write_records(env, records):  # type: ignore[no-untyped-def]
            self.attempts += 1
            if self.broken:
                raise StoreFailed(str(env.path), "No space left on device")
            return original(env, records)

        monkeypatch.setattr(log, "write_records", write_records)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


@pytest.fixture(autouse=True)
def no_thread_dies() -> Iterator[None]:
    died = []
    threading.excepthook, before = died.append, threading.excepthook
    yield
    threading.excepthook = before
    assert not died


def wait_for(condition) -> None:  # type: ignore[no-untyped-def]
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_appends_go_on_while_the_tail_has_room_and_recording_resumes_by_itself(
    tmp_path: Path, disk: Disk
) -> None:
    with RunLog.open(tmp_path / "s", mode="w", window=0.001) as store:
        session = store.append(run_begin())
        store.sync()
        disk.broken = True
        for index in range(1000):
            store.append(commit(index), session=session)
        wait_for(lambda: store.failure is not None)
        assert "No space left" in str(store.failure)
        with pytest.raises(LogStopped, match="No space left") as caught:
            store.sync()
        assert caught.value.durable_lsn == 1
        assert store.append(commit(1000), session=session) == 1002
        disk.broken = False
        assert store.sync() == 1002
        assert store.failure is None
    assert verify(tmp_path / "s").records == 1002


def test_a_full_tail_stops_the_log_for_good_and_a_later_open_finds_all_that_was_appended(
    tmp_path: Path, disk: Disk
) -> None:
    store = RunLog.open(tmp_path / "s", mode="w", window=0.001)
    session = store.append(run_begin())
    store.sync()
    disk.broken = True
    value = b"v" * 100_000
    appended = [1]

    def append_until_it_stops() -> None:
        while appended[-1] < 1000:
            appended.append(store.append(commit(0, value=value), session=session))

    with pytest.raises(LogStopped, match="tail is full") as caught:
        append_until_it_stops()
    last = appended[-1]
    assert 40 < last < 90  # the one or two segments of 4 MiB that were left
    assert caught.value.durable_lsn == 1
    for call in (lambda: store.append(commit(0), session=session), store.sync):
        with pytest.raises(LogStopped):
            call()
    with pytest.raises(LogStopped):
        store.close()
    disk.broken = False
    with RunLog.open(tmp_path / "s") as reader:
        assert reader.last_lsn == last
    with RunLog.open(tmp_path / "s", mode="w") as again:
        assert again.durable_lsn == last
        assert again.append(commit(0), session=session) == last + 1
    assert verify(tmp_path / "s").ok


def test_closing_with_a_broken_disk_says_so_and_loses_nothing(tmp_path: Path, disk: Disk) -> None:
    store = RunLog.open(tmp_path / "s", mode="w", window=LONG_WINDOW_SECONDS)
    store.append(run_begin())
    store.append(commit(0), session=1)
    disk.broken = True
    with pytest.raises(LogStopped, match="No space left"):
        store.close()
    disk.broken = False
    with RunLog.open(tmp_path / "s") as reader:
        assert reader.last_lsn == 2


def test_with_durability_sync_a_commit_that_cannot_be_made_durable_raises(tmp_path: Path, disk: Disk) -> None:
    store = RunLog.open(tmp_path / "s", mode="w", durability="sync", window=LONG_WINDOW_SECONDS)
    session = store.append(run_begin())
    store.append(commit(0), session=session)
    disk.broken = True
    with pytest.raises(LogStopped):
        store.append(commit(1), session=session)
    disk.broken = False
    store.close()


def test_an_environment_that_cannot_be_opened_again_is_tried_again(tmp_path: Path, disk: Disk) -> None:
    """The file is missing for a moment.  No descriptor is closed twice: it could meanwhile belong to somebody else."""
    store = RunLog.open(tmp_path / "s", mode="w", window=0.001)
    session = store.append(run_begin())
    store.sync()
    data, hidden = tmp_path / "s" / "log" / "data.mdb", tmp_path / "hidden"
    data.rename(hidden)
    disk.broken = True
    store.append(commit(0), session=session)
    wait_for(lambda: disk.attempts > 4)
    others = [os.open(tmp_path, os.O_RDONLY) for _ in range(20)]
    with pytest.raises(StoreFailed):
        store.record(1)
    wait_for(lambda: disk.attempts > 6)
    for fd in others:
        os.close(fd)  # raises if somebody else has closed it
    assert not data.exists()  # a missing file is not made anew
    hidden.rename(data)
    disk.broken = False
    wait_for(lambda: store.durable_lsn == 2)
    assert store.record(2).record == commit(0)
    store.close()
    assert verify(tmp_path / "s").ok


def test_retries_back_off_and_do_not_spin(tmp_path: Path, disk: Disk) -> None:
    store = RunLog.open(tmp_path / "s", mode="w", window=0.001)
    disk.broken = True
    store.append(run_begin())
    time.sleep(0.5)
    assert disk.attempts < 10
    disk.broken = False
    store.close()


def test_pages_that_cannot_be_written_leave_the_log_going(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with RunLog.open(tmp_path / "s", mode="w") as store:
        session = store.append(run_begin())
        with monkeypatch.context() as broken:
            broken.setattr(
                pages, "put", lambda *_: (_ for _ in ()).throw(StoreFailed("pages", "Disk quota exceeded"))
            )
            with pytest.raises(PagesFailed, match="Disk quota exceeded"):
                store.put_pages([b"page"])
        store.append(commit(0), session=session)
        assert store.put_pages([b"page"]).written_bytes == 4
    assert verify(tmp_path / "s").ok


FULL_DISK = """
import sys
from florlog_wal import LogStopped, PagesFailed, RunLog
from tests.wal.samples import commit, run_begin
store = RunLog.open(sys.argv[1], mode="w", window=0.001)
session = store.append(run_begin())
appended = images = 0
warned = set()
for index in range(3000):
    try:
        appended = store.append(commit(index, value=b"v" * 4000), session=session)
    except LogStopped as error:
        warned.add("log")
    try:
        if index % 10 == 0:
            store.put_pages([index.to_bytes(4) * 5000])
            images += 1
    except PagesFailed as error:
        warned.add("pages")
try:
    store.close()
except LogStopped:
    pass
print(appended, images, *sorted(warned))
"""


def judge_full_disk(out: subprocess.CompletedProcess[str], store: Path) -> None:
    assert out.returncode == 0, out.stderr
    assert out.stderr == ""
    appended, images, *warned = out.stdout.split()
    assert warned == ["log", "pages"]
    report = verify(store)
    assert report.ok, report.problems
    assert report.records == int(appended) > 100
    assert report.pages == int(images) > 2


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_a_full_disk_ends_the_recording_and_not_the_training(tmp_path: Path) -> None:
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(tmp_path)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("cannot mount a small disk here")
    try:
        command = [sys.executable, "-c", FULL_DISK, str(tmp_path / "s")]
        out = subprocess.run(command, capture_output=True, text=True, check=False)
        subprocess.run(["mount", "-o", "remount,size=64m", str(tmp_path)], check=True)
        judge_full_disk(out, tmp_path / "s")
    finally:
        subprocess.run(["umount", "-l", str(tmp_path)], check=True)


def test_a_file_size_limit_ends_the_recording_and_not_the_training(tmp_path: Path) -> None:
    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (5 << 20, 5 << 20))

    command = [sys.executable, "-c", FULL_DISK, str(tmp_path / "s")]
    out = subprocess.run(command, capture_output=True, text=True, check=False, preexec_fn=limit)
    judge_full_disk(out, tmp_path / "s")


MAP_LIMIT = """
import resource, sys
from florlog_wal import LogStopped, RunLog
from tests.wal.samples import commit, run_begin
store = RunLog.open(sys.argv[1], mode="w", window=0.001, log_map_size=1 << 25)
session = store.append(run_begin())
store.sync()
used = int(open("/proc/self/statm").read().split()[0]) * 4096
resource.setrlimit(resource.RLIMIT_AS, (used + (24 << 20), resource.RLIM_INFINITY))
appended, reason = 0, None
for index in range(6000):
    appended = store.append(commit(index, value=b"v" * 6000), session=session)
    if index % 16 == 0:  # a tail that is full when the map cannot grow would stop the log for good
        try:
            store.sync()
        except LogStopped as stopped:
            reason = str(stopped)
    reason = reason or store.failure
    if reason:
        break
assert store.record(1).record == run_begin()
resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
print(appended, store.sync(), reason)
store.close()
"""


def test_a_map_that_cannot_grow_leaves_all_readable_and_recording_resumes(tmp_path: Path) -> None:
    out = subprocess.run(
        [sys.executable, "-c", MAP_LIMIT, str(tmp_path / "s")], capture_output=True, text=True, check=False
    )
    assert out.returncode == 0, out.stderr
    appended, durable, reason = out.stdout.split(" ", 2)
    assert appended == durable
    assert "map cannot grow" in reason
    report = verify(tmp_path / "s")
    assert report.ok
    assert report.records == int(appended)
