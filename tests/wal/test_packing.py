"""A packed run is the run; a file from a stranger gives an equal run or is refused, and never a file elsewhere."""

from __future__ import annotations

import io
import os
import shutil
import signal
import sys
import tarfile
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from florlog_wal import (
    PAGE_SIZE,
    CheckpointEnd,
    NoSuchRun,
    NotPacked,
    PageEntry,
    RunExists,
    RunLog,
    Store,
    Thinner,
    decode_table,
    encode_table,
    pack,
    unpack,
    verify,
)
from florlog_wal.records import CheckpointBegin, Commit, Entry
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.wal.samples import checkpoint_end, commit, run_begin

BLOCK = 512


def record(log: RunLog, run: str, images: int = 3) -> None:
    """A session with small and large pages."""
    source = log.put_pages([b"print(1)"]).digests[0]
    session = log.append(run_begin(run, sources=(("/t.py", "t", source),)))
    for index in range(images):
        log.append(commit(index), session=session)
        image(log, session, index)


def image(log: RunLog, session: int, index: int) -> None:
    begin = log.append(CheckpointBegin(0, index + 1), session=session)
    pages = [bytes([index]) * 700, os.urandom(PAGE_SIZE)]
    entry = PageEntry("tensor", "uint8", (1,), 1, tuple(log.put_pages(pages).digests))
    table = log.put_pages([encode_table({"w": entry})]).digests[0]
    log.append(checkpoint_end(begin, table), session=session)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a store, and its run packed as ``file``."""
    root = tmp_path_factory.mktemp("packed")
    with Store.make(root / "store") as store:
        with store.new_log("r1") as log:
            record(log, "r1")
            with log.open_answers() as answers:
                answers.append(run_begin("r1", kind="replay"))
        pack(store, "r1", root / "file")
    return root


def names(folder: Path) -> list[str]:
    return [entry.name for entry in folder.iterdir()]


def contents(log: RunLog) -> tuple[list[Entry], list[bytes]]:
    entries = list(log.scan())
    tables = [
        log.get_page(entry.record.table) for entry in entries if isinstance(entry.record, CheckpointEnd)
    ]
    held = [decode_table(table)["w"].pages for table in tables]
    return entries, [*tables, *(log.get_page(page) for pages in held for page in pages)]


def equal(store: Path, other: Path, run: str = "r1") -> bool:
    with RunLog.open(store / "runs" / run) as one, RunLog.open(other / "runs" / run) as two:
        assert one.answers is not None
        assert two.answers is not None
        return contents(one) == contents(two) and contents(one.answers) == contents(two.answers)


def unpacked(file: Path, store: Path) -> str:
    with Store.make(store) as opened:
        return unpack(file, opened)


def test_a_run_comes_out_as_it_went_in(made: Path, tmp_path: Path) -> None:
    assert unpacked(made / "file", tmp_path / "other") == "r1"
    assert equal(made / "store", tmp_path / "other")
    where = tmp_path / "other" / "runs" / "r1"
    assert verify(where).ok
    assert names(tmp_path / "other" / "runs") == ["r1"]
    with Store.open(tmp_path / "other") as store, store.open_log("r1") as log:
        session = log.append(run_begin("r1", kind="resume"))
        image(log, session, 9)
    assert verify(where).ok


def test_equal_runs_give_equal_files_that_tar_can_list(made: Path, tmp_path: Path) -> None:
    with Store.open(made / "store") as store:
        assert pack(store, "r1", tmp_path / "again") == (tmp_path / "again").stat().st_size
    assert (tmp_path / "again").read_bytes() == (made / "file").read_bytes()
    assert names(tmp_path) == ["again"]
    with tarfile.open(made / "file") as archive:
        assert archive.getnames() == [
            "FLORLOG", "answers/FLORLOG", "answers/log/data.mdb", "answers/pages/data.mdb", "log/data.mdb",
            "pages/data.mdb", "segments/00000001",
        ]  # fmt: skip
        assert {(member.mtime, member.uid, member.uname) for member in archive} == {(0, 0, "")}


def test_a_run_that_the_store_has_is_not_replaced(made: Path, tmp_path: Path) -> None:
    unpacked(made / "file", tmp_path / "other")
    before = (tmp_path / "other" / "runs" / "r1" / "FLORLOG").stat()
    with pytest.raises(RunExists):
        unpacked(made / "file", tmp_path / "other")
    assert (tmp_path / "other" / "runs" / "r1" / "FLORLOG").stat() == before
    assert names(tmp_path / "other" / "runs") == ["r1"]
    with Store.open(made / "store") as store, pytest.raises(NoSuchRun):
        pack(store, "r2", tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_a_run_is_packed_while_it_is_written_and_thinned(tmp_path: Path) -> None:
    with Store.make(tmp_path / "store") as store, store.new_log("r1") as log:
        record(log, "r1", 10)
        ended = threading.Event()
        failures: list[BaseException] = []

        def write() -> None:
            try:
                thinner = Thinner(log)
                for index in range(10**6):
                    if ended.is_set():
                        return
                    log.append(commit(index), session=1)
                    image(log, 1, index)
                    if index % 5 == 4:
                        thinner.thin(6 * PAGE_SIZE)
            except BaseException as error:
                failures.append(error)

        writer = threading.Thread(target=write)
        writer.start()
        try:
            with Store.open(tmp_path / "store") as reading:
                for number in range(8):
                    pack(reading, "r1", tmp_path / f"file{number}")
        finally:
            ended.set()
            writer.join()
    assert not failures
    commits = []
    for number in range(8):
        unpacked(tmp_path / f"file{number}", tmp_path / f"other{number}")
        found = verify(tmp_path / f"other{number}" / "runs" / "r1")
        assert found.ok, found.problems
        assert found.images > 0
        with RunLog.open(tmp_path / f"other{number}" / "runs" / "r1") as other:
            commits.append(sum(1 for _ in other.scan(types=[Commit])))
    assert commits == sorted(commits)  # the number of records falls when images are thinned
    assert commits[0] < commits[-1]


# -- what a stranger may send -------------------------------------------------------------------------


class Outside:
    """A directory in which nothing but a store may change."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "victim").write_text("mine")
        Store.make(root / "store").close()
        self.before = self._others()

    def _others(self) -> dict[str, bytes]:
        return {
            str(path.relative_to(self.root)): path.read_bytes() if path.is_file() else b""
            for path in self.root.rglob("*")
            if "runs" not in path.relative_to(self.root).parts[1:2]
        }

    def refuses(self, data: bytes, made: Path) -> bool:
        """Whether a file is refused; if not, it must give the run of ``made``."""
        file = self.root.with_suffix(".file")
        file.write_bytes(data)
        runs = self.root / "store" / "runs"
        try:
            run = unpacked(file, self.root / "store")
        except NotPacked as error:
            said = str(error)
        else:
            said = ""
        assert self._others() == self.before
        if said:
            assert "\n" not in said
            assert names(runs) == []
            return True
        assert names(runs) == [run] == ["r1"]
        assert all(path.is_file() or path.is_dir() for path in runs.rglob("*"))
        assert not any(path.is_symlink() for path in runs.rglob("*"))
        assert equal(made / "store", self.root / "store")
        shutil.rmtree(runs / run)
        return False


