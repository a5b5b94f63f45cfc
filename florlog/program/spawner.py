"""Processes of florlog that carry out one order each, and nothing else: every process that florlog starts is one.

An order is data (`florlog.program.wire`), sent through a pipe whose end the process inherits; its answers come back
through the same pipe.  A process is a module run by ``python -m``, which calls `serve`.  It has a process group of its
own and is killed with it, so that no worker of a loader outlives it; it kills the group itself when the process that
asks is gone.  What it prints goes nowhere; what it says on stderr goes where `Stderr` says.
"""

from __future__ import annotations

import contextlib
import enum
import gc
import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any

from florlog_wal import WalError

from florlog.errors import DivergedError, FlorlogError
from florlog.program import silence, terminal
from florlog.program.process import this_process
from florlog.program.wire import Wire

Order = dict[str, Any]
Handler = Callable[[Order, Wire], None]
_ASKER_INTERVAL_MS = 1000
_LOWEST_PRIORITY = 19
_FIRST_TO_KILL = "1000"  # the highest score


class Stderr(enum.Enum):
    """Where the stderr of a process goes."""

    SHARED = "to this process's"
    DROPPED = "nowhere"
    KEPT = "into `Child.said`"


class Child:
    """A process that carries out an order; a context manager, after which the process and its group are gone.

    ``module`` is run in the directory ``cwd`` with the variables ``environment``; None: this process's own.
    """

    def __init__(
        self,
        module: str,
        order: Order,
        *,
        cwd: str | None = None,
        environment: Mapping[str, str] | None = None,
        stderr: Stderr = Stderr.SHARED,
    ) -> None:
        ours, theirs = Pipe()
        self._wire = Wire(ours)
        self._order = order
        self._errors = tempfile.TemporaryFile() if stderr is Stderr.KEPT else None  # noqa: SIM115 - `_close` does
        try:
            self._process = subprocess.Popen(
                # -P: a module in the working directory must not take the place of one that florlog imports
                [sys.executable, "-P", "-m", module, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._target(stderr),
                cwd=cwd,
                env=environment,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        except BaseException:
            self._close()
            raise
        finally:
            theirs.close()

    def _target(self, stderr: Stderr) -> Any:
        match stderr:
            case Stderr.DROPPED:
                return subprocess.DEVNULL
            case Stderr.KEPT:
                return self._errors
        try:
            return (
                terminal.stream().fileno()
            )  # which is not this process's descriptor while a script is cut off
        except (OSError, ValueError, AttributeError):
            return None

    def messages(self) -> Iterator[list[Any]]:
        """What it answers, until it ends.

        Raises `FlorlogError` where it says that it failed, `DivergedError` where it says that the recorded program
        does not do what it did.
        """
        while (message := self._wire.receive()) is not None:
            match message:
                case ["error", str() as text]:
                    raise FlorlogError(text)
                case ["differs", str() as text]:
                    raise DivergedError(text)
            yield message

    def yield_to_others(self) -> None:
        """Give it the lowest priority, and let it be the first to be killed where memory runs out."""
        with contextlib.suppress(OSError):  # it has ended already, as `messages` finds
            os.setpriority(os.PRIO_PROCESS, self._process.pid, _LOWEST_PRIORITY)
            Path(f"/proc/{self._process.pid}/oom_score_adj").write_text(_FIRST_TO_KILL)

    def status(self) -> int:
        """The exit status of a process that sends nothing more, negative for a signal; waits for it."""
        # It is reaped last: until then its group's number belongs to nobody else.
        os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT)
        self.kill()
        return self._process.wait()

    def said(self) -> str:
        """What it said on stderr so far, if that is kept."""
        if self._errors is None:
            return ""
        self._errors.seek(0)
        return self._errors.read().decode(errors="replace")

    def kill(self) -> None:
        """Kill it and what it has started."""
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def __enter__(self) -> Child:
        with contextlib.suppress(OSError):  # it has ended already, as `messages` finds
            self._wire.send(self._order, this_process.trusts_images)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
        self._process.wait()
        self._close()

    def _close(self) -> None:
        self._wire.close()
        if self._errors is not None:
            self._errors.close()


def serve(handler: Handler, *, orphaned: Callable[[], None] = lambda: None) -> None:
    """Carry out the one order of this process with a handler, which sends its answers itself.

    A `FlorlogError` or `WalError` of the handler becomes the message ``["error", TEXT]``.  ``orphaned`` is called on
    another thread when the process that asks is gone, before this one and its group are killed.
    """
    silence.claim()
    gc.freeze()  # as `florlog.__main__` does
    end = int(sys.argv[1])
    os.set_inheritable(end, False)  # what the script starts must not keep the pipe open
    wire = Wire(Connection(end))
    threading.Thread(
        target=_end_with_asker, args=(end, os.getppid(), orphaned), name="florlog-asker", daemon=True
    ).start()
    sys.path.insert(0, "")  # -P left it out; the script's own directory takes its place
    order = wire.receive()
    if order is None:
        return
    this_process.trusts_images = order[1]
    try:
        handler(order[0], wire)
    except (FlorlogError, WalError) as error:
        wire.send("error", str(error))
    silence.leave(0)


def _end_with_asker(end: int, asker: int, orphaned: Callable[[], None]) -> None:
    """Kill this process's group when the process that asks is gone: killed, it could not do so itself."""
    gone = select.poll()
    gone.register(end, select.POLLHUP)
    # Its forked children may hold its end of the pipe for longer than it lives.
    while not gone.poll(_ASKER_INTERVAL_MS) and os.getppid() == asker:
        pass
    with contextlib.suppress(Exception):
        orphaned()
    os.killpg(0, signal.SIGKILL)
