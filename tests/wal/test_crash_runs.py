"""Crashes and races in stores of several runs, a sample; `make crash` tries all and prints the counts."""

from __future__ import annotations

import os
import pkgutil
import random
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from florlog_wal import NoSuchRun, NotAStore, RunExists, RunLocked, RunLog, Store, gc, pack, unpack, verify
from florlog_wal.directory import WriterLock

from tests.wal import crash_runs, injection, many_runs, operations
from tests.wal.samples import run_begin

REASON = injection.why_not()
KILLS = 3  # of each operation
STOPS = 4  # of each pair
PAIRS = 15


@pytest.fixture
def choose() -> Iterator[random.Random]:
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    return random.Random(seed)


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let copies of the store lie in memory: a kill leaves there what it leaves on a disk."""
    if os.access("/dev/shm", os.W_OK):
        monkeypatch.setattr(tempfile, "tempdir", "/dev/shm")


@pytest.mark.drawn(2)
@pytest.mark.parametrize("name", operations.OPERATIONS)
@pytest.mark.usefixtures("memory")
@pytest.mark.crash
@pytest.mark.skipif(REASON is not None, reason=REASON or "")
def test_a_kill_with_neighbours(name: str, choose: random.Random, tmp_path: Path) -> None:
    operations.make_template(tmp_path, name)
    operation = operations.OPERATIONS[name](tmp_path)
    points = choose.sample(crash_runs.points_of(operation.work, tmp_path, 10), KILLS)
    outcomes = [crash_runs.kill_at(point, operation, tmp_path) for point in points]
    assert [outcome for outcome in outcomes if outcome.wrong] == []
    assert sum(outcome.reached for outcome in outcomes) >= KILLS // 2


@pytest.mark.drawn(4)
@pytest.mark.parametrize("number", range(PAIRS))
@pytest.mark.usefixtures("memory")
@pytest.mark.crash
@pytest.mark.skipif(REASON is not None, reason=REASON or "")
def test_two_operations_at_once(number: int, choose: random.Random, tmp_path: Path) -> None:
    found = crash_runs.make_pairs(tmp_path)
    assert len(found) == PAIRS
    points = choose.sample(crash_runs.pair_points(found[number], tmp_path, 1), STOPS)
    outcomes = [crash_runs.pair_at(point, found[number], tmp_path) for point in points]
    assert [outcome for outcome in outcomes if outcome.wrong] == []
    assert sum(outcome.reached for outcome in outcomes) >= STOPS // 2


# -- races, each at its one instant -------------------------------------------------------------------


@pytest.fixture
def path(tmp_path: Path) -> Path:
    with Store.make(tmp_path / "store") as store:
        for number, run in enumerate("ab"):
            with store.new_log(run) as log:
                many_runs.record(log, run, 2, float(number))
    return tmp_path / "store"


def before(monkeypatch: pytest.MonkeyPatch, where: str, happens: Callable[[], object]) -> None:
    """Let something happen once, before a function is called next time."""
    owner, _, name = where.rpartition(".")
    original, left = getattr(pkgutil.resolve_name(owner), name), [happens]

    def called(*arguments: object, **options: object) -> object:
        if left:
            left.pop()()
        return original(*arguments, **options)

    monkeypatch.setattr(pkgutil.resolve_name(owner), name, called)


def test_a_run_that_is_made_while_a_sweep_looks_at_its_directory_stays(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (path / "runs" / "n").mkdir()  # its writer goes on from here

    def make() -> None:
        with RunLog.open(path / "runs" / "n", mode="x") as log:
            log.append(run_begin("n"))

    before(monkeypatch, "florlog_wal.store.WriterLock", make)
    with Store.open(path) as store:
        assert store.sweep() == 0
    assert verify(path / "runs" / "n").records == 1


@pytest.mark.parametrize(
    "at", ["pathlib.Path.iterdir", "florlog_wal.directory.check_files", "florlog_wal.run_log.WriterLock"]
)
def test_a_writer_whose_new_directory_is_swept_makes_it_again(
    path: Path, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    with Store.open(path) as store, Store.open(path) as other:
        before(monkeypatch, at, other.sweep)
        with store.new_log("n") as log:
            log.append(run_begin("n"))
    assert verify(path / "runs" / "n").records == 1


def test_a_writer_whose_new_directory_is_being_swept_is_told_that_the_name_is_taken(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[WriterLock] = []
    with Store.open(path) as store:
        before(
            monkeypatch,
            "florlog_wal.run_log.WriterLock",
            lambda: held.append(WriterLock(path / "runs" / "n")),
        )
        with pytest.raises(RunExists):
            store.new_log("n")
        held.pop().release()
        store.sweep()
        store.new_log("n").close()


def test_of_two_writers_after_a_sweep_the_second_one_does_not_go_on_with_the_run_of_the_first(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def swept_and_made() -> None:
        with Store.open(path) as other:
            other.sweep()
            with other.new_log("n") as log:
                log.append(run_begin("n"))

    before(monkeypatch, "florlog_wal.run_log.WriterLock", swept_and_made)
    with Store.open(path) as store, pytest.raises(RunExists):
        store.new_log("n")
    assert verify(path / "runs" / "n").sessions == 1


def test_the_lock_of_a_directory_that_was_removed_is_not_taken(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before(monkeypatch, "fcntl.fcntl", lambda: shutil.rmtree(path / "runs" / "a"))
    with pytest.raises(FileNotFoundError):
        WriterLock(path / "runs" / "a")
    (path / "runs" / "b" / "lock").unlink()
    before(monkeypatch, "fcntl.fcntl", lambda: replaced(path / "runs" / "b"))
    lock = WriterLock(path / "runs" / "b")
    with pytest.raises(RunLocked):
        WriterLock(path / "runs" / "b")
    lock.release()


def replaced(where: Path) -> None:
    """As a run that was removed and made again."""
    where.rename(where.with_name(".removed-1"))
    shutil.copytree(where.with_name(".removed-1"), where)


@pytest.mark.parametrize(
    "at", ["florlog_wal.gc._choose", "florlog_wal.gc.StoredImages", "florlog_wal.gc._look"]
)
def test_a_run_that_is_removed_beside_a_gc_stays_away_and_is_no_damage(
    path: Path, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    def remove() -> None:
        with Store.open(path) as other:
            other.remove("a")

    before(monkeypatch, at, remove)
    report = gc(path, redo_bound=1.0)
    assert report.damaged == []
    assert many_runs.names(path) == {"b"}


def test_a_run_that_is_removed_while_it_is_opened_again_is_not_made_anew(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Store.open(path) as store, Store.open(path) as other:
        before(monkeypatch, "florlog_wal.run_log.WriterLock", lambda: other.remove("a"))
        with pytest.raises(NoSuchRun):
            store.open_log("a")
        before(monkeypatch, "florlog_wal.store.WriterLock", lambda: other.remove("b"))
        with pytest.raises(NoSuchRun):
            store.remove("b")
    assert many_runs.names(path) == set()
    with pytest.raises(NotAStore):
        RunLog.open(path / "runs" / "a", mode="r+")


def test_a_removal_and_a_sweep_at_once_remove_everything(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Store.open(path) as store, Store.open(path) as other:
        before(monkeypatch, "shutil.rmtree", lambda: swept(other))
        store.remove("a")
    assert many_runs.names(path) == {"b"}


def swept(store: Store) -> None:
    """What a sweep does when the lock of a removed run is deleted."""
    (removed,) = (store.path / "runs").glob(".removed-*")
    (removed / "lock").unlink()
    assert store.sweep() == 1


def test_an_unpack_waits_for_a_sweep_that_is_at_its_place(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Store.open(path) as store:
        pack(store, "a", tmp_path / "packed")
        store.remove("a")

        def locked() -> None:
            lock = WriterLock(path / "runs" / "a")
            threading.Timer(0.05, lambda: (shutil.rmtree(path / "runs" / "a"), lock.release())).start()

        before(monkeypatch, "florlog_wal.packing._move", locked)
        assert unpack(tmp_path / "packed", store) == "a"
    assert verify(path / "runs" / "a").ok
