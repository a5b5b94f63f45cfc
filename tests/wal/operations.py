"""The operations on whole runs that are cut off, and what is legal after that: gc, rm, pack and unpack."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from florlog_wal import NoSuchRun, Store, gc, pack, unpack

from tests.wal import many_runs
from tests.wal.many_runs import LARGE_BYTES, Held

LIVE_BYTES = LARGE_BYTES + 4000  # what the neighbour's pages may take


@dataclass(frozen=True)
class Operation:
    """What is killed, and what is legal afterwards."""

    name: str
    work: Callable[[Path], None]
    judge: Callable[[Path], list[str]]
    """Of the folder that contains ``store``, after the crash; repeats the work."""
    done: Callable[[Path], list[str]]
    """What is missing of the work, which had come to its end."""
    kept: Mapping[str, Held] = field(default_factory=dict)  # what the reader must always find
    others: Mapping[str, Held] = field(default_factory=dict)


def _live(names: set[str]) -> set[str]:
    return {name for name in names if name.startswith("live")}


# -- gc -----------------------------------------------------------------------------------------------

POLICIES: dict[str, dict[str, float]] = {
    "gc --keep-last": {"keep_last": 2},
    "gc --max-redo": {"redo_bound": 0.12},
    "gc --budget": {"budget": 5.5 * LARGE_BYTES},  # thins all runs
    "gc --budget, small": {"budget": 2.5 * LARGE_BYTES},  # and removes the oldest
}


def gc_operation(policy: str, template: Path, *, beside: bool = True) -> Operation:
    """A gc of all runs, beside a neighbour that records or not."""
    options = POLICIES[policy]
    before = many_runs.contents(template / "store")
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(template / "store", f"{folder}/store")
        _gc(Path(folder), options)
        expected = many_runs.contents(Path(folder) / "store")
    if beside and "budget" in options:
        options = {"budget": options["budget"] + LIVE_BYTES}
    others = {run: found for run, found in before.items() if run not in expected}
    judge = partial(judge_gc, options=options, before=before, expected=expected)
    done = partial(gc_done, expected=expected)
    return Operation(policy, partial(_gc, options=options), judge, done, expected, others)


def _gc(root: Path, options: Mapping[str, float]) -> None:
    report = gc(root / "store", **options)  # type: ignore[arg-type]
    assert not report.damaged, report.damaged


def gc_done(root: Path, expected: Mapping[str, Held]) -> list[str]:
    """What a gc that came to its end has not removed."""
    now = many_runs.contents(root / "store")
    wrong = [f"lost: the removal of run {run}" for run in now.keys() - expected.keys()]
    more = {run: now[run].images.keys() - expected[run].images.keys() for run in now.keys() & expected.keys()}
    return wrong + [
        f"lost: the removal of the images {sorted(lsns)} of run {run}" for run, lsns in more.items() if lsns
    ]


def judge_gc(
    root: Path, options: Mapping[str, float], before: Mapping[str, Held], expected: Mapping[str, Held]
) -> list[str]:
    """What is wrong after a gc that was cut off, after the next one, and after one more."""
    path = root / "store"
    wrong = _gc_left(path, before, expected)
    _gc(root, options)
    wrong += [f"after the next gc: {text}" for text in _gc_left(path, before, expected)]
    there = many_runs.names(path)
    if there - _live(there) != set(expected):
        wrong.append(f"the next gc has left {sorted(there)}")
    if "budget" not in options:  # what is thinned already may fit at a finer level
        for run, found in expected.items():
            images = many_runs.held(path / "runs" / run).images
            if images != found.images:
                wrong.append(f"the next gc has left images {sorted(images)} of run {run}")
    report = gc(path, **options)  # type: ignore[arg-type]
    if "budget" not in options and (report.runs or report.images or report.pages or report.swept):
        wrong.append(f"there was work for a third gc: {report}")
    return wrong


def _gc_left(path: Path, before: Mapping[str, Held], expected: Mapping[str, Held]) -> list[str]:
    wrong = []
    for run, found in before.items():
        if run in expected:
            wrong += many_runs.unlike(path / "runs" / run, found, expected[run].images)
        else:
            wrong += many_runs.half_removed(path, run, found)
    return wrong


# -- rm, pack, unpack ---------------------------------------------------------------------------------


def rm_operation(template: Path) -> Operation:
    """`florlog rm` of the run with answers."""
    before = many_runs.contents(template / "store")
    gone = before.pop("c")
    judge = partial(judge_rm, before=before, gone=gone)
    return Operation("rm", _rm, judge, partial(_c_is, there=False), before, {"c": gone})


def _c_is(root: Path, there: bool) -> list[str]:
    with Store.open(root / "store") as store:
        return [] if ("c" in store) == there else [f"lost: run c is {'gone' if there else 'there'}"]


def _rm(root: Path) -> None:
    with Store.open(root / "store") as store:
        store.remove("c")


def judge_rm(root: Path, before: Mapping[str, Held], gone: Held) -> list[str]:
    """What is wrong after a removal that was cut off, and after a second one and a sweep."""
    path = root / "store"
    wrong = many_runs.changed(path, before) + many_runs.half_removed(path, "c", gone)
    with Store.open(path) as store:
        with suppress(NoSuchRun):
            store.remove("c")
        store.sweep()
    there = many_runs.names(path)
    if there - _live(there) != set(before):
        wrong.append(f"left after the sweep: {sorted(there)}")
    return wrong + many_runs.changed(path, before)


def pack_operation(template: Path, name: str = "file") -> Operation:
    """`florlog pack` to a file, by default to one that exists."""
    before = many_runs.contents(template / "store")
    earlier = _bytes(template / name)
    judge = partial(judge_pack, name=name, earlier=earlier, before=before)
    return Operation("pack", partial(_pack, name=name), judge, partial(_packed, name, earlier), before)


def _pack(root: Path, name: str) -> None:
    with Store.open(root / "store") as store:
        pack(store, "c", root / name)


def _bytes(file: Path) -> bytes | None:
    return file.read_bytes() if file.exists() else None


def _packed(name: str, earlier: bytes | None, root: Path) -> list[str]:
    return ["lost: the file is as it was before"] if _bytes(root / name) == earlier else []


def judge_pack(root: Path, name: str, earlier: bytes | None, before: Mapping[str, Held]) -> list[str]:
    """What is wrong after a pack that was cut off; the file is the old one or the new one."""
    wrong = many_runs.changed(root / "store", before)
    found = _bytes(root / name)
    _pack(root, name)
    if found not in (earlier, _bytes(root / name)):
        wrong.append("the file is neither the old one nor the new one")
    with Store.make(root / "other") as other:
        unpack(root / name, other)
    return wrong + many_runs.changed(root / "other", {"c": before["c"]})


def unpack_operation(template: Path) -> Operation:
    """`florlog unpack` into a store with other runs."""
    before = many_runs.contents(template / "store")
    with tempfile.TemporaryDirectory() as folder, Store.make(folder) as other:
        packed = many_runs.held(other.directory(unpack(template / "packed", other)))
    judge = partial(judge_unpack, before=before, packed=packed)
    return Operation("unpack", _unpack, judge, partial(_c_is, there=True), before)


def _unpack(root: Path) -> None:
    with Store.open(root / "store") as store:
        unpack(root / "packed", store)


def judge_unpack(root: Path, before: Mapping[str, Held], packed: Held) -> list[str]:
    """What is wrong after an unpack that was cut off, and after a sweep and a second one."""
    path = root / "store"
    wrong = many_runs.changed(path, before)
    with Store.open(path) as store:
        whole = "c" in store
        if whole:
            wrong += many_runs.changed(path, {"c": packed})
        store.sweep()
        there = many_runs.names(path)
        if there - _live(there) != {*before, *(["c"] if whole else [])}:
            wrong.append(f"left after the sweep: {sorted(there)}")
        if not whole:
            unpack(root / "packed", store)
    return wrong + many_runs.changed(path, {**before, "c": packed})


# -- all ----------------------------------------------------------------------------------------------


def make_template(root: Path, operation: str) -> None:
    """The folder with a store in which an operation is killed, or the power goes."""
    many_runs.make(root / "store")
    (root / "file").write_bytes(b"before")
    if operation == "unpack":
        with Store.open(root / "store") as store:
            pack(store, "c", root / "packed")
            store.remove("c")


OPERATIONS: dict[str, Callable[[Path], Operation]] = {
    **{policy: partial(gc_operation, policy) for policy in POLICIES},
    "rm": rm_operation,
    "pack": pack_operation,
    "unpack": unpack_operation,
}
