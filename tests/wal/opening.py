"""Operations that make or open a run, and what is legal after they were cut off: a first run, a resume, a copy."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from florlog_wal import RunLog, Store, compact
from florlog_wal.tail import FIRST_FRAME_AT

from tests.wal import many_runs
from tests.wal.many_runs import Held
from tests.wal.operations import Operation
from tests.wal.samples import commit

# -- new stores ---------------------------------------------------------------------------------------

_NEW = Path("a new folder", "in one", "store")  # none of them is there before


def copy_operation(template: Path) -> Operation:
    """What `florlog gc --compact` does for each run: a copy of the one with answers, in a new store."""
    before = many_runs.contents(template / "store")
    judge = partial(judge_copy, before=before)
    return Operation("copy", _copy, judge, partial(_copied, before=before), before)


def _copy(root: Path) -> None:
    with Store.make(root / _NEW) as copy:
        compact(root / "store" / "runs" / "c", copy.directory("c"))


def _copied(root: Path, before: Mapping[str, Held]) -> list[str]:
    return many_runs.changed(root / _NEW, {"c": before["c"]})


def judge_copy(root: Path, before: Mapping[str, Held]) -> list[str]:
    """What is wrong after a copy that was cut off, and after a second one."""
    wrong = many_runs.changed(root / "store", before)
    with Store.make(root / _NEW) as copy:
        whole = "c" in copy
    if not whole:
        _copy(root)
    return wrong + _copied(root, before)


def first_operation(template: Path) -> Operation:
    """A first run, in a store that is made for it."""
    with tempfile.TemporaryDirectory() as folder:
        _record(Path(folder))
        whole = many_runs.held(Path(folder) / _NEW / "runs" / "n")
    return Operation(
        "a first run", _record, partial(judge_first, whole=whole), partial(_recorded, whole=whole)
    )


def _record(root: Path) -> None:
    with Store.make(root / _NEW) as store, store.new_log("n") as log:
        many_runs.record(log, "n", many_runs.IMAGES)


def _recorded(root: Path, whole: Held) -> list[str]:
    return many_runs.changed(root / _NEW, {"n": whole})


def judge_first(root: Path, whole: Held) -> list[str]:
    """What is wrong with a recording that was cut off, and with the next one."""
    wrong = []
    with Store.make(root / _NEW) as store:
        if "n" in store:
            now = many_runs.held(store.directory("n"))
            wrong = many_runs.problems(store.directory("n"))
            if (
                now.records != whole.records[: len(now.records)]
                or not now.images.items() <= whole.images.items()
            ):
                wrong.append("the run has what was not recorded")
            store.remove("n")
        store.sweep()
    _record(root)
    return wrong + _recorded(root, whole)


# -- a resume -----------------------------------------------------------------------------------------

_TORN_AFTER = 8  # records


def resume_operation(template: Path) -> Operation:
    """A resume of a run whose writer was killed, and of whose tail one frame was torn: those after it do not count."""
    where = template / "store" / "runs" / "b"
    before = many_runs.contents(template / "store")
    with RunLog.open(where) as log:
        torn = log.record(_TORN_AFTER + 1).lsn.to_bytes(8, "big")
    for segment in (where / "tail.0", where / "tail.1"):
        content = segment.read_bytes()
        at = content.find(torn, FIRST_FRAME_AT)
        if at >= 0:
            segment.write_bytes(content[: at + 8] + bytes(8) + content[at + 16 :])  # its checksum
    kept = many_runs.held(where)
    assert kept.records == before["b"].records[: len(kept.records)] != before["b"].records
    judge = partial(judge_resume, kept=kept)
    return Operation("a resume", _resume, judge, partial(_resumed, kept=kept))


def _resume(root: Path) -> None:
    with RunLog.open(root / "store" / "runs" / "b", mode="r+", durability="sync") as log:
        log.append(commit(99), session=1)


def _resumed(root: Path, kept: Held) -> list[str]:
    found = many_runs.held(root / "store" / "runs" / "b")
    more = [entry.record for entry in found.records[len(kept.records) :]]
    return [] if more == [commit(99)] else [f"lost: the resume, {len(more)} records follow"]


def judge_resume(root: Path, kept: Held) -> list[str]:
    """What is wrong after a resume that was cut off, and after another one."""
    wrong = []
    for again in (False, True):
        if again:
            _resume(root)
        found = many_runs.held(root / "store" / "runs" / "b")
        more = {entry.record for entry in found.records[len(kept.records) :]}
        if (
            found.records[: len(kept.records)] != kept.records
            or more - {commit(99)}
            or found.images != kept.images
        ):
            wrong.append(f"lost: after the {len(kept.records)} records come {len(more)} others")
        wrong += many_runs.problems(root / "store" / "runs" / "b")
    return wrong