@pytest.fixture
def outside(tmp_path: Path) -> Outside:
    (tmp_path / "root").mkdir()
    return Outside(tmp_path / "root")


def rewritten(made: Path, change: Callable[[tarfile.TarInfo], None], at: int = 0) -> bytes:
    """The archive with a header changed, as tarfile writes it."""
    out = io.BytesIO()
    form = tarfile.GNU_FORMAT
    with tarfile.open(made / "file") as old, tarfile.open(fileobj=out, mode="w", format=form) as new:
        for number, member in enumerate(old.getmembers()):
            body = old.extractfile(member)
            if number == at:
                change(member)
            if not member.isreg():
                member.size = 0
            new.addfile(member, body if member.isreg() else None)
        end = new.offset
    return out.getvalue()[:end] + bytes(2 * BLOCK)


def test_what_tarfile_writes_is_what_pack_writes(made: Path) -> None:
    assert rewritten(made, changed()) == (made / "file").read_bytes()


def changed(**attributes: object) -> Callable[[tarfile.TarInfo], None]:
    def change(member: tarfile.TarInfo) -> None:
        for name, value in attributes.items():
            setattr(member, name, value)

    return change


HOSTILE = {
    "a name above": changed(name="../victim"),
    "an absolute name": changed(name="/tmp/florlog-victim"),
    "a name through a directory": changed(name="log/../../victim"),
    "a dot": changed(name="./FLORLOG"),
    "another name": changed(name="sitecustomize.py"),
    "a lock": changed(name="lock"),
    "a long name": changed(name="segments/" + "0" * 300),
    "a segment of nine digits": changed(name="segments/000000001"),
    "answers to answers": changed(name="answers/answers/FLORLOG"),
    "a link": changed(type=tarfile.SYMTYPE, linkname="../../victim"),
    "a hard link": changed(type=tarfile.LNKTYPE, linkname="FLORLOG"),
    "a directory": changed(type=tarfile.DIRTYPE),
    "a device": changed(type=tarfile.CHRTYPE),
    "a pipe": changed(type=tarfile.FIFOTYPE),
    "a sparse file": changed(type=tarfile.GNUTYPE_SPARSE),
    "another mode": changed(mode=0o4755),
    "another owner": changed(uid=1000),
    "a newline": changed(name="FLORLOG\n"),
}


