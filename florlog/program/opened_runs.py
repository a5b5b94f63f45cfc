"""The runs that a program has opened, in order: by that a run's place in the program is found again.

A script that opens several runs, as cross-validation does, may give them all the same name.  So each run names those
that came before it in its process (``RunBegin.earlier``), and whoever executes the script again means the run at that
place.  In a notebook only the runs of the cell that is executing count, as a replay executes that cell as the last one.

Nothing counts in a process that another one has made, such as a worker of a pool, which takes what it is given; nor in
an interpreter that executes no script and no cell that is known: neither is executed again in the same order.
"""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

Earlier = tuple[tuple[str, str], ...]
"""Name and id of runs, in order; the id of one that is not recorded is ""."""

MAX_EARLIER_RUNS = 1000
"""So many are named by those that come after them: a list in each run of all before it grows with their square."""
AND_MORE = ("", "")
"""Comes after the first `MAX_EARLIER_RUNS` where there were more."""

_MADE_ANEW = re.compile(
    r"\d{4}-\d\d-\d\d"
    r"|(Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)[a-z]*[ ._-]?\d{1,2}"
    r"|\d\d([:h._-]\d\d){2}(\.\d+)?|\d\d[:h]\d\d"
    r"|(?<![.0-9a-f])[0-9a-f]*\d[0-9a-f]*(?<=[0-9a-f]{6})(\.\d+)?"
)
"""In a name: dates, times of day, and what has six digits or more, decimal or hexadecimal."""
_process = os.getpid()


class OpenedRuns:
    """Of one process."""

    def __init__(self) -> None:
        self._program = ""
        self._runs: list[tuple[str, str]] = []
        self.goes_on: Any = None
        """The `florlog.recording.roles.Resume` of the run with which the program goes on by itself; None: with none."""
        self.seconds = 0.0
        """For which runs were open."""

    def begin(self, program: str) -> bool:
        """A run is about to be opened by a program, given by the text of a notebook's cells, or else by the script.

        Returns whether it has a place among others that is found again.  Without a program there is none.
        """
        if program != self._program:
            self.forget()
            self._program = program
        return bool(program) and not in_child()

    def forget(self) -> None:
        """A part of the program begins, before which no run counts."""
        self._runs = []
        self.goes_on = None

    def opened(self, name: str, run: str) -> None:
        """A run is open, or one that stands in its place."""
        self._runs.append((name, run))

    @contextmanager
    def time_open(self) -> Iterator[None]:
        """Within, a run is open."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.seconds += time.perf_counter() - began

    @property
    def runs(self) -> Earlier:
        """All of them."""
        return tuple(self._runs)

    @property
    def named(self) -> Earlier:
        """Those that the next one names."""
        if len(self._runs) > MAX_EARLIER_RUNS:
            return (*self._runs[:MAX_EARLIER_RUNS], AND_MORE)
        return self.runs


def is_same_name(one: str, other: str) -> bool:
    """Whether two names are one but for times, random numbers and the like, which the program makes anew each time."""
    return _MADE_ANEW.sub("", one) == _MADE_ANEW.sub("", other)


def in_child() -> bool:
    """Whether another process of the program has made this one."""
    multiprocessing = sys.modules.get("multiprocessing")
    return os.getpid() != _process or bool(multiprocessing and multiprocessing.parent_process() is not None)
