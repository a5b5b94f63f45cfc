"""Faults at system calls, by strace, in a forked child.

The child waits until strace is attached, so only the workload's own calls are counted.  Strace attaches to one
thread, so the n-th call is the same call in every run.  It is either the main thread, which opens the store, puts
pages and closes, or the log's background thread, which commits.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import tempfile
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple

from florlog_wal.writer import LogWriter

Thread = Literal["main", "log"]
_CALL = re.compile(r"^(\w+)\(")


class Point(NamedTuple):
    """The n-th call of a name on a thread."""

    thread: Thread
    call: str
    n: int

    def __str__(self) -> str:
        return f"{self.thread} thread, {self.call} #{self.n}"


def why_not() -> str | None:
    """Why faults cannot be injected here; None if they can."""
    strace = shutil.which("strace")
    if strace is None:
        return "strace is not installed"
    probe = subprocess.run([strace, "-o", os.devnull, "true"], capture_output=True, text=True, check=False)
    return None if probe.returncode == 0 else f"strace cannot trace here: {probe.stderr.strip()[:100]}"


def run(
    work: Callable[[], None],
    thread: Thread,
    *options: str,
    when_stopped: Callable[[int], None] | None = None,
) -> int:
    """Run ``work`` in a child with strace on one thread; the child's wait status.

    ``when_stopped`` is called with the child's id if a signal stops it, and has to continue or kill it.
    """
    ready_read, ready_write = os.pipe()
    go_read, go_write = os.pipe()
    child = os.fork()
    if child == 0:
        status = 70
        try:
            os.close(ready_read)
            os.close(go_write)
            _child(work, thread, ready_write, go_read)
            status = 0
        finally:
            os._exit(status)
    os.close(ready_write)
    os.close(go_read)
    strace = None
    try:
        number = os.read(ready_read, 20)
        if number:
            strace = subprocess.Popen(
                ["strace", "-p", number.decode(), *options], stderr=subprocess.PIPE, stdin=subprocess.DEVNULL
            )
            assert strace.stderr is not None
            line = strace.stderr.readline()
            assert b"attached" in line, line + strace.stderr.read()
        with contextlib.suppress(BrokenPipeError):  # its first read may be the call that kills it
            os.write(go_write, b"g")
        status = os.waitpid(child, os.WUNTRACED)[1]
        if os.WIFSTOPPED(status):
            assert when_stopped is not None
            when_stopped(child)
            status = os.waitpid(child, 0)[1]
    finally:
        os.close(go_write)
        os.close(ready_read)
        if strace is not None:
            strace.communicate()
    return status


def _child(work: Callable[[], None], thread: Thread, ready: int, go: int) -> None:
    def wait() -> None:
        os.write(ready, str(threading.get_native_id()).encode())
        os.read(go, 1)

    if thread == "main":
        wait()
    else:
        original = LogWriter._run

        def attached(writer: LogWriter) -> None:
            wait()
            original(writer)

        LogWriter._run = attached  # type: ignore[assignment, method-assign]
    work()


def points(work: Callable[[], None], thread: Thread) -> list[Point]:
    """Every system call that a thread makes in an undisturbed run."""
    return [point for point, _ in calls(work, thread)]


def calls(work: Callable[[], None], thread: Thread) -> list[tuple[Point, str]]:
    """Every system call that a thread makes in an undisturbed run, with strace's line."""
    with tempfile.NamedTemporaryFile() as trace:
        status = run(work, thread, "-o", trace.name)
        assert status == 0, f"the undisturbed workload ended with {status}"
        counts: Counter[str] = Counter()
        found = []
        for line in Path(trace.name).read_text(errors="replace").splitlines():
            match = _CALL.match(line)
            if match:
                counts[match[1]] += 1
                found.append((Point(thread, match[1], counts[match[1]]), line))
    return found


def inject(
    work: Callable[[], None],
    point: Point,
    fault: str,
    *options: str,
    when_stopped: Callable[[int], None] | None = None,
) -> int:
    """Run with a fault at a point, for instance ``signal=SIGKILL`` or ``error=EIO``; the wait status."""
    return run(
        work, point.thread, "-o", os.devnull, "-e", f"trace={point.call}",
        "-e", f"inject={point.call}:{fault}:when={point.n}", *options, when_stopped=when_stopped,
    )  # fmt: skip