@pytest.mark.parametrize("kind", HOSTILE)
@pytest.mark.parametrize("at", [0, 4])
def test_a_member_that_no_packed_run_has_is_refused(kind: str, at: int, made: Path, outside: Outside) -> None:
    assert outside.refuses(rewritten(made, HOSTILE[kind], at), made)
    assert not Path("/tmp/florlog-victim").exists()


def members(data: bytes) -> list[tuple[bytes, bytes]]:
    """Header and body, padded, of each member."""
    found, at = [], 0
    while any(data[at : at + BLOCK]):
        size = int(data[at + 124 : at + 135], 8)
        end = at + BLOCK + size + -size % BLOCK
        found.append((data[at : at + BLOCK], data[at + BLOCK : end]))
        at = end
    return found


def joined(parts: list[tuple[bytes, bytes]]) -> bytes:
    return b"".join(head + body for head, body in parts) + bytes(2 * BLOCK)


def test_members_twice_missing_or_in_another_order_are_refused(made: Path, outside: Outside) -> None:
    data = (made / "file").read_bytes()
    parts = members(data)
    assert joined(parts) == data
    assert not outside.refuses(data, made)
    assert outside.refuses(joined([parts[0], *parts]), made)
    assert outside.refuses(joined([*parts, parts[-1]]), made)
    assert outside.refuses(joined(parts[::-1]), made)
    for at in range(len(parts)):
        assert outside.refuses(joined(parts[:at] + parts[at + 1 :]), made)
    for extra in (b"x", bytes(BLOCK), data):
        assert outside.refuses(data + extra, made)
    assert outside.refuses(b"", made)
    assert outside.refuses(bytes(2 * BLOCK), made)


def test_a_size_beyond_the_file_is_refused_before_anything_is_written(made: Path, outside: Outside) -> None:
    from florlog_wal.packing import _header

    parts = members((made / "file").read_bytes())
    for size in (len(parts[0][1]) + 10**6, 10**15, 8**11 + 5):
        assert outside.refuses(joined([(_header("FLORLOG", size), parts[0][1]), *parts[1:]]), made)


def test_another_run_of_the_same_form_is_refused_where_its_name_leads_elsewhere(
    made: Path, outside: Outside, tmp_path: Path
) -> None:
    for name in ("../evil", ".hidden", "", "a/b"):
        with RunLog.open(tmp_path / "evil", mode="w") as log:
            record(log, name, 1)
        with Store.make(tmp_path / "evil-store") as store:
            shutil.move(tmp_path / "evil", store.path / "runs" / "evil")
            # past the check of the name that `pack` makes
            store.log = lambda run: None  # type: ignore[method-assign, assignment, return-value]
            pack(store, "evil", tmp_path / "file")
        assert outside.refuses((tmp_path / "file").read_bytes(), made)
        shutil.rmtree(tmp_path / "evil-store")


