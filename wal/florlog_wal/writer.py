"""The log's writer: appends on any thread take microseconds, a background thread commits in groups.

`append` encodes without the lock, then takes the next LSN, completes the checksum and copies the tail frame into
the active segment.  When it returns, the record survives the death of the process.  Once per group window
the background thread swaps the segments and commits the records of the filled one in one LMDB transaction.  So
a power cut costs at most the window and the commit under way.  After a window without records the thread
sleeps until an append wakes it.  While records come it needs no waking, which would make the training
thread wait for the GIL.

Nothing spins.  An append waits only if both segments are full, that is, if the disk is megabytes behind.

When a commit fails (disk full, I/O error), its records stay in their segment and are tried again, because there
may be room later; appends go on in the other segment.  When that is full as well, the log stops for good: from then
on every call raises `LogStopped`, and a later open finds both segments and continues from them.  Trying again is
safe: LMDB rewrites all pages of the transaction, and `write_records` skips the records that an attempt of
unknown outcome did commit.
"""

from __future__ import annotations

import contextlib
import struct
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, TypeAlias

from florlog_wal import log, tail
from florlog_wal.codec import LSN_FACTOR, MASK, body_hash, encode_commit_body
from florlog_wal.directory import write_end
from florlog_wal.environment import Environment
from florlog_wal.errors import LogStopped, StoreFailed

FIRST_RETRY_SECONDS: Final = 0.05
MAX_RETRY_SECONDS: Final = 2.0
_FRAME_HEAD: Final = struct.Struct(">QQ").pack  # LSN, checksum
_PADDING: Final = bytes(7)
_MAX_COPY_BYTES: Final = 1 << 16  # of commits that are appended in one copy; a larger one has one of its own

CommitFields: TypeAlias = tuple[
    int, int, int, Sequence[tuple[int, str, Any]], float, bytes, bytes, bytes, bool
]
"""The fields of a `Commit`, in order.  The caller guarantees their types; values are such as `encode_value` takes."""


