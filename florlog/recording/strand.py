"""Which thread and which task of asyncio executes now.

The loops of a run nest, so they are those of one thread and one task: of two that take turns, neither lies in the
other.  What a task of the program waits for, and what its variables hold, is in no image.
"""

from __future__ import annotations

import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from florlog.state.user_code import is_user_file


@dataclass(frozen=True, slots=True)
class Strand:
    """A thread, and the task that it executes; None outside asyncio."""

    thread: threading.Thread
    task: Any

    def is_beside(self, other: Strand) -> bool:
        """Whether this one and ``other``, in which a loop is open, may take turns.

        A task is executed within what called `asyncio.run`, and after a task that is done.
        """
        if self.thread is not other.thread:
            return other.thread.is_alive()
        return other.task is not None and other.task is not self.task and not other.task.done()


def strand() -> Strand:
    """The one that executes now."""
    asyncio = sys.modules.get("asyncio")
    running = asyncio is not None and asyncio._get_running_loop()
    return Strand(threading.current_thread(), asyncio.current_task(running) if asyncio and running else None)


def other_task() -> str:
    """A task of the program that is not done, other than the one that executes now, as a message names it; or ""."""
    asyncio = sys.modules.get("asyncio")
    if asyncio is None or (running := asyncio._get_running_loop()) is None:
        return ""
    now = asyncio.current_task(running)
    found = []
    for task in asyncio.all_tasks(running):
        code = getattr(task.get_coro(), "cr_code", None)
        if task is not now and code is not None and is_user_file(code.co_filename):
            found.append(f"{code.co_name}() ({Path(code.co_filename).name}:{code.co_firstlineno})")
    return min(found, default="")
