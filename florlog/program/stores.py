"""Stores and the runs in them: opening one, and finding a run by its id or its script."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from florlog_recovery import RunTree, analyse
from florlog_wal import RUNS, NoSuchRun, RunLog, SessionInfo, Store, WalError

from florlog.errors import NoSuchRunError, StoreError
from florlog.program.catalogue import Catalogue, ListedRun

_Made = TypeVar("_Made")


def store_path(store: str | os.PathLike[str] | None) -> Path:
    """The store that is meant: the one given, else $FLORLOG_STORE, else ./.florlog."""
    return Path(store or os.environ.get("FLORLOG_STORE") or ".florlog").absolute()


def open_store(path: Path) -> Store:
    """Open a store for reading; a florlog error in one line when that fails."""
    if not path.is_dir():
        raise StoreError(f"there is no store at {path}: give one with --store or $FLORLOG_STORE")
    return _opened(path, Store.open, path)


def make_store(path: Path) -> Store:
    """Open a store to record into; a florlog error in one line when that fails."""
    return _opened(path, Store.make, path)


def open_log(path: Path) -> RunLog:
    """Open the log in a run's directory for reading; a florlog error in one line when that fails."""
    return _opened(path, RunLog.open, path)


def log_of(store: Store, run: str) -> RunLog:
    """A run's log for reading; raises `NoSuchRunError` or `StoreError`."""
    return _opened(store.path, _log_of, store, run)


def open_run(store: Store, run: str, **options: Any) -> RunLog:
    """A run's log for writing, of a run that goes on; raises `NoSuchRunError` or `StoreError`."""
    log_of(store, run)
    return _opened(store.path, functools.partial(store.open_log, run, **options))


def _log_of(store: Store, run: str) -> RunLog:
    with contextlib.suppress(NoSuchRun):
        return store.log(run)
    known = [listed.run for listed in listed_runs(store)]
    has = f"the store has {', '.join(known[-5:])}" if known else "the store is empty"
    raise NoSuchRunError(f"no run {run!r} in {store.path}: {has}")


def _opened(path: Path, work: Callable[..., _Made], *arguments: Any) -> _Made:
    try:
        return work(*arguments)
    except WalError as error:
        raise StoreError(str(error)) from None
    except OSError as error:
        raise StoreError(f"cannot open the store {path}: {error}") from None


def store_of(log: RunLog) -> Path | None:
    """The directory of the store that a run lies in; None for one that was put elsewhere."""
    return log.path.parents[1] if log.path.parent.name == RUNS else None


def is_written(log: RunLog) -> bool:
    """Whether another process records the run now."""
    holder = log.writer()
    return holder is not None and holder.pid != os.getpid()


def tree_of(log: RunLog) -> RunTree:
    """The tree of a run."""
    running = is_written(log)  # before reading: so what a writer wrote last is read
    return analyse(log, log.sessions(), running=running)


def answers_of(log: RunLog) -> list[tuple[RunLog, SessionInfo]]:
    """What replays of a run have stored, oldest first: each a session of the log that comes with it."""
    answers = log.answers
    return [] if answers is None else [(answers, session) for session in answers.sessions()]


def is_recorded_from(script: str, file: str | os.PathLike[str]) -> bool:
    """Whether a run's script is this file, whatever links lead to it."""
    try:
        return os.path.realpath(script) == os.path.realpath(file)
    except ValueError:  # no file can have such a name
        return False


def listed_runs(store: Store) -> list[ListedRun]:
    """All runs, oldest first."""
    with Catalogue(store) as catalogue:
        return catalogue.runs()


def newest_run(store: Store, fits: Callable[[ListedRun], bool] = lambda run: True) -> str:
    """The id of the newest run that fits; raises `NoSuchRunError`."""
    runs = [listed.run for listed in listed_runs(store) if fits(listed)]
    if not runs:
        raise NoSuchRunError(f"the store {store.path} has no runs yet")
    return runs[-1]