class LogWriter:
    """Appends records to a store's log; the store's writer lock is held by its owner."""

    def __init__(
        self, env: Environment, directory: Path, window: float, segment_size: int = tail.SEGMENT_BYTES
    ) -> None:
        self._env, self._directory, self._window = env, directory, window
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)  # after every attempt to commit
        self._armed = threading.Event()  # there is something to commit
        self._urgent = threading.Event()  # somebody waits for the commit
        self._durable = log.recover_tail(env, directory)
        self._next = self._durable + 1
        self._segments = tail.create(directory, segment_size, self._durable)
        self._active = 0
        self._segment = self._segments[0]  # the active one
        self._at = tail.FIRST_FRAME_AT  # where its next tail frame goes
        self._capacity = segment_size
        self._draining = False  # whether the other one has records that are not yet durable
        self._attempts = 0
        self._failure: str | None = None  # of the last attempt
        self._stopped: str | None = None  # for good
        self._closing = False
        self._idle = True  # the thread waits for the next append
        self._thread = threading.Thread(target=self._run, name="florlog-log", daemon=True)
        self._thread.start()

    @property
    def last_lsn(self) -> int:
        return self._next - 1

    @property
    def durable_lsn(self) -> int:
        return self._durable

    @property
    def failure(self) -> str | None:
        """Why the log stopped or its commits fail; otherwise None."""
        return self._stopped or self._failure

    def append(self, body: bytes) -> int:
        """Give an encoded body the next LSN; on return the record survives the death of the process.

        Raises `LogStopped`.
        """
        size = len(body) + 16
        hashed = body_hash(body)
        with self._lock:
            if self._stopped is not None:
                raise LogStopped(self._stopped, self._durable)
            at = self._at
            if at + size > self._capacity:
                self._make_room(size)
                at = self._at
            lsn = self._next
            head = _FRAME_HEAD(lsn, hashed ^ (lsn * LSN_FACTOR & MASK))
            if self._idle:
                self._idle = False
                self._armed.set()  # the thread waits for the lock
            # No call from here on, so no signal handler can raise in between.
            self._segment[at : at + size] = head + body
            self._at = (at + size + 7) & ~7
            self._next = lsn + 1
            return lsn

    def commit(self, session: int, held: list[CommitFields], count: int) -> None:
        """Append the first ``count`` commits of the list and remove them from it, many in one copy.

        After an exception, also one of a signal handler, the list has those that are not appended.
        """
        while count:
            bodies: list[bytes] = []
            size = 0
            for fields in held[:count]:
                bodies.append(encode_commit_body(session, 0, *fields))
                size += (len(bodies[-1]) + 23) & ~7
                if size > _MAX_COPY_BYTES:
                    break
            done = len(bodies)
            self._append_all(bodies, size, held)
            count -= done

    def _append_all(self, bodies: Sequence[bytes], size: int, held: list[CommitFields]) -> None:
        """`append` of bodies whose frames take ``size`` bytes; in the same instant the list loses as many items."""
        hashes = [body_hash(body) for body in bodies]
        done = len(bodies)
        with self._lock:
            if self._stopped is not None:
                raise LogStopped(self._stopped, self._durable)
            if self._at + size > self._capacity:
                self._make_room(size)
            at, lsn = self._at, self._next
            frames = bytearray()
            for number, (body, hashed) in enumerate(zip(bodies, hashes, strict=True), lsn):
                frames += _FRAME_HEAD(number, hashed ^ (number * LSN_FACTOR & MASK))
                frames += body
                frames += _PADDING[: -len(body) & 7]
            if self._idle:
                self._idle = False
                self._armed.set()  # the thread waits for the lock
            # No call from here on, so no signal handler can raise in between.
            self._segment[at : at + size] = frames
            self._at = at + size
            self._next = lsn + done
            del held[:done]

    def sync(self, lsn: int | None = None) -> int:
        """Wait until everything up to ``lsn`` (default: everything appended) is durable; the last durable LSN.

        Raises `LogStopped` if a commit fails meanwhile.
        """
        with self._lock:
            target = self._next - 1 if lsn is None else lsn
            seen = self._attempts
            while self._durable < target:
                if self._stopped is not None:
                    raise LogStopped(self._stopped, self._durable)
                if self._failure is not None and self._attempts > seen:
                    raise LogStopped(self._failure, self._durable)
                self._urgent.set()
                self._changed.wait()
            return self._durable

    def close(self) -> None:
        """Commit what is left and end the thread.  Raises `LogStopped` if something stays in the tail."""
        with self._lock:
            if self._closing:
                return
            self._closing = True
            self._armed.set()
            self._urgent.set()
        self._thread.join()
        with self._lock:
            whole = self._durable == self._next - 1
            if self._stopped is None:
                self._stopped = self._failure or "it was closed"
            for segment in self._segments:
                segment.close()
            if not whole:
                raise LogStopped(self._stopped, self._durable)
            with contextlib.suppress(OSError):  # both only help the next open
                write_end(self._directory, self._durable)
                tail.remove(self._directory)

    # -- under the lock ----------------------------------------------------------------------------

    def _make_room(self, size: int) -> None:
        """Wait until the active segment can take ``size`` bytes."""
        while self._at + size > self._capacity:
            if self._stopped is not None:
                raise LogStopped(self._stopped, self._durable)
            if self._failure is not None and self._at > tail.FIRST_FRAME_AT:
                self._stopped = f"{self._failure}, and the log tail is full"
                self._changed.notify_all()
                self._urgent.set()
                raise LogStopped(self._stopped, self._durable)
            if self._at == tail.FIRST_FRAME_AT and not self._draining:
                self._enlarge(size)
                return
            self._armed.set()
            self._urgent.set()
            self._changed.wait()

    def _enlarge(self, size: int) -> None:
        """Replace both segments, which are empty, by larger ones that a record of ``size`` bytes fits."""
        capacity = self._capacity
        while tail.FIRST_FRAME_AT + size > capacity:
            capacity *= 2
        try:
            segments = tail.create(self._directory, capacity, self._durable)
        except OSError as error:
            raise LogStopped(f"no room for a record of {size} bytes ({error})", self._durable) from None
        for segment in self._segments:
            segment.close()
        self._segments, self._capacity = segments, capacity
        self._active, self._segment, self._at = 0, segments[0], tail.FIRST_FRAME_AT

    # -- the background thread -----------------------------------------------------------------------

    def _run(self) -> None:
        delay = FIRST_RETRY_SECONDS
        while True:
            if self._idle:
                self._armed.wait()
            self._urgent.wait(self._window)
            with self._lock:
                self._urgent.clear()
                self._armed.clear()
                drained, end = self._segment, self._at
                self._idle = end == tail.FIRST_FRAME_AT
                if not self._idle:
                    self._draining = True
                    self._active ^= 1
                    self._segment, self._at = self._segments[self._active], tail.FIRST_FRAME_AT
            batch = tail.records(drained, end)
            while batch:
                failure = self._attempt(batch)
                with self._lock:
                    self._attempts += 1
                    self._failure = failure
                    if failure is None:
                        self._durable = max(self._durable, next(reversed(batch)))
                        for segment in self._segments:
                            tail.write_floor(segment, self._durable)
                        batch.clear()
                        self._draining = False
                        delay = FIRST_RETRY_SECONDS
                    self._changed.notify_all()
                    if failure is not None and (self._closing or self._stopped is not None):
                        return
                if failure is not None:
                    if self._urgent.wait(delay):
                        self._urgent.clear()
                    delay = min(delay * 2, MAX_RETRY_SECONDS)
            with self._lock:
                self._changed.notify_all()
                if self._closing and self._at == tail.FIRST_FRAME_AT:
                    return

    def _attempt(self, batch: dict[int, bytes]) -> str | None:
        """Commit a batch; why it failed, or None."""
        try:
            log.write_records(self._env, batch)
        except Exception as error:  # nothing may end this thread: appends would wait forever
            try:
                self._env.reopen()  # a failed write of the meta page makes LMDB refuse all others
            except Exception as second:
                return f"{error}; {second}"
            return error.reason if isinstance(error, StoreFailed) else str(error) or type(error).__name__
        return None
