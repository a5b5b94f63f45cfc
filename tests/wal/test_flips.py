"""Flipped bits give the right value or an error, never another value, never a dead interpreter."""

from __future__ import annotations

import contextlib
import os
import random
import re
import shutil
import signal
import struct
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import lmdb
import pytest
from florlog_wal import CorruptRecord, CorruptStore, RunLog, WalError, btree, filecheck, verify

from tests.wal import flips
from tests.wal.samples import commit, run_begin

pytestmark = pytest.mark.drawn_in_file(9)


def in_child(work: Callable[[], Counter[str]]) -> Counter[str]:
    """Run in a child, so that a signal is a failed test and not a dead suite."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        text = "nothing"
        try:
            text = repr(dict(work()))
        except BaseException as error:  # the parent reports it
            text = str(error)
        finally:
            os.write(write, text.encode()[:4000])
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        text = pipe.read()
    status = os.waitpid(child, 0)[1]
    assert status == 0, f"the interpreter died: wait status {status}"
    assert text.startswith("{"), text
    return Counter(eval(text))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[bytes]]:
    path = tmp_path_factory.mktemp("flips") / "store"
    return path, flips.make(path, 3)


def test_a_flip_anywhere_in_a_small_store(small: tuple[Path, list[bytes]]) -> None:
    path, digests = small
    start = random.randrange(997)
    print(f"every 997th bit from {start}")
    counts = in_child(lambda: flips.try_flips(path, digests, flips.all_bits(path, start=start, every=997)))
    assert counts["an error"] > 50


def test_a_flip_in_the_structure_of_a_small_store(small: tuple[Path, list[bytes]]) -> None:
    path, digests = small
    choose = random.Random(seed := random.randrange(10**6))
    print(f"seed {seed}")
    some = choose.sample(list(flips.head_bits(path)), 1200)
    counts = in_child(lambda: flips.try_flips(path, digests, some))
    assert counts["an error"] > 100


def test_random_flips_in_a_larger_store(tmp_path: Path) -> None:
    path = tmp_path / "store"
    digests = flips.make(path, 150)
    choose = random.Random(seed := random.randrange(10**6))
    print(f"seed {seed}")
    counts = in_child(lambda: flips.try_flips(path, digests, flips.random_bits(path, choose, 150)))
    assert counts["an error"] > 2


def test_everything_before_a_damaged_record_stays_readable(tmp_path: Path) -> None:
    path = tmp_path / "store"
    with RunLog.open(path, mode="w") as store:
        session = store.append(run_begin())
        for index in range(1000):
            store.append(commit(index, value=f"value {index:04}"), session=session)
    data = path / "log" / "data.mdb"
    data.write_bytes(data.read_bytes().replace(b"value 0700", b"value 0709"))
    with RunLog.open(path) as store:
        found = []
        with pytest.raises(CorruptRecord) as caught:
            found.extend(entry.lsn for entry in store.scan())
        assert caught.value.lsn == 702
        assert "LSN 702" in str(caught.value)
        assert list(store.scan(1, 702))[-1].record == commit(699, value="value 0699")
        assert store.record(703).record == commit(701, value="value 0701")
    assert verify(path).problems[0].where == 702


def test_the_walk_agrees_with_lmdb(tmp_path: Path) -> None:
    """Trees of all shapes read the same by our walk and by the engine."""
    choose = random.Random(5)
    for count, largest in ((0, 10), (1, 10), (200, 10), (3000, 50), (500, 9000)):
        folder = tmp_path / f"{count}.{largest}"
        keys = {choose.randbytes(choose.randint(1, 20)) for _ in range(count)}
        items = {key: choose.randbytes(choose.randint(0, largest)) for key in keys}
        with lmdb.open(str(folder), map_size=1 << 28, max_dbs=2) as env:
            database = env.open_db(b"some")
            with env.begin(write=True) as txn:
                for key, value in items.items():
                    txn.put(key, value, db=database)
            with env.begin(write=True) as txn:
                for key in choose.sample(sorted(items), len(items) // 3):
                    txn.delete(key, db=database)
                    del items[key]
        fd = os.open(folder / "data.mdb", os.O_RDONLY)
        filecheck.check_file(fd)
        snapshot = btree.Snapshot(fd, None)
        ordered = sorted(items.items())
        assert [item for leaf in snapshot.leaves("some") for item in leaf] == ordered
        assert snapshot.tree("some").entries == len(items)
        assert dict(snapshot.sizes("some")) == {key: len(value) for key, value in ordered}
        assert snapshot.last("some") == (ordered[-1] if ordered else None)
        for key, value in choose.sample(ordered, min(50, len(ordered))):
            assert snapshot.get("some", key) == value
            later = [item for leaf in snapshot.leaves("some", key) for item in leaf if item[0] >= key]
            assert later == [item for item in ordered if item[0] >= key]
        assert snapshot.get("some", b"no such key, it is too long") is None
        os.close(fd)


def test_a_writer_refuses_a_damaged_structure_and_its_interpreter_lives(
    small: tuple[Path, list[bytes]], tmp_path: Path
) -> None:
    """The engine trusts the pages that it changes; a flip is refused, or harmless, or an error afterwards."""
    path, _ = small
    with RunLog.open(path) as store:
        before = list(store.scan())
    choose = random.Random(seed := random.randrange(10**6))
    print(f"seed {seed}")
    for name, byte, bit in choose.sample(list(flips.head_bits(path)), 30):
        copy = tmp_path / "copy"
        shutil.copytree(path, copy)
        data = bytearray((copy / name).read_bytes())
        data[byte] ^= 1 << bit
        (copy / name).write_bytes(data)

        def go_on(copy: Path = copy) -> Counter[str]:
            try:
                with RunLog.open(copy, mode="w", window=3600) as store:
                    store.append(commit(0), session=store.append(run_begin()))
                    store.put_pages([os.urandom(9000) for _ in range(3)])
            except WalError:
                return Counter(refused=1)
            return Counter(written=1)

        if in_child(go_on)["written"]:
            with contextlib.suppress(WalError), RunLog.open(copy) as store:
                assert list(store.scan())[:-2] == before
        shutil.rmtree(copy)


def test_a_free_page_that_is_in_use_is_refused_before_it_is_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with RunLog.open(path, mode="w", window=3600) as store:
        session = store.append(run_begin())
        for index in range(300):
            store.append(commit(index), session=session)
            if index % 50 == 0:
                store.sync()
    data = path / "log" / "data.mdb"
    fd = os.open(data, os.O_RDONLY)
    snapshot = btree.Snapshot(fd, None)
    used = snapshot.tree("records").root
    _, pages = next(snapshot.free_pages())
    os.close(fd)
    listed = struct.pack("<Q", len(pages)) + pages.tobytes()
    assert listed in data.read_bytes()
    wrong = struct.pack("<Q", len(pages)) + struct.pack("<Q", used) + pages[1:].tobytes()
    data.write_bytes(data.read_bytes().replace(listed, wrong))
    with pytest.raises(CorruptStore, match=f"page {used} is in use twice"):
        RunLog.open(path, mode="w")
    with RunLog.open(path) as store:
        assert len(list(store.scan())) == 301
    assert [problem.text for problem in verify(path).problems if "in use twice" in problem.text]


def test_a_flip_in_the_tail_ends_the_log_there(tmp_path: Path) -> None:
    with RunLog.open(tmp_path / "s", mode="w", window=3600) as store:
        session = store.append(run_begin())
        store.sync()  # the next filling begins in the other segment
        for index in range(5):
            store.append(commit(index), session=session)
        shutil.copytree(tmp_path / "s", tmp_path / "killed")
    tails = [tmp_path / "killed" / name for name in ("tail.0", "tail.1")]
    tail = next(tail for tail in tails if b"loss" in tail.read_bytes())
    whole = tail.read_bytes()
    first, third = whole.index(b"loss"), [m.start() for m in re.finditer(b"loss", whole)][2]
    for at, last in ((first, 1), (third, 3)):
        tail.write_bytes(whole[:at] + b"m" + whole[at + 1 :])
        with RunLog.open(tmp_path / "killed") as store:
            assert [entry.lsn for entry in store.scan()] == list(range(1, last + 1))
        assert verify(tmp_path / "killed").ok


def set_newest_transaction(data: Path, change: int) -> None:
    """Change the transaction number in the newer meta page."""
    fd = os.open(data, os.O_RDWR)
    metas = btree.read_metas(fd)
    newest = max(range(2), key=lambda i: metas[i].txn)
    at = newest * 4096 + 16 + 24 + 2 * 48 + 8
    assert struct.unpack("<Q", os.pread(fd, 8, at)) == (metas[newest].txn,)
    os.pwrite(fd, struct.pack("<Q", metas[newest].txn + change), at)
    os.close(fd)


@pytest.mark.parametrize("change", [1, 4, -4, 2**40])
def test_meta_pages_that_cannot_follow_each_other_are_damage(tmp_path: Path, change: int) -> None:
    with RunLog.open(tmp_path / "s", mode="w") as store:
        store.append(run_begin())
    set_newest_transaction(tmp_path / "s" / "log" / "data.mdb", change)
    with pytest.raises(CorruptStore, match="never follow"):
        RunLog.open(tmp_path / "s")


@pytest.mark.parametrize("commits", [4, 5, 6, 7, 11])
def test_no_flip_in_a_meta_page_hides_the_last_commit_even_after_a_power_cut(
    tmp_path: Path, commits: int
) -> None:
    """Only its number makes one of the two meta pages the newer one; nothing else says what came last."""
    path = tmp_path / "s"
    with RunLog.open(path, mode="w", window=3600) as store:
        session = store.append(run_begin())
        for index in range(commits):
            store.append(commit(index), session=session)
            store.sync()
    (path / "end").unlink()
    numbers = [
        *range(88, 96),
        *range(128, 144),
    ]  # of the meta page: the tree's root; last page and transaction
    some = [("log/data.mdb", page + byte, bit) for page in (0, 4096) for byte in numbers for bit in range(8)]
    files = ("log/data.mdb",)
    assert in_child(lambda: flips.try_flips(path, [], some, files)).total() == len(some)
    set_newest_transaction(path / "log" / "data.mdb", -2)
    with RunLog.open(path, mode="w") as store:
        assert store.durable_lsn == commits + 1
    assert verify(path).ok


def test_an_older_tree_in_a_killed_store_is_seen_or_made_good_by_the_tail(tmp_path: Path) -> None:
    """A flipped bit in LMDB's meta page may lead to the tree of an earlier commit, which is sound."""
    path = tmp_path / "s"
    child = os.fork()
    if child == 0:
        store = RunLog.open(path, mode="w", window=0.001)
        session = store.append(run_begin())
        for index in range(4):
            store.append(commit(index), session=session)
            store.sync()
            (tmp_path / str(index)).write_bytes((path / "log" / "data.mdb").read_bytes())
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    shutil.copytree(path, tmp_path / "killed")
    for index in range(4):
        shutil.rmtree(path)
        shutil.copytree(tmp_path / "killed", path)
        (path / "log" / "data.mdb").write_bytes((tmp_path / str(index)).read_bytes())
        with RunLog.open(path) as store:
            if index < 1:
                with pytest.raises(CorruptRecord):
                    store.last_lsn  # noqa: B018
                with pytest.raises(CorruptRecord):
                    store.sessions()
            else:
                assert [entry.lsn for entry in store.scan()] == [1, 2, 3, 4, 5]
                assert store.sessions()[0].last_lsn == 5
        assert verify(path).ok == (index >= 1)
        if index < 1:
            with pytest.raises(CorruptRecord):
                RunLog.open(path, mode="w")
        else:
            RunLog.open(path, mode="w").close()
            assert verify(path).ok
