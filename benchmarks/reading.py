"""What reading costs: python benchmarks/reading.py [--records N] [--format text|json]

It reads the same run twice, once a hundred times as long.  The work to show a screen must not grow with the log, and a
table must not cost more than a scan of its records.  The bounds are the project's goals.  Times are CPU time, because
wall time says little on a busy machine.  For the browser it is the CPU time of the drawing thread, while the analysis
goes on in another.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from florlog_wal import Begin, Commit, LoopBegin, LoopEnd, RunBegin, RunEnd, RunLog, Statement

import florlog
from florlog.inspect.selection import RecordSelection
from florlog.program.stores import open_store
from florlog.ui.app import Browser
from florlog.ui.run_screen import RunScreen

EPOCHS = 100


def write(path: Path, records: int) -> None:
    """A run of about ``records`` records, two numbers a step, one an epoch."""
    steps = records // EPOCHS
    with RunLog.open(path, mode="w") as store:
        begin = RunBegin("big", "big", "record", "/big.py", (), "/", {}, {}, (), time.time(), 0, 1, 0)
        session = store.append(begin)
        for number, name in enumerate(("epoch", "step"), 1):
            loops = ("epoch",)[: number - 1]
            store.append(
                Statement(number, "loop", "/big.py", "", number, b"", loops, (name,)), session=session
            )
        store.append(Statement(3, "log", "/big.py", "", 3, b"", (), ("loss", "lr")), session=session)
        outer = store.append(LoopBegin((), "epoch", 0, 1, "for", EPOCHS, 0, (), 0.0, {}), session=session)
        for epoch in range(EPOCHS):
            store.append(Begin(outer, epoch), session=session)
            path_ = (("epoch", epoch),)
            inner = store.append(
                LoopBegin(path_, "step", outer, 2, "for", steps, 0, (), 0.0, {}), session=session
            )
            for step in range(steps):
                values = ((3, "loss", 1 / (1 + epoch * steps + step)), (3, "lr", 0.01))
                commit = Commit(inner, step, 0, values, 0.001, b"r" * 8, b"d" * 8, b"", False)
                store.append(commit, session=session)
            store.append(LoopEnd(inner, steps, False), session=session)
            commit = Commit(
                outer, epoch, 1, ((3, "accuracy", epoch / EPOCHS),), 1.0, b"r" * 8, b"", b"", False
            )
            store.append(commit, session=session)
        store.append(LoopEnd(outer, EPOCHS, False), session=session)
        store.append(RunEnd("complete", 1000.0, None), session=session)


async def browse(path: Path) -> dict[str, float]:
    """CPU seconds from Enter to the first records, to the last ones, and until the analysis is there."""
    with open_store(path) as store:
        app = Browser(store, None, RecordSelection())
        async with app.run_test(size=(120, 40)) as pilot:
            await pilot.pause()
            start = time.thread_time()
            await pilot.press("enter")
            while not (isinstance(app.screen, RunScreen) and app.screen.records.count):
                await pilot.pause()
            await pilot.pause()
            first = time.thread_time() - start
            screen = app.screen
            assert "RunBegin" in text_of(app)
            start = time.thread_time()
            await pilot.press("end")
            await pilot.pause()
            end = time.thread_time() - start
            assert "RunEnd" in text_of(app)
            while screen.run_tree is None:
                await pilot.pause(0.1)
    return {"open": first, "end": end}


def text_of(app: Browser) -> str:
    """What is on the screen."""
    return "\n".join(
        "".join(segment.text for segment in strip) for strip in app.screen._compositor.render_strips()
    )


def timed(work: Callable[[], Any]) -> float:
    """CPU seconds."""
    start = time.process_time()
    work()
    return time.process_time() - start


def measure(records: int) -> dict[str, float]:
    """All figures."""
    found: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, count in (("small", records // 100), ("large", records)):
            write(Path(folder) / name, count)
            if name == "small":
                asyncio.run(browse(Path(folder) / name))  # textual's own first time
            found |= {
                f"{name} {what}": value for what, value in asyncio.run(browse(Path(folder) / name)).items()
            }
        found["memory"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        import pandas  # noqa: F401 - not part of reading

        with florlog.open(Path(folder) / "large") as log:
            found["scan"] = timed(lambda: sum(1 for _ in log.run().log.scan()))
            found["values"] = timed(lambda: log.values())
            found["arrow"] = timed(lambda: log.run().to_arrow())
            found["sql"] = timed(lambda: log.sql("select epoch, avg(loss) from iterations group by epoch"))
        found["memory with tables"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return found


def main() -> int:
    """Measure, print, and tell by the exit code whether the bounds were kept."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--format", choices=("text", "json"), default="text")
    options = parser.parse_args()
    found = measure(options.records)
    if options.format == "json":
        print(json.dumps(found))
        return 0
    lines = [
        (f"open a run, first records shown: {found['large open']:.2f} s", found["large open"] <= 0.5),
        (f"the same of a log a hundredth as long: {found['small open']:.2f} s", True),
        (f"jump to the end: {found['large end']:.3f} s, short log {found['small end']:.3f} s",
         found["large end"] <= 0.5),
        (f"values() as pandas: {found['values']:.2f} s, a scan of the records {found['scan']:.2f} s",
         found["values"] <= found["scan"]),
        (f"to_arrow(): {found['arrow']:.2f} s; a query in SQL: {found['sql']:.2f} s", True),
        (f"memory: {found['memory']:.0f} MiB after browsing, {found['memory with tables']:.0f} MiB with tables",
         True),
    ]  # fmt: skip
    for line, kept in lines:
        print("ok  " if kept else "MISS", line)
    return int(not all(kept for _, kept in lines))


if __name__ == "__main__":
    sys.exit(main())
