"""Power cuts in operations on whole runs, a sample; `make crash` tries all and prints the counts.

The negative control: each sync of the product that is left out of a trace is noticed.
"""

from __future__ import annotations

import ast
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import florlog_wal
import pytest

from tests.wal import injection, operations, power_runs
from tests.wal.disk import Disk
from tests.wal.traces import Event

REASON = injection.why_not()
CUTS = 8  # of each operation
AT_END = 3
TRIES = 32  # with a sync left out, at each instant; the first or second is noticed


class Sync(NamedTuple):
    """One of the syncs of a path, in an operation that notices when it is left out."""

    operation: str
    path: str  # `_plain`
    nth: int = -1


NEW = "a new folder/in one/store"
IN_UNPACKING = (
    *(f"{where}{name}" for where in ("", "/answers") for name in ("", "/log", "/pages", "/segments")),
    *(
        f"{where}/{name}"
        for where in ("", "/answers")
        for name in ("FLORLOG", "log/data.mdb", "pages/data.mdb", "segments/00000001")
    ),
)
SYNCS = {
    "directory.make_with_parents": [Sync("a first run", ""), Sync("copy", "a new folder")],
    "directory.replace": [
        Sync("a first run", f"{NEW}/runs/n/FLORLOG.new"),
        Sync("a first run", f"{NEW}/FLORLOG.#.new"),
        Sync("a first run", NEW, 0),
        Sync("copy", f"{NEW}/runs/c"),
    ],
    "directory.sync_new": [
        *(Sync("a first run", f"{NEW}/runs{name}", 0) for name in ("", "/n", "/n/log", "/n/pages")),
        *(Sync("copy", f"{NEW}/runs/c/answers{name}") for name in ("", "/log", "/pages")),
    ],
    "packing._extract": [Sync("unpack", f"store/runs/.unpacking-#{name}") for name in IN_UNPACKING],
    "packing._move": [Sync("unpack", "store/runs")],
    "packing.pack": [
        *(Sync(name, f".{file}.#/packed") for name, file in (("pack", "file"), ("pack, a new file", "new"))),
        *(Sync(name, "") for name in ("pack", "pack, a new file")),
    ],
    # The sync of a segment of 1 GiB before the next one is not here.
    "segments._begin": [
        Sync("a first run", f"{NEW}/runs/n/segments"),
        Sync("a first run", f"{NEW}/runs/n", 3),
    ],
    "segments.sync": [
        Sync("a first run", f"{NEW}/runs/n/segments/00000001", 0),
        Sync("copy", f"{NEW}/runs/c/segments/00000001"),
    ],
    "store._discard": [Sync("rm", "store/runs"), Sync("gc --keep-last", "store/runs")],
    "store.make": [Sync("a first run", "a new folder/in one")],
    # The sync of a new tail's contents is not here: nothing is promised of a tail after a power cut.
    "tail.create": [Sync("a resume", "store/runs/b", 0)],
    "LMDB": [
        Sync("a resume", "store/runs/b/log/data.mdb", 0),
        Sync("gc --max-redo", "store/runs/c/log/data.mdb", 0),
        Sync("gc --budget, small", "store/runs/c/pages/data.mdb", 0),
    ],
}
"""By the function of `florlog_wal` that syncs, or LMDB."""
drawn_operation = pytest.mark.parametrize("name", power_runs.OPERATIONS)
needs_strace = pytest.mark.skipif(REASON is not None, reason=REASON or "")


@pytest.fixture
def choose() -> Iterator[random.Random]:
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    return random.Random(seed)


@pytest.mark.drawn(2)
@pytest.mark.crash
@needs_strace
@drawn_operation
def test_a_power_cut_in_an_operation(name: str, choose: random.Random, tmp_path: Path) -> None:
    operations.make_template(tmp_path, name)
    operation = power_runs.OPERATIONS[name](tmp_path)
    events, standing = power_runs.traced(operation, tmp_path)
    assert len(events) > standing + 20
    ends = [*choose.sample(range(standing, len(events)), CUTS), *[len(events)] * AT_END]
    outcomes = [power_runs.cut_at((end, choose.randrange(10**6)), operation, events) for end in ends]
    assert [outcome for outcome in outcomes if outcome.wrong] == []