@given(data=st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
def test_a_file_that_was_changed_gives_an_equal_run_or_none(
    data: st.DataObject, made: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    whole = bytearray((made / "file").read_bytes())
    parts = members(bytes(whole))
    starts = [sum(len(h) + len(b) for h, b in parts[:at]) for at in range(len(parts))]
    kind = data.draw(st.sampled_from(["flip", "header", "cut", "zeros", "swap"]))
    if kind == "cut":
        del whole[data.draw(st.integers(0, len(whole) - 1)) :]
    elif kind == "swap":
        a, b = (data.draw(st.integers(0, len(parts) - 1)) for _ in range(2))
        parts[a], parts[b] = (parts[a][0], parts[b][1]), (parts[b][0], parts[a][1])
        whole = bytearray(joined(parts))
    else:
        for _ in range(data.draw(st.integers(1, 3))):
            if kind == "header":
                at = data.draw(st.sampled_from(starts)) + data.draw(st.integers(0, BLOCK - 1))
            else:
                at = data.draw(st.integers(0, len(whole) - 1))
            length = data.draw(st.integers(1, 4096)) if kind == "zeros" else 1
            for place in range(at, min(len(whole), at + length)):
                whole[place] = 0 if kind == "zeros" else whole[place] ^ 1 << data.draw(st.integers(0, 7))
    outside = Outside(tmp_path_factory.mktemp("root"))
    outside.refuses(bytes(whole), made)


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(NotPacked, match="plain"):
        unpacked(tmp_path / "pipe", tmp_path / "store")


# -- killed -------------------------------------------------------------------------------------------

CALLS = {
    "unpack": ["os.fsync", "os.mkdir", "os.rename"],
    "remove": ["os.rename", "os.rmdir", "os.unlink"],
    "pack": ["os.fsync", "os.rename", "os.mkdir", "shutil.copyfileobj"],
}


@pytest.mark.crash
@pytest.mark.parametrize("what", CALLS)
def test_a_kill_in_between_leaves_a_sound_store(what: str, made: Path, tmp_path: Path) -> None:
    seen = set()
    for call in CALLS[what]:
        for number in range(1, 40):
            root = tmp_path / f"{call}{number}"
            root.mkdir()
            if what == "unpack":
                Store.make(root / "store").close()
            else:
                shutil.copytree(made / "store", root / "store")
            killed = killed_at(what, call, number, made / "file", root)
            with Store.open(root / "store") as store:
                left = store.runs()
                assert left in ([], ["r1"])
                assert left or what != "pack"
                seen.add(bool(left))
                if left:
                    assert equal(made / "store", root / "store")
                store.sweep()
                assert names(root / "store" / "runs") == left
            if what == "pack" and (root / "file").exists():
                assert (root / "file").read_bytes() == (made / "file").read_bytes()
            if what == "unpack" and not left:
                assert unpacked(made / "file", root / "store") == "r1"
            if not killed:
                break
        else:
            raise AssertionError(f"{call} was called 40 times")
    assert seen == ({True} if what == "pack" else {True, False})


def killed_at(what: str, call: str, number: int, file: Path, root: Path) -> bool:
    """Run in a child that kills itself before its n-th call of a function; whether it came to that."""
    child = os.fork()
    if child == 0:
        try:
            count = 0
            module, name = sys.modules[call.partition(".")[0]], call.partition(".")[2]
            original = getattr(module, name)

            def counting(*arguments: object, **options: object) -> object:
                nonlocal count
                count += 1
                if count == number:
                    os.kill(os.getpid(), signal.SIGKILL)
                return original(*arguments, **options)

            setattr(module, name, counting)
            with Store.open(root / "store") as store:
                if what == "unpack":
                    unpack(file, store)
                elif what == "remove":
                    store.remove("r1")
                else:
                    pack(store, "r1", root / "file")
            os._exit(0)
        finally:
            os._exit(1)
    status = os.waitpid(child, 0)[1]
    assert status in (0, signal.SIGKILL)
    return status != 0
