"""Whether the code that lies in a store may be executed.

A store may come from somebody else.  Its recorded source is executed only if the run was recorded on this machine by
this user (`florlog.program.signing`), or if the user said so for this run.  `permit` decides that, and nothing else
does: what executes recorded code takes a `Permit`, which nothing else makes.

A script that the user names is the user's own file, and needs none.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from florlog_recovery import RunTree
from florlog_wal import Note, RunLog, SessionInfo, WalError

from florlog.errors import UntrustedRunError
from florlog.program.process import this_process
from florlog.program.signing import SIGNATURE, is_later_signed, is_signed, user_key

_Source = tuple[str, str, bytes]  # path, module, page


class Trust:
    """The runs whose code the user lets be executed, by id; ``ask``: on a terminal others are asked for, once each."""

    def __init__(self, runs: str | Iterable[str] = (), *, ask: bool = False) -> None:
        self._runs = {runs} if isinstance(runs, str) else set(runs)
        self._ask = ask
        self._asked: set[str] = set()

    @property
    def runs(self) -> list[str]:
        """The ids, for a process that executes a run."""
        return sorted(self._runs)

    def covers(self, run: str) -> bool:
        """Whether the user said so for a run, now or before."""
        if run not in self._runs | self._asked and self._ask:
            self._asked.add(run)
            if _confirmed(run):
                self._runs.add(run)
        return run in self._runs


@dataclass(frozen=True, slots=True)
class Permit:
    """The code of this run may be executed."""

    run: str


def permit(log: RunLog, tree: RunTree, trust: Trust) -> Permit:
    """The permit for a run's recorded code.  Raises `UntrustedRunError` where there is none."""
    if not is_own(log, tree):
        if not trust.covers(tree.run):
            raise UntrustedRunError(tree.run)
        this_process.trusts_images = True
    return Permit(tree.run)


def is_own(log: RunLog, tree: RunTree) -> bool:
    """Whether this user recorded a run on this machine: all that decides what is executed is signed with the key."""
    key = user_key()
    if key is None:
        return False
    try:
        return _is_own(log, tree, key)
    except WalError:  # a text that is missing or damaged
        return False


def _is_own(log: RunLog, tree: RunTree, key: bytes) -> bool:
    sources: set[_Source] = set()
    newest = False  # whether the session is signed whose arguments and environment a replay takes
    for session in log.sessions():
        begin = session.begin
        if session.lsn not in tree.sessions:
            continue
        newest = is_signed(key, begin, [log.get_page(page) for _, _, page in begin.sources])
        if newest:
            sources.update(begin.sources)
            sources.update(_later(log, session, key))
    return newest and all((path, *source) in sources for path, source in tree.sources.items())


def _later(log: RunLog, session: SessionInfo, key: bytes) -> Iterator[_Source]:
    """The signed sources that a signed session stored at its end."""
    begin = session.begin
    for entry in log.scan(session.lsn, session.last_lsn + 1, types=(Note,), session=session.lsn):
        note = entry.record
        assert isinstance(note, Note)
        path, page = note.data.get("path"), note.data.get("page")
        if note.kind != "source" or not isinstance(path, str) or not isinstance(page, bytes):
            continue
        if is_later_signed(key, begin, note.text, path, log.get_page(page), note.data.get(SIGNATURE)):
            yield path, note.text.rpartition(" ")[2], page


def _confirmed(run: str) -> bool:
    """What the user answers on a terminal; no where there is none."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return False
    question = f"florlog: run {run!a} was not recorded on this machine by you. Execute its code? [y/N] "
    print(question, end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")
