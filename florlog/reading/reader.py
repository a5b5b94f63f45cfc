"""Reading a store: runs, values, state, iterations and records, also while a run is being written.

Logged values and values that a replay found later are read together; ``trust`` says which is which.
A later replay of a statement replaces what an earlier one found.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

from florlog_recovery import Loop, RunTree
from florlog_wal import Commit, Entry, Hindsight, LoopBegin, RunEnd, RunLog, Statement, Store, Values
from florlog_wal import Path as IterationPath

from florlog.program.stores import (
    answers_of,
    listed_runs,
    log_of,
    newest_run,
    open_store,
    store_path,
    tree_of,
)
from florlog.programs.permission import Trust
from florlog.reading.arrow import arrow, sql
from florlog.reading.columns import RECORDED, Columns, known_trust
from florlog.reading.frame import frame
from florlog.reading.summaries import summaries, summary_of
from florlog.reading.value_table import table_of
from florlog.state.readable_values import readable

if TYPE_CHECKING:
    import pandas as pd

    from florlog.redo.past_state import PastState


@dataclass(frozen=True, slots=True)
class LoggedValue:
    """One value of one iteration."""

    name: str
    path: IterationPath
    value: Any
    statement: Statement
    trust: str  # "RECORDED", or how far a replayed value can be trusted


class RunView:
    """A recorded run, as its log is at the time of reading."""

    def __init__(self, log: Callable[[], RunLog], run: str, trust: Trust | None = None) -> None:
        """``log`` gives the run's log, open for reading."""
        self._log = log
        self.id = run
        self.trust = trust or Trust()
        """Whose code may be executed, where this run is somebody else's."""

    @property
    def log(self) -> RunLog:
        """Its records and pages."""
        return self._log()

    def tree(self) -> RunTree:
        """The run tree, analysed afresh."""
        return tree_of(self.log)

    def __repr__(self) -> str:
        return f"RunView({self.id!r})"

    def logged(self) -> Iterator[LoggedValue]:
        """Every recorded value in timeline order, then every value found by replays."""
        tree, log = self.tree(), self.log
        loops = {(loop.parent.path, loop.name): loop for loop in tree.loops()}
        known: dict[int, Loop | None] = {0: None}
        for session in log.sessions():
            statements = tree.statements[session.lsn]
            for entry in log.scan(
                session.lsn, session.last_lsn + 1, types=(LoopBegin, Commit, Values), session=session.lsn
            ):
                record = entry.record
                if isinstance(record, LoopBegin):
                    known[entry.lsn] = loops.get((record.path, record.name))
                    continue
                assert isinstance(record, Commit | Values)
                if not record.values or record.loop not in known:
                    continue
                loop = known[record.loop]
                if isinstance(record, Commit):
                    if not _counts(loop, record.index, entry.lsn):
                        continue
                else:
                    node = tree.root if loop is None else loop.nodes[record.index]  # analysis has made it
                    if entry.lsn not in node.values:  # a resume logged the segment again
                        continue
                path = loop.path(record.index) if loop is not None else ()
                for statement, name, value in record.values:
                    yield LoggedValue(name, path, readable(value), statements[statement], RECORDED)
        yield from self.hindsight()

    def hindsight(self) -> Iterator[LoggedValue]:
        """What replays found; for a name and iteration the newest replay counts."""
        found: dict[tuple[str, str, IterationPath], list[LoggedValue]] = {}
        for answers, session in answers_of(self.log):
            if not session.counts.get(RunEnd):
                continue  # a replay that was killed while it stored its values: they are not complete
            table: dict[int, Statement] = {}
            fresh: dict[tuple[str, str, IterationPath], list[LoggedValue]] = {}
            for entry in answers.scan(session.lsn, session.last_lsn + 1, session=session.lsn):
                if isinstance(entry.record, Statement):
                    table[entry.record.id] = entry.record
                elif isinstance(entry.record, Hindsight):
                    trust = known_trust(entry.record.trust)
                    for statement, name, value in entry.record.values:
                        if (site := table.get(statement)) is None:
                            continue
                        key = (site.qualname, name, entry.record.path)
                        item = LoggedValue(name, entry.record.path, readable(value), site, trust)
                        fresh.setdefault(key, []).append(item)
            found |= fresh
        for values in found.values():
            yield from values

    def values(self, *names: str) -> pd.DataFrame:
        """One row per iteration that logged any of ``names`` (default: all).

        Columns: one per loop (NA for loops that are not around the iteration), one per name, and ``trust``, an
        ordered category: the least trust of the row's values.  Numbers are float64 or int64, truth values bool,
        with gaps Int64 and boolean.  A name logged several times in an iteration gives a list.
        """
        return frame(self.columns(*names))

    def columns(self, *names: str) -> Columns:
        """The table that `values` and `to_arrow` convert."""
        return table_of(self.log, names)

    @property
    def params(self) -> dict[str, Any]:
        """The hyperparameters that the run was opened with."""
        return {key: readable(value) for key, value in self.log.sessions()[0].begin.params.items()}

    def to_arrow(self, *names: str) -> Any:
        """`values` as a pyarrow Table; values that are no numbers are text.  Needs ``florlog[frame]``."""
        return arrow(self.columns(*names))

    def plot(self, *names: str, x: str | None = None, axes: Any = None) -> Any:
        """Draw names with matplotlib over a loop's index or another name, default the order of iterations.

        Over a loop there is a curve for each iteration around it.  Returns the axes.  Needs ``florlog[plot]``;
        raises `FlorlogError` for a name that has no values.
        """
        from florlog.reading.plot import plot

        return plot(self.columns(*names, *([x] if x else [])), names, x, axes)

    def _repr_html_(self) -> str:
        from florlog.reading.plot import run_html

        return run_html(self)

    def state_at(self, *, at: Literal["start", "end"] = "start", **indices: int) -> PastState:
        """The tracked state at an iteration's start or end: tracked name -> state.

        ``state_at(epoch=3, step=17)``.  Where there is no image, the recorded program is executed from the nearest one
        on, in a process of its own; ``trust`` and ``detail`` of the answer say how far the state is proven.

        Raises `UntrustedRunError` when somebody else may have made the run, whose code would be executed (see
        `florlog.open`), `DivergedError`, which names the first difference, when that does not give what was recorded,
        and `FlorlogError` when the run has no such iteration or its script fails.
        """
        from florlog.redo.past_state import state_at  # which imports torch

        return state_at(self.log, self.tree(), tuple(indices.items()), at, self.trust)

    def iterations(self) -> Iterator[dict[str, Any]]:
        """Every committed iteration in the order of begin: its path, seconds, and LSN of its commit."""
        for loop in self.tree().loops():
            for index in range(loop.count):
                yield {
                    "path": dict(loop.path(index)),
                    "seconds": loop.seconds[index],
                    "lsn": loop.commits[index],
                    "image": index in loop.images,
                }

    def records(self) -> Iterator[Entry]:
        """Every record of the run's log."""
        yield from self.log.scan()

    def summary(self) -> dict[str, Any]:
        """What ``florlog runs`` shows."""
        return summary_of(self.log)


