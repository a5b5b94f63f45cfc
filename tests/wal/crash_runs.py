"""The crash harness for stores of several runs: `python -m tests.wal.crash_runs [KIND ...] [--others K]`.

gc, rm, pack, unpack   SIGKILL before system calls of the operation, while another process records, begins further
                       runs, and a third one reads
power                  power cuts after every write, sync and change of a directory in these operations, and in a
                       first run, a resume and a copy, with any subset of what was not synced
pairs                  the first of two operations on one store is stopped after a system call, the second one is
                       done, and then the first goes on, or is killed

The points of a kill are all calls that can change a file, a directory or a lock, and every K-th of the others: a kill
before a call that changes nothing leaves what a kill before the next one leaves.  The points of a stop are these calls
and those that look at a name.  After each fault all runs are compared with what they were and verified; then the
operation is repeated, and has to finish the work.  A kill leaves in memory what it leaves on a disk, so ``TMPDIR`` may
be one in memory, which is several times as fast.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

from florlog_wal import Store, gc, pack

from tests.wal import injection, many_runs, pairs, power_runs
from tests.wal.crash import WRITES, Outcome, Report, Runner
from tests.wal.injection import Point
from tests.wal.many_runs import Held
from tests.wal.neighbours import Neighbour, reading, recorded, recording
from tests.wal.operations import OPERATIONS, Operation, make_template
from tests.wal.progress import Progress

CHANGES = frozenset({*WRITES, "renameat", "renameat2", "unlinkat", "rmdir"})
LOOKS = frozenset({"openat", "newfstatat", "getdents64", "access", "faccessat", "faccessat2"})


def kill_at(point: Point, operation: Operation, template: Path) -> Outcome:
    """SIGKILL inside an operation, with neighbours."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        shutil.copytree(template, root, dirs_exist_ok=True)
        path = root / "store"
        recorder = Neighbour(recording(path, root / "acks"), root / "recorder")
        reader = Neighbour(reading(path, operation.kept, operation.others), root / "reader")
        status = injection.inject(partial(operation.work, root), point, "signal=SIGKILL")
        killed = os.WIFSIGNALED(status)
        recorder.tell()
        wrong = [] if killed or status == 0 else [f"wait status {status}"]
        try:
            wrong += operation.judge(root)
        except Exception as error:  # whatever it is, repeating the work should have been possible
            wrong.append(f"{type(error).__name__}: {error}")
        wrong += [f"the reader: {text}" for text in reader.end()]
        wrong += [f"the recorder: {text}" for text in recorder.end()]
        return Outcome(f"{operation.name}, {point}", killed, wrong + recorded(path, root / "acks"))


def points_of(work: Callable[[Path], None], template: Path, others: int) -> list[Point]:
    """The points of an undisturbed run: all that can change something, and every K-th of the others."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(template, folder, dirs_exist_ok=True)
        found = injection.calls(partial(work, Path(folder)), "main")
    rest = [point for point, line in found if not changes(point.call, line)]
    some = {*rest[:: others or len(found)]}
    return [point for point, line in found if point in some or changes(point.call, line)]


def changes(call: str, line: str) -> bool:
    """Whether a call can change a file, a directory or a lock."""
    if call == "openat":
        return "O_CREAT" in line
    return "SETLK" in line if call == "fcntl" else call in CHANGES


def looks(call: str, line: str) -> bool:
    """Whether something may be otherwise, soon after, than this call has found it: a name, or the names in a folder."""
    return call in LOOKS and "AT_EMPTY_PATH" not in line


# -- pairs --------------------------------------------------------------------------------------------


def pair_at(at: tuple[Point, bool], pair: pairs.Pair, template: Path) -> Outcome:
    """Stop the first operation at a point and do the second one; then go on, or kill the first one."""
    point, kill = at
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        shutil.copytree(template, root, dirs_exist_ok=True)
        before = many_runs.contents(root / "store")
        reached, first, second = pairs.interleave(pair, point, root, kill=kill)
        name = f"{pair.name}, {point}{', killed' if kill else ''}"
        if not reached:
            return Outcome(name, False, [])
        try:
            wrong = pair.judge(root, first, second) + _pair_left(root, pair, before)
        except Exception as error:  # whatever it is, it should have been possible to look at what is left
            wrong = [f"{type(error).__name__}: {error}"]
        return Outcome(name, True, [f"{text} ({first.end or 'killed'}; {second.end})" for text in wrong])


def _pair_left(root: Path, pair: pairs.Pair, before: Mapping[str, Held]) -> list[str]:
    """What is wrong with the other runs, now and after the next gc."""
    path = root / "store"
    others = {run: found for run, found in before.items() if run not in pair.changes}
    wrong = many_runs.changed(path, others)
    if damaged := gc(path).damaged:
        wrong.append(f"the next gc says: {damaged}")
    wrong += many_runs.changed(path, others)
    with Store.open(path) as store:
        if left := many_runs.names(path) - set(store.runs()):
            wrong.append(f"the next gc has left {sorted(left)}")
        for run in store.runs():
            wrong += many_runs.problems(store.directory(run))
    return wrong


def pair_points(pair: pairs.Pair, template: Path, every: int) -> list[tuple[Point, bool]]:
    """Stops after every call that looks at names or changes something, kills after those that change something."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        shutil.copytree(template, root, dirs_exist_ok=True)
        found = injection.calls(partial(pairs.attempt, pair.first, root, root / "first"), "main")
    changing = [point for point, line in found if changes(point.call, line)]
    looking = [point for point, line in found if looks(point.call, line)]
    stops = [(point, False) for point in (*changing, *looking)]
    return (stops + [(point, True) for point in changing])[::every]


