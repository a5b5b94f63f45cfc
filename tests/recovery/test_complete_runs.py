"""What a resume leaves of a complete run when it ends before it has done anything."""

from __future__ import annotations

from pathlib import Path

import pytest
from florlog_recovery import analyse
from florlog_wal import LoopBegin, LoopEnd, Note, Record, RunBegin, RunEnd, RunLog, Statement

STATEMENT = Statement(1, "loop", "/t.py", "main", 3, b"", (), ("epoch",))
NOTE = Note("cost", "", {})


def begin(kind: str) -> RunBegin:
    return RunBegin("r", "r", kind, "/t.py", (), "/", {}, {}, (), 0.0, 0, 1, 0)


@pytest.mark.parametrize(
    ("after", "status"),
    [
        ((), "complete"),
        ((STATEMENT, NOTE), "complete"),
        ((NOTE, RunEnd("failed", 1.0, None)), "complete"),
        ((STATEMENT, LoopBegin((), "epoch", 0, 1, "for", 4, 0, (), 0.0, {})), "crashed"),
        ((NOTE, RunEnd("complete", 1.0, None)), "complete"),
    ],
    ids=["killed at once", "killed", "ended before its place", "killed later", "complete"],
)
def test_a_complete_run_stays_complete_until_a_resume_executes_something(
    tmp_path: Path, after: tuple[Record, ...], status: str
) -> None:
    with RunLog.open(tmp_path / "store", mode="w") as store:
        session = store.append(begin("record"))
        store.append(STATEMENT, session=session)
        loop = store.append(LoopBegin((), "epoch", 0, 1, "for", 4, 0, (), 0.0, {}), session=session)
        store.append(LoopEnd(loop, 0, True), session=session)
        store.append(RunEnd("complete", 1.0, None), session=session)
        session = store.append(begin("resume"))
        for record in after:
            store.append(record, session=session)
        tree = analyse(store, store.sessions())
    assert (tree.status, tree.problems) == (status, [])
