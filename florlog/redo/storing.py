"""Storing what a replay found next to the recording, never in it: as a session of its own."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from florlog_recovery.costs import KIND
from florlog_wal import Hindsight, Note, RunBegin, RunLog, WalError
from florlog_wal import Path as IterationPath

from florlog.following.trust import FoundValue
from florlog.hindsight.known_answers import asked_note
from florlog.hindsight.request import Request
from florlog.program.environment import environment
from florlog.program.measured_costs import remember
from florlog.program.terminal import report
from florlog.recording.journal import Journal
from florlog.redo.redone import Redone


def store_values(log: RunLog, request: Request, done: Redone) -> bool:
    """Write a replay session; False, with a line for the person, when the answers cannot be written now."""
    tree, program = request.tree, request.program
    try:
        writer = log.open_answers()
    except (WalError, OSError) as error:
        report(f"the values were not stored: {error}")
        return False
    began = time.perf_counter()
    with writer:
        begin = RunBegin(
            run=tree.run,
            name=tree.begin.name,
            kind="replay",
            script=program.name(program.script),
            argv=tree.begin.argv,
            cwd=str(Path.cwd()),
            params=tree.begin.params,
            environment=environment(),
            sources=(),
            started=time.time(),
            rank=0,
            world_size=1,
            resumed_from=0,
        )
        journal = Journal(writer, begin)
        for path, group in _by_iteration(done.values):
            held = tuple(
                (
                    journal.place(
                        program.name(f.file),
                        f.line,
                        f.qualname,
                        tuple(n for n, _ in path),
                        (f.name,),
                        text_at=f.file,
                    ),
                    f.name,
                    f.value,
                )
                for f in group
            )
            journal.append(Hindsight(path, held, group[0].trust, group[0].detail), journal.session)
        if done.measured:
            journal.append(Note(KIND, "", dict(done.measured)), journal.session)
            remember(log, done.measured)
        if not done.differences:
            keys = {(program.name(file), line): key for (file, line), key in request.earlier.keys.items()}
            journal.append(asked_note(request.wanted.chosen, keys), journal.session)
        journal.end("", began, "complete", None)
        return not journal.stopped


def _by_iteration(values: Iterable[FoundValue]) -> Iterator[tuple[IterationPath, list[FoundValue]]]:
    """Values of one iteration and one trust, in order."""
    group: list[FoundValue] = []
    for found in values:
        if group and (found.path, found.trust, found.detail) != (
            group[0].path,
            group[0].trust,
            group[0].detail,
        ):
            yield group[0].path, group
            group = []
        group.append(found)
    if group:
        yield group[0].path, group
