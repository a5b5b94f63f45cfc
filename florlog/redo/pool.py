"""Replay by several processes: each restores images and redoes its part of the request, as Flor's G workers do.

The parts are consecutive and even (`florlog_recovery.split`).  A worker that dies is replaced: another process
redoes its part from the beginning, which is possible at any time, as nothing that a worker does is visible
outside it.  An atom between two parts may be executed by both; its values are taken from the first.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO

from florlog.errors import FlorlogError
from florlog.following.trust import FoundValue
from florlog.program.terminal import report
from florlog.redo.wire import receive

ATTEMPTS = 3


@dataclass(slots=True)
class _Share:
    """What one worker has to do, and what came of it; ``passed``: how often each piece was passed over."""

    atoms: tuple[int, int]
    redone: int = 0
    attempts: int = 0
    values: list[FoundValue] = field(default_factory=list)
    differences: list[str] = field(default_factory=list)
    passed: Counter[int] = field(default_factory=Counter)
    error: str = ""
    process: subprocess.Popen[bytes] | None = None


def redo_in_parallel(
    argv: Sequence[str],
    parts: Sequence[tuple[int, int]],
    atoms: int,
    progress: Callable[[int], None] | None,
    variables: Mapping[str, str],
) -> tuple[list[FoundValue], list[str], Counter[int]]:
    """Have every part redone by a process; values and differences in the order of the run, and what was passed over.

    ``argv``: the arguments of ``florlog replay``; ``variables``: of the workers' environment, beside this one's.
    Raises `FlorlogError` when a part's script fails, or its worker
    dies again and again.
    """
    work = [_Share(part) for part in parts]
    lock = threading.Lock()

    def told() -> None:
        with lock:
            if progress is not None and (done := sum(part.redone for part in work)):
                progress(done)

    threads = [
        threading.Thread(target=_lead, args=(part, argv, atoms, told, number == 0, variables), daemon=True)
        for number, part in enumerate(work)
    ]
    for thread in threads:
        thread.start()
    try:
        for thread in threads:
            thread.join()
    finally:
        for part in work:
            if part.process is not None and part.process.poll() is None:
                part.process.kill()
    if error := next((part.error for part in work if part.error), ""):
        raise FlorlogError(error)
    differences = list(dict.fromkeys(text for part in work for text in part.differences))
    passed = sum((part.passed for part in work), Counter[int]())
    return merged([part.values for part in work]), differences, passed


def _lead(
    part: _Share,
    argv: Sequence[str],
    atoms: int,
    told: Callable[[], None],
    heard: bool,
    variables: Mapping[str, str],
) -> None:
    """Start a worker for a part, and another where it dies."""
    order = json.dumps({"argv": list(argv), "part": part.atoms, "atoms": atoms}).encode()
    while True:
        part.attempts += 1
        part.process = process = subprocess.Popen(
            [sys.executable, "-m", "florlog.redo.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **variables},
            stderr=None if heard else subprocess.DEVNULL,  # what the script says need not be said N times
        )
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(order)
            process.stdin.close()
        except BrokenPipeError:
            pass
        finished = _listen(part, process.stdout, told)
        process.wait()
        if finished:
            return
        if part.attempts == ATTEMPTS:
            part.error = f"a replay worker ended {ATTEMPTS} times with status {process.returncode}"
            return
        report(f"a replay worker ended with status {process.returncode}: another redoes its part")
        part.redone = 0


def _listen(part: _Share, stream: IO[bytes], told: Callable[[], None]) -> bool:
    while (message := receive(stream)) is not None:  # type: ignore[arg-type]
        match message:
            case ["progress", int() as redone]:
                part.redone = redone
                told()
            case ["done", values, differences, passed]:
                part.values = [_found(*fields) for fields in values]
                part.differences = list(differences)
                part.passed = Counter({int(number): int(count) for number, count in passed})
                return True
            case ["error", str() as text]:
                part.error = text
                return True
    return False


def _found(
    file: str, line: int, qualname: str, name: str, path: list[list[object]], value: object, *rest: object
) -> FoundValue:
    trust, detail, segment = rest
    steps = tuple((str(loop), int(str(index))) for loop, index in path)
    made = FoundValue(file, line, qualname, name, steps, value, str(trust), str(detail))
    made.segment = int(str(segment))
    return made


def merged(parts: list[list[FoundValue]]) -> list[FoundValue]:
    """The values of all parts in order; an atom's are those of the first part that executed it."""
    taken: dict[tuple[object, ...], int] = {}
    merged: list[FoundValue] = []
    for number, values in enumerate(parts):
        for value in values:
            atom = (value.path, value.segment, value.file, value.line, value.name)
            if taken.setdefault(atom, number) == number:
                merged.append(value)
    return merged