def make_pairs(root: Path) -> list[pairs.Pair]:
    """The folder with a store for pairs of operations, and these."""
    many_runs.make(root / "store", images=2)
    with Store.open(root / "store") as store:
        packed = many_runs.held(store.directory("c"))
        pack(store, "c", root / "packed")
        store.remove("c")
        return pairs.all_pairs(many_runs.held(store.directory("a")), packed)


# -- all ----------------------------------------------------------------------------------------------


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.wal.crash_runs", description=__doc__.split("\n")[0]
    )
    kinds = ["gc", "rm", "pack", "unpack", "power", "pairs"]
    parser.add_argument("kinds", nargs="*", default=kinds)
    parser.add_argument("--every", type=int, default=1, help="try every K-th point only")
    parser.add_argument(
        "--others", type=int, default=10, help="of the calls that change nothing, try every K-th"
    )
    parser.add_argument(
        "--cuts", type=int, default=8, help="power cuts drawn after each event; tried are those that differ"
    )
    parser.add_argument("--seed", type=int, default=random.randrange(10**6), help="of the power cuts")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--progress", metavar="FILE", help="note what is done in FILE, and go on from it")
    options = parser.parse_args()
    reason = injection.why_not()
    if reason is not None:
        print(f"cannot run: {reason}", file=sys.stderr)
        return 2
    progress = Progress(options.progress)
    seed = progress.seed(options.seed)
    print(f"seed {seed}")
    with ProcessPoolExecutor(options.jobs) as pool, tempfile.TemporaryDirectory() as folder:
        runner = Runner(pool, progress)
        for name, make in OPERATIONS.items():
            if name.split()[0] in options.kinds:
                template = Path(folder) / name
                make_template(template, name)
                operation = make(template)
                points = points_of(operation.work, template, options.others)[:: options.every]
                runner.run(
                    f"kill in {name}", partial(kill_at, operation=operation, template=template), points
                )
        for name, make in power_runs.OPERATIONS.items() if "power" in options.kinds else ():
            template = Path(folder) / f"power {name}"
            make_template(template, name)
            operation = make(template)
            trace = power_runs.traced(operation, template)
            cutter = partial(power_runs.cut_at, operation=operation, events=trace.events)
            cuts = list(power_runs.cuts(trace, seed, options.cuts))[:: options.every]
            events = len(trace.events) - trace.standing
            runner.run(f"power cut in {name}, {events} events", cutter, cuts)
        if "pairs" in options.kinds:
            template = Path(folder) / "pairs"
            for pair in make_pairs(template):
                points = pair_points(pair, template, options.every)
                runner.run(pair.name, partial(pair_at, pair=pair, template=template), points)
    total = Report("all")
    for report in runner.reports:
        total.take(report.counts())
    print(total)
    return int(total.lost + total.wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