@pytest.mark.drawn(2)
@pytest.mark.crash
@needs_strace
@pytest.mark.parametrize("function", SYNCS)
def test_a_sync_that_is_left_out_is_noticed(function: str, choose: random.Random, tmp_path: Path) -> None:
    for name in sorted({sync.operation for sync in SYNCS[function]}):
        template = tmp_path / name
        operations.make_template(template, name)
        operation = power_runs.OPERATIONS[name](template)
        trace = power_runs.traced(operation, template)
        found = [(_plain(trace.events[at].path), at) for at in power_runs.syncs(trace)]
        for sync in SYNCS[function]:
            if sync.operation == name:
                at = [at for path, at in found if path == sync.path][sync.nth]
                seed = choose.randrange(10**6)
                assert power_runs.missed(operation, trace, at, TRIES, seed) is not None, sync


def _plain(path: str) -> str:
    """A path without what is drawn of it."""
    return re.sub(r"[0-9a-f]{32}|\w{8}\.packing", "#", path)


def test_each_function_that_syncs_is_tried() -> None:
    found = set()
    for file in Path(florlog_wal.__file__).parent.glob("*.py"):
        for function in ast.walk(ast.parse(file.read_text())):
            if isinstance(function, ast.FunctionDef):
                names = {
                    getattr(call.func, "attr", getattr(call.func, "id", ""))
                    for call in ast.walk(function)
                    if isinstance(call, ast.Call)
                }
                if names & {"fsync", "fdatasync", "sync_directory"}:
                    found.add(f"{file.stem}.{function.name}")
    assert found - {"directory.sync_directory"} == SYNCS.keys() - {"LMDB"}


# -- the model of a disk ------------------------------------------------------------------------------


def left(path: Path, events: list[Event]) -> set[tuple[tuple[str, bytes], ...]]:
    """All that cuts after these events were seen to leave: the files with their contents."""
    path.mkdir(exist_ok=True)
    found = set()
    for seed in range(300):
        target = path / f"seed {seed}"
        Disk(events).leave(target, random.Random(seed))
        files = sorted(file for file in target.rglob("*") if file.is_file())
        found.add(tuple((file.relative_to(target).as_posix(), file.read_bytes()) for file in files))
    return found


MADE = [Event("make", "a"), Event("write", "a", "", 0, b"1"), Event("sync", "a")]
NAMED = [*MADE, Event("sync", "")]


def test_a_synced_file_is_there_after_a_sync_of_its_directory_only(tmp_path: Path) -> None:
    assert left(tmp_path / "1", MADE) == {(), (("a", b"1"),)}
    assert left(tmp_path / "2", NAMED) == {(("a", b"1"),)}


def test_a_later_change_of_a_directory_may_be_there_without_an_earlier_one(tmp_path: Path) -> None:
    events = [*NAMED, Event("move", "a", "b"), Event("make", "c"), Event("through", "c", "", 0, b"2")]
    a, b, c = ("a", b"1"), ("b", b"1"), ("c", b"2")
    assert left(tmp_path / "1", events) == {(a,), (b,), (a, c), (b, c)}
    assert left(tmp_path / "2", [*events, Event("sync", "")]) == {(b, c)}


def test_a_directory_keeps_what_it_contains_under_another_name(tmp_path: Path) -> None:
    events = [
        *(
            Event("folder", "d"),
            Event("make", "d/a"),
            Event("through", "d/a", "", 0, b"1"),
            Event("sync", "d"),
        ),
        *(Event("sync", ""), Event("move", "d", "e"), Event("remove", "e/a")),
    ]
    whole, moved = (("d/a", b"1"),), (("e/a", b"1"),)
    assert left(tmp_path, events) == {whole, moved, ()}
    assert left(tmp_path / "synced", [*events[:-1], Event("sync", ""), events[-1]]) == {moved, ()}


def test_a_write_may_be_lost_or_torn_and_a_lost_one_may_leave_zeros(tmp_path: Path) -> None:
    events = [*NAMED, Event("write", "a", "", 0, b"x" * 1024)]
    found = {content for ((_, content),) in left(tmp_path, events)}
    half = b"x" * 512
    assert found == {b"1", half + half, half, b"1" + bytes(511) + half, b"1" + bytes(1023)}


def test_a_cut_of_a_file_may_be_lost(tmp_path: Path) -> None:
    assert left(tmp_path, [*NAMED, Event("cut", "a")]) == {(("a", b"1"),), (("a", b""),)}
