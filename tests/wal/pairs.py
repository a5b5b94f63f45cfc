"""Two operations on one store: the first is stopped after a system call, the second is done, and the first goes on.

Each operation writes down what it has promised, and at last ``done`` or the error that it raised.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

from florlog_wal import RunLog, Store, gc, pack, unpack

from tests.wal import injection, many_runs
from tests.wal.injection import Point
from tests.wal.many_runs import Held
from tests.wal.samples import run_begin

Say = Callable[[str], None]
Work = Callable[[Path, Say], None]
PATIENCE_SECONDS = 1.0
"""For the second operation, which may wait for the first one."""


class Result(NamedTuple):
    """What an operation has said."""

    acked: int  # the last LSN
    end: str  # "done", an error, or "" after a kill
    before: int = 0  # the last LSN of the first operation, before the second one began

    @property
    def done(self) -> bool:
        """Whether it came to its end without an error."""
        return self.end == "done"


@dataclass(frozen=True)
class Pair:
    """Two operations, and what is legal after them."""

    name: str
    first: Work
    second: Work
    judge: Callable[[Path, Result, Result], list[str]]
    changes: frozenset[str] = frozenset()
    """Runs that the operations may change or remove."""


# -- operations ---------------------------------------------------------------------------------------


def collect(root: Path, say: Say, **policy: int) -> None:
    """`florlog gc`."""
    report = gc(root / "store", **policy)  # type: ignore[arg-type]
    assert not report.damaged, report.damaged


def begin(root: Path, say: Say, run: str = "n") -> None:
    """Record a new run."""
    with Store.open(root / "store") as store, store.new_log(run) as log:
        _record(log, run, say)


def begin_half(root: Path, say: Say) -> None:
    """Record a run whose directory its writer has just made, as `Store.new_log` goes on then."""
    with RunLog.open(root / "store" / "runs" / "half", mode="x") as log:
        _record(log, "half", say)


def _record(log: RunLog, run: str, say: Say, **changes: str) -> None:
    session = log.append(run_begin(run, started=200.0, **changes))
    say(f"acked {session}")
    many_runs.image(log, session, run, 100)
    say(f"acked {log.last_lsn}")


def resume(root: Path, say: Say) -> None:
    """Go on with run ``a``."""
    with Store.open(root / "store") as store, store.open_log("a") as log:
        _record(log, "a", say, kind="resume")


def remove(root: Path, say: Say) -> None:
    """`florlog rm` of run ``a``."""
    with Store.open(root / "store") as store:
        store.remove("a")


def put_in(root: Path, say: Say) -> None:
    """`florlog unpack` of run ``c``."""
    with Store.open(root / "store") as store:
        unpack(root / "packed", store)


def take_out(root: Path, say: Say) -> None:
    """`florlog pack` of run ``a``."""
    with Store.open(root / "store") as store:
        pack(store, "a", root / "file")


# -- what is legal ------------------------------------------------------------------------------------


def _is_there(root: Path, run: str) -> bool:
    with Store.open(root / "store") as store:
        return run in store


def _recorded(root: Path, run: str, result: Result) -> list[str]:
    """What a writer was promised is there."""
    if not result.acked:
        return []
    if not _is_there(root, run):
        return [f"lost: run {run}, of which {result.acked} records were acknowledged"]
    where = root / "store" / "runs" / run
    with RunLog.open(where) as log:
        last = log.last_lsn
    wrong = [] if last >= result.acked else [f"lost: {last} records, {result.acked} were acknowledged"]
    return wrong + many_runs.problems(where)


def _went_well(*results: Result) -> list[str]:
    return [result.end for result in results if result.end and not result.done]


def both_recorded(run: str, writer: int, root: Path, *results: Result) -> list[str]:
    """A recording and a gc: neither is disturbed, or the writer is told at once to take another name."""
    taken = ("RunExists", "RunLocked")
    errors = [text for text in _went_well(*results) if results[writer].acked or not text.startswith(taken)]
    return errors + _recorded(root, run, results[writer])


def one_recorded(root: Path, *results: Result) -> list[str]:
    """Two recordings of one id: not both, and none only where one was killed."""
    errors = [error for error in _went_well(*results) if not error.startswith("RunExists")]
    wrong = [text for result in results for text in _recorded(root, "n", result)]
    done, killed = sum(result.done for result in results), any(not result.end for result in results)
    if done > 1 or (done == 0 and not killed):
        wrong.append(f"{done} writers got the run")
    return errors + wrong


def removed(remover: int, root: Path, *results: Result) -> list[str]:
    """A removal of run ``a`` and something that leaves it alone, or finds it gone: no trace of it is left."""
    wrong = [text for text in _went_well(*results) if not text.startswith(("NoSuchRun", "RunLocked"))]
    if results[remover].done and (root / "store" / "runs" / "a").exists():
        wrong.append("run a was removed, and is there")
    return wrong


def removed_or_resumed(remover: int, before: Held, root: Path, *results: Result) -> list[str]:
    """A removal of run ``a`` and a resume of it: one of them is told that the other was first."""
    writer, there = results[1 - remover], _is_there(root, "a")
    wrong = [text for text in _went_well(*results) if not text.startswith(("NoSuchRun", "RunLocked"))]
    if not there:
        # A resume that is over does not keep its run from being removed; one that is under way does.
        over = 0 if not results[remover].done else writer.acked if remover == 0 else writer.before
        if writer.acked > over or results[remover].end not in ("done", ""):
            wrong.append(f"lost: run a, of which {writer.acked} records were acknowledged")
        return wrong
    found = many_runs.held(root / "store" / "runs" / "a").records
    if found[: len(before.records)] != before.records:
        wrong.append(f"lost: {len(found)} records of run a are left")
    return wrong + _recorded(root, "a", writer)


def unpacked(unpacker: int, packed: Held, root: Path, *results: Result) -> list[str]:
    """An unpack and a gc: neither is disturbed."""
    wrong = _went_well(*results)
    return wrong + (many_runs.changed(root / "store", {"c": packed}) if results[unpacker].done else [])


def unpacked_once(packed: Held, root: Path, *results: Result) -> list[str]:
    """Two unpacks of one run."""
    wrong = [error for error in _went_well(*results) if not error.startswith("RunExists")]
    if (done := sum(result.done for result in results)) > 1:
        wrong.append("both made the run")
    return wrong + (many_runs.changed(root / "store", {"c": packed}) if done else [])


def packed_or_gone(packer: int, before: Held, root: Path, *results: Result) -> list[str]:
    """A pack and a removal of its run: what is packed is whole."""
    wrong = removed(1 - packer, root, *results) if results[packer].done else []
    if results[packer].done:
        with Store.make(root / "other") as other:
            unpack(root / "file", other)
        wrong += many_runs.changed(root / "other", {"a": before})
    return wrong


def all_pairs(before: Held, packed: Held) -> list[Pair]:
    """``before`` is run ``a``, ``packed`` the run in the file."""
    a, keep_one = frozenset({"a"}), partial(collect, keep_last=1)
    return [
        Pair("gc, a run begins", collect, begin_half, partial(both_recorded, "half", 1)),
        Pair("gc, a run is made", collect, begin, partial(both_recorded, "n", 1)),
        Pair("a run is made, gc", begin, collect, partial(both_recorded, "n", 0)),
        Pair("a run is made twice", begin, begin, one_recorded),
        Pair("gc, rm", collect, remove, partial(removed, 1), a),
        Pair("rm, gc", remove, collect, partial(removed, 0), a),
        Pair("rm, rm", remove, remove, partial(removed, 1), a),
        Pair("resume, rm", resume, remove, partial(removed_or_resumed, 1, before), a),
        Pair("rm, resume", remove, resume, partial(removed_or_resumed, 0, before), a),
        Pair("resume, gc", resume, keep_one, partial(removed_or_resumed, 1, before), a),
        Pair("gc, resume", keep_one, resume, partial(removed_or_resumed, 0, before), a),
        Pair("unpack, gc", put_in, collect, partial(unpacked, 0, packed)),
        Pair("gc, unpack", collect, put_in, partial(unpacked, 1, packed)),
        Pair("unpack, unpack", put_in, put_in, partial(unpacked_once, packed)),
        Pair("pack, rm", take_out, remove, partial(packed_or_gone, 0, before), a),
    ]


# -- doing both ---------------------------------------------------------------------------------------


def attempt(work: Work, root: Path, out: Path) -> None:
    """Do it, and write down what it says and how it ended."""
    with out.open("w", buffering=1) as file:

        def say(text: str) -> None:
            file.write(f"{text}\n")

        try:
            work(root, say)
        except Exception as error:
            say(f"{type(error).__name__}: {error}".replace("\n", " "))
        else:
            say("done")


def interleave(pair: Pair, point: Point, root: Path, *, kill: bool) -> tuple[bool, Result, Result]:
    """Do both; whether the first one came to the point, and what they said."""
    second = before = 0

    def meanwhile(child: int) -> None:
        nonlocal second, before
        before = _result(root / "first").acked
        if (second := os.fork()) == 0:
            try:
                attempt(pair.second, root, root / "second")
            finally:
                os._exit(0)
        end = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < end and not os.waitid(
            os.P_PID, second, os.WEXITED | os.WNOHANG | os.WNOWAIT
        ):
            time.sleep(0.001)
        os.kill(child, signal.SIGKILL if kill else signal.SIGCONT)

    injection.inject(
        partial(attempt, pair.first, root, root / "first"), point, "signal=SIGSTOP", when_stopped=meanwhile
    )
    if not second:
        return False, *(_result(root / name) for name in ("first", "first"))
    os.waitpid(second, 0)
    return True, _result(root / "first")._replace(before=before), _result(root / "second")


def _result(out: Path) -> Result:
    acked, end = 0, ""
    for line in out.read_text().split("\n")[:-1] if out.exists() else []:
        if line.startswith("acked "):
            acked = int(line.split()[1])
        else:
            end = line
    return Result(acked, end)
