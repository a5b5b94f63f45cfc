"""Reading a store: runs, values, state, iterations and records, also while a run is being written.

Values that were logged and values that a replay found later stand side by side; ``trust`` tells them apart.
A later replay of a statement replaces what an earlier one found.
"""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

from florlog_recovery import RunTree
from florlog_wal import Commit, Entry, Hindsight, Statement, Store, Values
from florlog_wal import Path as IterationPath

from ._guide import where
from ._image import SavedState
from ._session import newest_run, open_store, sessions_of, store_path, tree_of
from ._tree import readable
from .errors import FlorlogError, NoSuchRunError

if TYPE_CHECKING:
    import pandas as pd

RECORDED = "RECORDED"


@dataclass(frozen=True, slots=True)
class Value:
    """One value of one iteration."""

    name: str
    path: IterationPath
    value: Any
    statement: Statement
    trust: str  # "RECORDED", or how far a replayed value can be trusted


class RunView:
    """A recorded run, as its log tells it at the time of reading."""

    def __init__(self, store: Store, run: str) -> None:
        self._store = store
        self.id = run

    def tree(self) -> RunTree:
        """The run tree, analysed afresh."""
        return tree_of(self._store, self.id)

    def __repr__(self) -> str:
        return f"RunView({self.id!r})"

    def logged(self) -> Iterator[Value]:
        """Every recorded value in timeline order, then every value found by replays."""
        tree = self.tree()
        for lsn, path in _value_records(tree):
            entry = self._store.record(lsn)
            assert isinstance(entry.record, Commit | Values)
            for statement, name, value in entry.record.values:
                yield Value(name, path, readable(value), tree.statements[entry.session][statement], RECORDED)
        yield from self._hindsight(tree)

    def _hindsight(self, tree: RunTree) -> Iterator[Value]:
        """What replays found; for a name and iteration the newest replay counts."""
        found: dict[tuple[str, str, IterationPath], list[Value]] = {}
        for session in sessions_of(self._store, self.id):
            if session.lsn not in tree.replays:
                continue
            table: dict[int, Statement] = {}
            fresh: dict[tuple[str, str, IterationPath], list[Value]] = {}
            for entry in self._store.scan(session.lsn, session.last_lsn + 1, session=session.lsn):
                if isinstance(entry.record, Statement):
                    table[entry.record.id] = entry.record
                elif isinstance(entry.record, Hindsight):
                    for statement, name, value in entry.record.values:
                        site = table[statement]
                        key = (site.qualname, name, entry.record.path)
                        item = Value(name, entry.record.path, readable(value), site, entry.record.trust)
                        fresh.setdefault(key, []).append(item)
            found |= fresh
        for values in found.values():
            yield from values

    def values(self, *names: str) -> pd.DataFrame:
        """One row per iteration that logged any of ``names`` (default: all).

        Columns: one per loop (NA for loops that are not around the iteration), one per name, and ``trust``,
        the least trust of the row's values.  A name logged several times in an iteration gives a list.
        """
        return frame_of_values(list(self.logged()), self.tree(), names)

    def state_at(self, *, at: Literal["start", "end"] = "start", **indices: int) -> dict[str, Any]:
        """The tracked state at an iteration's start or end: tracked name -> state, from the image there.

        Raises `FlorlogError` when no image stands at that boundary.
        """
        tree = self.tree()
        path = tuple(indices.items())
        place = tree.locate(path)
        if place is None or not path:
            raise FlorlogError(f"run {self.id} has no iteration {where(path)}")
        loop, index = place
        index += at == "end"
        image = loop.images.get(index)
        if image is None:
            near = max((boundary for boundary in loop.images if boundary < index), default=None)
            hint = (
                f"the nearest image before it is at {where(loop.path(near))}"
                if near is not None
                else "none is near"
            )
            raise FlorlogError(f"no image stands at the {at} of {where(path)}: {hint}")
        saved = SavedState(self._store, image.table)
        return {name: _public(saved.tree(name)) for name in saved.names() if not name.startswith("/")}

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
        """Every record of the run's sessions, replays included."""
        for session in sessions_of(self._store, self.id):
            yield from self._store.scan(session.lsn, session.last_lsn + 1, session=session.lsn)

    def summary(self) -> dict[str, Any]:
        """What ``florlog runs`` shows."""
        sessions = sessions_of(self._store, self.id)
        tree = self.tree()
        first = sessions[0].begin
        return {
            "run": self.id,
            "name": first.name,
            "script": first.script,
            "status": tree.status,
            "started": dt.datetime.fromtimestamp(first.started, dt.UTC).isoformat(timespec="seconds"),
            "iterations": tree.innermost_iterations(),
            "bytes": sum(session.nbytes for session in sessions),
        }


