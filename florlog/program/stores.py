"""Stores and the runs in them: opening one, and finding a run by its id or its script."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

from florlog_recovery import RunTree, analyse
from florlog_wal import RunBegin, RunLog, SessionInfo, WalError

from florlog.errors import NoSuchRunError, StoreError


def store_path(store: str | os.PathLike[str] | None) -> Path:
    """The store that is meant: the one given, else $FLORLOG_STORE, else ./.florlog."""
    return Path(store or os.environ.get("FLORLOG_STORE") or ".florlog").absolute()


def open_store(path: Path, mode: Literal["r", "w"], **options: Any) -> RunLog:
    """Open a store; a florlog error in one line when that fails."""
    if mode == "r" and not path.is_dir():
        raise StoreError(f"there is no store at {path}: give one with --store or $FLORLOG_STORE")
    try:
        return RunLog.open(path, mode=mode, **options)
    except WalError as error:
        raise StoreError(str(error)) from None
    except OSError as error:
        raise StoreError(f"cannot open the store {path}: {error}") from None


def sessions_of(store: RunLog, run: str) -> list[SessionInfo]:
    """A run's sessions, oldest first; raises `NoSuchRunError`."""
    found = [session for session in store.sessions() if session.begin.run == run]
    if not found:
        known = sorted({session.begin.run for session in store.sessions()})
        listed = f"the store has {', '.join(known[-5:])}" if known else "the store is empty"
        raise NoSuchRunError(f"no run {run!r} in {store.path}: {listed}")
    return found


def tree_of(store: RunLog, run: str) -> RunTree:
    """The tree of a run."""
    return _tree(store, sessions_of(store, run), _written_run(store, store.sessions()))


def all_trees(store: RunLog) -> Iterator[tuple[list[SessionInfo], RunTree]]:
    """Each run's sessions and tree, oldest run first; the sessions are listed once."""
    listed = store.sessions()
    written = _written_run(store, listed)
    by_run: dict[str, list[SessionInfo]] = {}
    for session in listed:
        by_run.setdefault(session.begin.run, []).append(session)
    for sessions in by_run.values():
        if any(session.begin.kind != "replay" for session in sessions):
            yield sessions, _tree(store, sessions, written)


def _written_run(store: RunLog, listed: list[SessionInfo]) -> str | None:
    """The run that another process is recording now."""
    holder = store.writer()
    recorded = [session for session in listed if session.begin.kind != "replay"]
    live = holder is not None and holder.pid != os.getpid() and bool(recorded)
    return recorded[-1].begin.run if live else None


def _tree(store: RunLog, sessions: list[SessionInfo], written: str | None) -> RunTree:
    return analyse(store, sessions, running=sessions[0].begin.run == written)


def is_recorded_from(begin: RunBegin, script: str | os.PathLike[str]) -> bool:
    """Whether a run's script is this file, whatever links lead to it."""
    try:
        return os.path.realpath(begin.script) == os.path.realpath(script)
    except ValueError:  # no file can have such a name
        return False


def newest_run(store: RunLog, fits: Callable[[RunBegin], bool]) -> str | None:
    """The id of the newest run whose first record fits."""
    runs = [s.begin.run for s in store.sessions() if s.begin.kind != "replay" and fits(s.begin)]
    return runs[-1] if runs else None
