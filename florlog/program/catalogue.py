"""What is known of a store's runs without opening their logs: a file that can be made anew at any time.

``catalogue`` in the store's directory is a list of rows (`florlog.program.hint_file`).  A row has a run's name, what of
its first record never changes, and a summary with the *stamp* of the files that it was made from: inode, size and time
of change of each.  It counts as long as nobody writes to the run and the files have that stamp.
A missing, damaged or old file costs time, never a wrong answer.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from florlog_wal import NoSuchRun, RunBegin, RunLog, Store, WalError, writer_of

from florlog.program.environment import CELLS
from florlog.program.hint_file import read_hint, write_hint
from florlog.program.terminal import report

NAME: Final = "catalogue"
_FILES: Final = (
    "FLORLOG", "lock", "end", "tail.0", "tail.1", "log/data.mdb", "answers/lock", "answers/end", "answers/log/data.mdb",
)  # fmt: skip
_MAX_BYTES: Final = 1 << 28

Summary = dict[str, Any]
_Stamp = tuple[tuple[int, int, int], ...]


@dataclass(frozen=True, slots=True)
class ListedRun:
    """A run as a list shows it; ``cells``: the notebook's cells that it was recorded from, if it was."""

    run: str
    name: str
    script: str
    started: float  # Unix seconds
    params: dict[str, Any]
    argv: tuple[str, ...]
    cells: tuple[str, ...] | None
    earlier: tuple[tuple[str, str], ...]  # the runs that its process had opened before: name and id


@dataclass(slots=True)
class _Row:
    made: tuple[int, int, int]  # the manifest's stamp
    listed: ListedRun
    stamp: _Stamp = ()
    summary: Summary | None = None


class Catalogue:
    """The runs of a store, oldest first.  As a context manager it writes down what it had to find out."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._rows: dict[str, _Row] = {}
        self._changed = False
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError, WalError):
            self._rows = _read(store.path / NAME)

    def __enter__(self) -> Catalogue:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._changed and error is None:
            with contextlib.suppress(OSError, WalError):  # what cannot be written is read all the same
                _write(self._store.path / NAME, self._rows)

    def runs(self) -> list[ListedRun]:
        """All runs; one that cannot be read is left out, with a line that says so."""
        present = self._store.runs()
        for gone in self._rows.keys() - set(present):
            del self._rows[gone]
            self._changed = True
        for run in present:
            made = _stamp_of(self._store.directory(run) / "FLORLOG")
            row = self._rows.get(run)
            if row is None or row.made != made:
                self._find_out(run, made)
        listed = (row.listed for row in self._rows.values())
        return sorted(listed, key=lambda it: (it.started if math.isfinite(it.started) else 0.0, it.run))

    def _find_out(self, run: str, made: tuple[int, int, int]) -> None:
        self._rows.pop(run, None)
        try:
            begin = self._store.log(run).sessions()[0].begin
        except NoSuchRun:  # it has no record yet
            return
        except (WalError, OSError) as error:
            report(f"run {run} cannot be read: {error}")
            return
        self._rows[run] = _Row(made, _listed(run, begin))
        self._changed = True

    def summary(self, run: str, make: Callable[[RunLog], Summary]) -> Summary | None:
        """What ``make`` says of a run of `runs`, now or when it was last asked: a dict of plain values.

        None, with a line that says so, for a run that cannot be read.
        """
        row = self._rows[run]
        where = self._store.directory(run)
        try:
            before = _stamp(where)
            if row.summary is not None and row.stamp == before and writer_of(where) is None:
                return row.summary
            log = self._store.log(run)
            made = make(log)
            quiet = log.writer() is None and _stamp(where) == before
        except (WalError, OSError) as error:
            report(f"run {run} cannot be read: {error}")
            return None
        row.stamp, row.summary = (before, made) if quiet else ((), None)
        self._changed = True
        return made


def _listed(run: str, begin: RunBegin) -> ListedRun:
    facts = begin.environment.get(CELLS)
    ids = facts.get("ids", ()) if isinstance(facts, dict) else ()
    cells = None if facts is None else tuple(ids) if isinstance(ids, list | tuple) else ()
    return ListedRun(
        run, begin.name, begin.script, begin.started, begin.params, begin.argv, cells, begin.earlier
    )


def _stamp(where: Path) -> _Stamp:
    return tuple(_stamp_of(where / name) for name in _FILES)


def _stamp_of(path: Path) -> tuple[int, int, int]:
    try:
        found = os.lstat(path)
    except OSError:
        return (0, 0, 0)
    return found.st_ino, found.st_size, found.st_mtime_ns


def _read(path: Path) -> dict[str, _Row]:
    rows = read_hint(path, _MAX_BYTES)
    found = {}
    for made, (run, name, script, started, params, argv, cells, earlier), stamp, summary in rows:
        if not all(isinstance(text, str) for text in (run, name, script)) or not isinstance(started, float):
            raise TypeError(run)
        if not isinstance(summary, dict | None):
            raise TypeError(run)
        found[run] = _Row(
            made,
            ListedRun(run, name, script, started, dict(params), argv, cells, tuple(earlier)),
            stamp,
            summary,
        )
    return found


def _write(path: Path, rows: dict[str, _Row]) -> None:
    held = [
        (
            row.made,
            tuple(getattr(row.listed, name) for name in ListedRun.__slots__),
            row.stamp,
            row.summary,
        )
        for row in rows.values()
    ]
    write_hint(path, held)