class Log:
    """A store opened for reading.  Made by `florlog.open`; use it as a context manager or `close` it."""

    def __init__(self, store: Store) -> None:
        self.store = store

    @property
    def runs(self) -> list[RunView]:
        """All runs, oldest first."""
        order = dict.fromkeys(s.begin.run for s in self.store.sessions() if s.begin.kind != "replay")
        return [RunView(self.store, run) for run in order]

    def run(self, run: str | None = None) -> RunView:
        """A run by id, default the newest; raises `NoSuchRunError`."""
        if run is not None:
            sessions_of(self.store, run)
            return RunView(self.store, run)
        newest = newest_run(self.store, lambda begin: True)
        if newest is None:
            raise NoSuchRunError(f"the store {self.store.path} has no runs yet")
        return RunView(self.store, newest)

    def values(self, *names: str, run: str | None = None) -> pd.DataFrame:
        """`RunView.values` of a run, default the newest."""
        return self.run(run).values(*names)

    def state_at(
        self, *, run: str | None = None, at: Literal["start", "end"] = "start", **indices: int
    ) -> dict[str, Any]:
        """`RunView.state_at` of a run, default the newest."""
        return self.run(run).state_at(at=at, **indices)

    def iterations(self, run: str | None = None) -> Iterator[dict[str, Any]]:
        """`RunView.iterations` of a run, default the newest."""
        return self.run(run).iterations()

    def records(self, run: str | None = None) -> Iterator[Entry]:
        """`RunView.records` of a run, default the newest."""
        return self.run(run).records()

    def close(self) -> None:
        """Let go of the store."""
        self.store.close()

    def __enter__(self) -> Log:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_log(store: str | os.PathLike[str] | None = None) -> Log:
    """Open a store for reading, also while a run writes to it.

    Raises `StoreError` when there is no store at that place.
    """
    return Log(open_store(Path(store_path(store)), "r"))


def _value_records(tree: RunTree) -> Iterator[tuple[int, IterationPath]]:
    """The records that hold values, by LSN, with their iteration's path."""
    found: list[tuple[int, IterationPath]] = [(lsn, ()) for lsn in tree.root.values]
    for loop in tree.loops():
        found.extend((lsn, loop.path(index)) for index, lsn in enumerate(loop.commits))
        found.extend((lsn, node.path) for node in loop.nodes.values() for lsn in node.values)
    return iter(sorted(found))


def _public(tree: Any) -> Any:
    """A module's state as its state dict; other states as they are."""
    if isinstance(tree, dict) and {"state", "loose", "grads", "training"} <= tree.keys():
        return tree["state"]
    return tree


_ORDER = ("DIVERGED", "UNVERIFIED", "CONSISTENT", "PROVEN", RECORDED)


def frame_of_values(values: list[Value], tree: RunTree, names: tuple[str, ...]) -> pd.DataFrame:
    """The table of `RunView.values`."""
    import pandas as pd  # here, as recording does without it and importing it takes longer than florlog

    loops = list(dict.fromkeys(loop.name for loop in tree.loops()))
    loops += [name for value in values for name, _ in value.path if name not in loops]
    loops = list(dict.fromkeys(loops))
    rows: dict[IterationPath, dict[str, Any]] = {}
    columns = list(names) or list(dict.fromkeys(value.name for value in values))
    for value in values:
        if value.name not in columns:
            continue
        row = rows.setdefault(value.path, {"trust": RECORDED})
        if value.name in row:
            held = row[value.name]
            row[value.name] = _Several(
                [*held, value.value] if isinstance(held, _Several) else [held, value.value]
            )
        else:
            row[value.name] = value.value
        row["trust"] = min(row["trust"], value.trust, key=_ORDER.index)
    used = [loop for loop in loops if any(loop == name for path in rows for name, _ in path)]
    ordered = sorted(rows, key=lambda path: [(loops.index(name), index) for name, index in path])
    data: dict[str, Any] = {
        loop: pd.array([dict(path).get(loop, pd.NA) for path in ordered], dtype="Int64") for loop in used
    }
    for column in columns:
        data[column] = pd.Series([_cell(rows[path].get(column, None)) for path in ordered]).infer_objects()
    data["trust"] = pd.array([rows[path]["trust"] for path in ordered], dtype="string")
    return pd.DataFrame(data)


class _Several(list[Any]):
    """The values of a name that an iteration logged more than once."""


def _cell(value: Any) -> Any:
    return list(value) if isinstance(value, _Several) else value
