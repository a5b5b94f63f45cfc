"""The recording side of the log: one session's records, its statement table, and what happens when it fails.

Whatever goes wrong while logging, the training goes on: the first failure is reported once as a warning
that says what is safe, and from then on nothing is written.  A thread looks after the run meanwhile: it sees within
a second that its directory has vanished or that its disk refuses what is written.  With ``strict`` the failure is
raised once, as `StoreError`, by the next call on the training's thread.
"""

from __future__ import annotations

import ast
import itertools
import math
import threading
import time
import weakref
from dataclasses import replace
from typing import NamedTuple

from florlog_wal import (
    Commit,
    CommitFields,
    Failure,
    Note,
    Path,
    Record,
    RunBegin,
    RunEnd,
    RunLog,
    Statement,
    Values,
)
from florlog_wal.directory import MANIFEST

from florlog.errors import StoreError
from florlog.following.stack import Site
from florlog.program.environment import local_sources
from florlog.program.process import this_process
from florlog.program.signing import SIGNATURE, later_signature, signed
from florlog.program.terminal import reason, warn
from florlog.recording.gpu_values import arrived, receive
from florlog.recording.once import Once, from_signal_handler
from florlog.source.names.calls import log_calls
from florlog.source.names.syntax import SourceError

MAX_HOLD_SECONDS = 0.2
"""Commits that are held for longer are written with the next one."""
LOOK_INTERVAL_SECONDS = 0.2
"""A thread looks this often for a commit that is held and after which no other comes, and after the log."""
_LOOKS_BEFORE_REPORT = 3
"""At so many looks in a row the disk has refused what is written before that is reported."""
_LONE_COMMIT_SECONDS = 1e-4  # what a commit by itself takes between two steps of training
_COMMIT_SHARE = 0.25  # of the overhead


class _StoredSource(NamedTuple):
    path: str
    module: str
    page: bytes
    text: bytes