class Log:
    """A store opened for reading.  Made by `florlog.open`; use it as a context manager or `close` it."""

    def __init__(self, store: Store, trust: Trust | None = None) -> None:
        self.store = store
        self._trust = trust or Trust()

    @property
    def runs(self) -> list[RunView]:
        """All runs, oldest first."""
        return [self._view(listed.run) for listed in listed_runs(self.store)]

    def run(self, run: str | None = None) -> RunView:
        """A run by id, default the newest; raises `NoSuchRunError`."""
        if run is None:
            return self._view(newest_run(self.store))
        log_of(self.store, run)
        return self._view(run)

    def _view(self, run: str) -> RunView:
        return RunView(lambda: log_of(self.store, run), run, self._trust)

    def values(self, *names: str, run: str | None = None) -> pd.DataFrame:
        """`RunView.values` of a run, default the newest."""
        return self.run(run).values(*names)

    def state_at(
        self, *, run: str | None = None, at: Literal["start", "end"] = "start", **indices: int
    ) -> PastState:
        """`RunView.state_at` of a run, default the newest."""
        return self.run(run).state_at(at=at, **indices)

    def iterations(self, run: str | None = None) -> Iterator[dict[str, Any]]:
        """`RunView.iterations` of a run, default the newest."""
        return self.run(run).iterations()

    def records(self, run: str | None = None) -> Iterator[Entry]:
        """`RunView.records` of a run, default the newest."""
        return self.run(run).records()

    def sql(self, query: str) -> pd.DataFrame:
        """The answer to a query over all runs, through DuckDB.  Needs ``florlog[frame]``.

        Tables: ``runs`` as ``florlog runs`` lists them; ``params`` (run, name, value as JSON); ``iterations``,
        the rows of `RunView.values` of every run, with the run.
        """
        return sql(self, summaries(self.store), query)

    def _repr_html_(self) -> str:
        import pandas as pd

        return str(pd.DataFrame(list(summaries(self.store))).to_html(index=False))

    def close(self) -> None:
        """Close the store."""
        self.store.close()

    def __enter__(self) -> Log:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_log(store: str | os.PathLike[str] | None = None, *, trust: str | Iterable[str] = ()) -> Log:
    """Open a store for reading, also while a run writes to it.

    ``trust``: ids of runs that somebody else recorded, or you elsewhere, and whose code `RunView.state_at` may execute.
    Raises `StoreError` when there is no store at that place.
    """
    return Log(open_store(store_path(store)), Trust(trust))


def _counts(loop: Loop | None, index: int, lsn: int) -> bool:
    """Whether a commit was not undone afterwards."""
    return loop is not None and index < loop.count and loop.commits[index] == lsn
