"""How far a replay is, as a line at the terminal that is written over."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

from florlog.program.terminal import stream

MIN_REFRESH_SECONDS = 0.1


@contextlib.contextmanager
def progress_line(total: int) -> Iterator[Callable[[int], None] | None]:
    """What shows how many of ``total`` iterations are done; None where stderr is no terminal or there are none."""
    if not stream().isatty() or not total:
        yield None
        return
    started = shown = time.perf_counter()

    def show(done: int) -> None:
        nonlocal shown
        now = time.perf_counter()
        if now - shown > MIN_REFRESH_SECONDS or done == total:
            shown = now
            # Parts may overlap: more may be done than planned.
            left = (now - started) / done * max(0, total - done)
            line = f"\rreplaying: {done} of {total} iterations, {left:.0f} s left "
            print(line, end="", file=stream(), flush=True)

    yield show
    print(file=stream())