class Journal:
    """Appends the records of one session."""

    def __init__(
        self, log: RunLog, begin: RunBegin, overhead: float = math.inf, *, strict: bool = False
    ) -> None:
        self.log = log
        self._once = Once(log)
        self._strict = strict
        self._error: Exception | None = None
        """What the training's thread is still to raise."""
        self._refused = 0  # looks in a row at which the log could not be written
        self._reported = False  # that it cannot be written
        self._identity = _manifest_file(log)
        self.brief_seconds = 0.0
        """Iterations that take fewer seconds commit together: one after the other each costs less."""
        if not log.durable_commits:
            self.brief_seconds = _LONE_COMMIT_SECONDS / (_COMMIT_SHARE * overhead) if overhead else math.inf
        self.held: list[CommitFields] = []
        """Commits that are for `settle`: of such iterations, and of those whose values are still on a GPU."""
        self._settling = threading.Lock()
        self._closed = threading.Event()
        self.stopped = False
        self.late = False
        """Whether values have been logged that were still on a GPU."""
        self._sites: dict[tuple[str, Site], int] = {}
        self._places: dict[tuple[str, int, str, tuple[str, ...]], int] = {}
        self._numbers = itertools.count(1)
        self._hashes: dict[str, dict[int, bytes]] = {}
        self._sources: set[str] = set()
        self.session = 0
        stored = self._store_sources(begin.script)
        sources = tuple((source.path, source.module, source.page) for source in stored)
        self._begin = signed(replace(begin, sources=sources), [source.text for source in stored])
        self.session = log.append(self._begin)

    def append(self, record: Record, prev: int = 0) -> int:
        """Append a record; its LSN, or 0 once the log has stopped.

        What a signal's handler raises meanwhile comes out; called again, this appends the record once (`Once`).
        """
        if self.held and not self.stopped:
            self.settle(wait=True)
        if self.stopped:
            self.complain()
            return 0
        try:
            if self.late and isinstance(record, (Commit, Values)):
                record = replace(record, values=tuple(arrived(record.values)))
            return self._once.append(record, self.session, prev)
        except Exception as error:  # whatever it is, the training goes on
            if from_signal_handler(error):
                raise
            self.stop(error)
            self.complain()
            return 0

    def beginning(self, path: Path, name: str) -> int:
        """The LSN of a loop's LoopBegin whose append was interrupted; 0 if it is not in the log."""
        return self._once.beginning(path, name, self.session)

    def settle(self, *, wait: bool = False) -> None:
        """Commit what is held; what is still on a GPU, and what comes after it, only if it is to ``wait`` for that."""
        self.settle_held(wait=wait)
        if self.stopped:
            self.complain()

    def settle_held(self, *, wait: bool = False) -> None:
        """As `settle`, for any thread: raises nothing but what a signal's handler does."""
        held = self.held
        if self.stopped:
            held.clear()
            return
        with self._settling:
            try:
                count = receive(held, wait=wait) if self.late else len(held)
                self.log.commit(self.session, held, count)
            except Exception as error:
                if from_signal_handler(error):
                    raise
                self.stop(error)

    def watch(self) -> None:
        """From now on a thread looks after the log, and no commit is held for longer than two looks."""
        threading.Thread(
            target=_attend, args=(weakref.ref(self), self._closed), name="florlog-held", daemon=True
        ).start()

    def look(self) -> None:
        """Whether the log is still there, and can be written; called by the thread that looks after it."""
        if self.stopped:
            return
        if _manifest_file(self.log) != self._identity:
            self.stop(StoreError(f"the store {self.log.path} is gone: it was deleted, moved or replaced"))
            return
        why = self.log.failure
        if why is None or self._closed.is_set():
            self._refused = 0
            return
        self._refused += 1
        if self._refused != _LOOKS_BEFORE_REPORT:
            return
        if self._strict:
            self.stop(StoreError(f"{self.log.path} cannot be written: {why}"))
        elif not self._reported:
            self._reported = True
            warn(
                f"{self.log.path} cannot be written ({why}): what is logged is kept in the log tail while it has "
                "room, and written when the disk takes it; the training goes on; make room"
            )

    def disown(self) -> None:
        """In a forked child: nothing is written."""
        self.stopped = True

    def stop(self, error: Exception) -> None:
        """Report the failure that ended the recording, once.  Any thread may call this."""
        if not self.stopped:
            self.stopped = True
            self.held.clear()
            text = f"stopped recording, the training goes on: {reason(error)}"
            if self._strict:
                self._error = StoreError(f"florlog {text.replace(', the training goes on', '')}")
            else:
                warn(text)

    def complain(self) -> None:
        """Raise what ended the recording, once, where the run is strict."""
        error, self._error = self._error, None
        if error is not None:
            raise error

    def statement(self, kind: str, site: Site, loops: tuple[str, ...], names: tuple[str, ...]) -> int:
        """The id of a call site; its first use puts it into the statement table."""
        found = self._sites.get((kind, site))
        if found is None:
            code, line = site
            file, line = this_process.notebook.placed(code.co_filename, line)
            found = self._sites[kind, site] = self.place(
                file, line, code.co_qualname, loops, names, kind=kind
            )
        return found

    def place(
        self,
        file: str,
        line: int,
        qualname: str,
        loops: tuple[str, ...],
        names: tuple[str, ...],
        *,
        kind: str = "log",
        text_at: str = "",
    ) -> int:
        """The id of a source position; a new one goes into the statement table.

        ``text_at``: the file that has the text, where that is another one.
        """
        key = (file, line, kind, names)
        found = self._places.get(key)
        if found is None:
            found = next(self._numbers)
            digest = self._source_hash(text_at or file, line)
            self.append(Statement(found, kind, file, qualname, line, digest, loops, names), prev=self.session)
            self._places[key] = found
        return found

    def _source_hash(self, file: str, line: int) -> bytes:
        if file not in self._hashes:
            try:
                tree = ast.parse(this_process.text_of(file))
                self._hashes[file] = {call.line: call.source_hash for call in log_calls(tree)}
            except (SyntaxError, SourceError, ValueError, RecursionError, MemoryError):
                self._hashes[file] = {}
        return self._hashes[file].get(line, b"")

    def _store_sources(self, script: str) -> list[_StoredSource]:
        if self.stopped:
            return []
        try:
            sources = [source for source in local_sources(script) if source[0] not in self._sources]
            texts = [text.encode() for _, _, text in sources]
            digests = self.log.put_pages(texts).digests
        except Exception as error:
            text = "could not store the script's source, the run can be read but not replayed"
            if self._strict:
                raise StoreError(f"{text}: {reason(error)}") from error
            warn(f"{text}: {reason(error)}")
            return []
        self._sources.update(path for path, _, _ in sources)
        return [
            _StoredSource(path, name, digest, text)
            for (path, name, _), digest, text in zip(sources, digests, texts, strict=True)
        ]

    def end(self, script: str, started: float, status: str, failure: Failure | None) -> None:
        """Write the session's last records."""
        for path, name, page, text in self._store_sources(script):
            said = f"imported later: {name}"
            signature = later_signature(self._begin, said, path, text)
            held = {"path": path, "page": page} | ({} if signature is None else {SIGNATURE: signature})
            self.append(Note("source", said, held), self.session)
        self.append(RunEnd(status, time.perf_counter() - started, failure), prev=self.session)
        self._closed.set()

    def close(self) -> None:
        """Close the log; a failure is reported unless another one was."""
        self._closed.set()
        try:
            self.log.close()
        except Exception as error:
            self.stop(error)
        self.complain()


def _attend(journal: weakref.ref[Journal], closed: threading.Event) -> None:
    seen: CommitFields | None = None
    while not closed.wait(LOOK_INTERVAL_SECONDS) and (it := journal()) is not None and not it.stopped:
        first = it.held[0] if it.held else None
        if first is seen is not None and it.brief_seconds:
            it.settle_held()
        seen = first
        it.look()
        del it


def _manifest_file(log: RunLog) -> tuple[int, int, int] | None:
    """Device, number and time of the manifest of a run, which is written once; None where it is not there.

    The time because a file system may give a new file the number of one that is gone.
    """
    try:
        found = (log.path / MANIFEST).stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_mtime_ns
