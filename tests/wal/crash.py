"""The crash harness: `python -m tests.wal.crash [kill] [errors] [power] [gc] [--steps N] [--every K]`.

kill    SIGKILL before every system call of the recorded workload, on the thread that records and on the one
        that commits
errors  EIO, ENOSPC, EDQUOT and short writes at every write and sync, once or from then on; EINVAL at every write of
        a segment, as of a file system that refuses direct writes in the middle of a run
power   power cuts after every write, sync and directory change, with random subsets and tears of what was
        not synced
gc      SIGKILL before every system call of a garbage collection, and power cuts after its every write,
        sync and directory change

After each fault the store is opened, compared with its legal contents, verified, and the recording is resumed to
its end.  The output is the number of points tried, how many reached their call, and how many lost more than the
contract allows or were wrong, which must be none.  With ``--command`` (and ``--check``) another program is killed
instead: in both, ``{store}`` is replaced by a fresh directory, and the check's exit status is the verdict.
"""

from __future__ import annotations

import argparse
import os
import random
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from florlog_wal import CheckpointBegin, CheckpointEnd, Entry, PageEntry, RunLog, encode_table, gc, verify

from tests.wal import injection, legal, power, workload
from tests.wal.injection import Point
from tests.wal.progress import Progress
from tests.wal.samples import checkpoint_end, commit, run_begin
from tests.wal.traces import Event, Trace, trace_of

WRITES = (
    "pwrite64",
    "pwritev2",
    "pwritev",
    "writev",
    "write",
    "fdatasync",
    "fsync",
    "ftruncate",
    "fallocate",
    "rename",
    "unlink",
    "mkdir",
    "openat",
)
STORE_FILES = (
    "", "FLORLOG", "FLORLOG.new", "end", "end.new", "lock", "log", "log/data.mdb", "log/lock.mdb", "pages",
    "pages/data.mdb", "pages/lock.mdb", "segments", "segments/00000001", "segments/00000002",
    "tail.0", "tail.0.new", "tail.1", "tail.1.new",
)  # fmt: skip
LMDB_WRITES = ("pwrite64", "writev")
SEGMENT_WRITES = ("pwritev2", "pwritev")
REFUSED = "error=EINVAL"
"""What a direct write may meet; through the page cache it is tried again."""
DATA_FILES = ("log/data.mdb", "pages/data.mdb")
GC_KEEPS = 6
"""Images that the policy of `collect` keeps."""
PART_POINTS = 128  # after each part the progress is noted


@dataclass
class Outcome:
    """The result of one fault."""

    name: str
    reached: bool
    wrong: list[str] = field(default_factory=list)


@dataclass
class Report:
    """Counts of a kind of fault."""

    kind: str
    tried: int = 0
    reached: int = 0
    lost: int = 0  # more than the contract allows
    wrong: int = 0

    def add(self, outcome: Outcome) -> None:
        lost = any(text.startswith(legal.LOST) for text in outcome.wrong)
        self.take(
            Counter(tried=1, reached=outcome.reached, lost=lost, wrong=bool(outcome.wrong) and not lost)
        )
        for text in outcome.wrong:
            print(f"WRONG after {self.kind} at {outcome.name}: {text}", flush=True)

    def counts(self) -> Counter[str]:
        return Counter(tried=self.tried, reached=self.reached, lost=self.lost, wrong=self.wrong)

    def take(self, counts: Counter[str]) -> None:
        self.tried += counts["tried"]
        self.reached += counts["reached"]
        self.lost += counts["lost"]
        self.wrong += counts["wrong"]

    def __str__(self) -> str:
        tried = f"{self.kind}: {self.tried} points tried, {self.reached} reached"
        return f"{tried}, {self.lost} lost beyond the contract, {self.wrong} wrong"


def recorder(root: Path, steps: int, durability: workload.Durability) -> Callable[[], None]:
    return partial(workload.record, root / "store", root / "acks", steps, durability)


def judge(root: Path, steps: int, *, killed: bool) -> list[str]:
    acks_file = root / "acks"
    acks = legal.read_acks(acks_file.read_text() if acks_file.exists() else "")
    wrong = [] if killed or acks.ended else ["the workload did not go on to its end"]
    return wrong + legal.check(root / "store", acks, steps, power_cut=False)


def kill_at(point: Point, steps: int, durability: workload.Durability) -> Outcome:
    """SIGKILL at a system call."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        status = injection.inject(recorder(root, steps, durability), point, "signal=SIGKILL")
        killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        wrong = [] if killed or status == 0 else [f"wait status {status}"]
        return Outcome(str(point), killed, wrong + judge(root, steps, killed=killed))


def fail_at(point: Point, fault: str, lasting: bool, steps: int) -> Outcome:
    """An error at a system call, or at it and all later ones of its name."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        # strace makes up the result without the call: a short write only to a caller that then gives up.
        names = DATA_FILES if fault.startswith("retval") else STORE_FILES
        only = [option for name in names for option in ("-P", str(root / "store" / name))]
        n = f"{point.n}+" if lasting else str(point.n)
        status = injection.run(
            recorder(root, steps, "group"), point.thread, "-o", str(root / "trace"),
            "-e", f"trace={point.call}", "-e", f"inject={point.call}:{fault}:when={n}", *only,
        )  # fmt: skip
        reached = "(INJECTED)" in (root / "trace").read_text(errors="replace")
        wrong = [] if status == 0 else [f"wait status {status}"]
        name = f"{point}, {fault}{' from then on' if lasting else ''}"
        if fault == REFUSED and not lasting and "stopped" in (root / "acks").read_text():
            wrong.append("the recording did not go on through the page cache")
        return Outcome(name, reached, wrong + judge(root, steps, killed=False))


def cut_at(events: Sequence[Event], at: tuple[int, int], steps: int, durability: str) -> Outcome:
    """A power cut after an event, with a seed for what is left."""
    after, seed = at
    return Outcome(f"event {after}, seed {seed}", True, power.try_cut(events, after, seed, steps, durability))


def kill_points(steps: int, durability: workload.Durability) -> list[Point]:
    return [point for thread in ("main", "log") for point in _points(steps, durability, thread)]


def _points(steps: int, durability: workload.Durability, thread: injection.Thread) -> list[Point]:
    with tempfile.TemporaryDirectory() as folder:
        return injection.points(recorder(Path(folder), steps, durability), thread)


def error_points(steps: int) -> Iterator[tuple[Point, str, bool]]:
    """Every write and sync, each fault, once and lasting."""
    for point in kill_points(steps, "group"):
        if point.call in WRITES:
            for fault in ("error=EIO", "error=ENOSPC"):
                yield point, fault, False
                yield point, fault, True
            yield point, "error=EDQUOT", True
        if point.call in LMDB_WRITES:
            yield point, "retval=5", False
        if point.call in SEGMENT_WRITES:
            yield point, REFUSED, False
            yield point, REFUSED, True


def make_gc_run(path: Path) -> None:
    """A run with images, some of which gc is to keep, and a page that nothing names."""
    with RunLog.open(path, mode="w") as log:
        record_images(log, "r0")
        log.put_pages([os.urandom(50_000)])


def record_images(log: RunLog, run: str, started: float = 0.0) -> None:
    session = log.append(run_begin(run, started=started))
    for index in range(18):
        log.append(commit(index), session=session)
        begin = log.append(CheckpointBegin(0, index + 1), session=session)
        pages = [f"{run} {index} {k}".encode() * (800 + 4000 * k) for k in range(2)]
        entry = PageEntry("tensor", "uint8", (1,), 1, tuple(log.put_pages(pages).digests))
        table = log.put_pages([encode_table({"w": entry})]).digests[0]
        log.append(checkpoint_end(begin, table), session=session)


def collect(path: Path) -> None:
    gc(path, redo_bound=0.2)


def kill_gc_at(point: Point, template: Path) -> Outcome:
    """SIGKILL inside gc: what it keeps is whole, and the next gc ends the work."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "store"
        shutil.copytree(template, path)
        status = injection.inject(partial(collect, path), point, "signal=SIGKILL")
        return Outcome(str(point), os.WIFSIGNALED(status), judge_gc(path))


def judge_gc(path: Path) -> list[str]:
    """What is wrong with a run after a gc that was cut off, and again after the next gc."""
    wrong = []
    for again in (False, True):
        if again:
            collect(path)
        wrong += [f"{problem.where}: {problem.text}" for problem in verify(path).problems]
        with RunLog.open(path) as log:
            others = [entry for entry in log.scan() if not _is_end(entry)]
            images = sum(1 for _ in log.scan(types=[CheckpointEnd]))
        if len(others) != 1 + 2 * 18:
            wrong.append(f"{len(others)} records are left besides the ends of images")
        if not GC_KEEPS <= images <= 18 or (again and images != GC_KEEPS):
            wrong.append(f"{images} images are left")
    if gc(path).pages:
        wrong.append("the second gc has left pages")
    return wrong


def gc_trace(template: Path) -> Trace:
    """The trace of a garbage collection of the run ``template / "store"``."""
    return trace_of(lambda root: collect(root / "store"), template)


def cut_gc_at(events: Sequence[Event], at: tuple[int, int]) -> Outcome:
    """A power cut inside gc: it may leave the same as a kill."""
    after, seed = at
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "left"
        power.cut(events, after, target, seed)
        try:
            wrong = judge_gc(target / "store")
        except Exception as error:  # whatever it is, the store should have opened
            wrong = [f"{type(error).__name__}: {error}"]
    return Outcome(f"event {after}, seed {seed}", True, wrong)


def _is_end(entry: Entry) -> bool:
    return isinstance(entry.record, CheckpointEnd)


def gc_points(template: Path) -> list[Point]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "store"
        shutil.copytree(template, path)
        return injection.points(partial(collect, path), "main")


@dataclass
class Runner:
    """Tries points on all processors, one part at a time."""

    pool: ProcessPoolExecutor
    progress: Progress
    reports: list[Report] = field(default_factory=list)

    def run(self, kind: str, work: Callable[[Any], Outcome], points: Sequence[Any]) -> None:
        report = Report(kind)
        for start in range(0, len(points), PART_POINTS):
            name = f"{kind} {start}"
            counts = self.progress.get(name)
            if counts is None:
                part = Report(kind)
                for outcome in self.pool.map(work, points[start : start + PART_POINTS], chunksize=4):
                    part.add(outcome)
                counts = part.counts()
                self.progress.note(name, counts)
            report.take(counts)
        print(report, flush=True)
        self.reports.append(report)


def kill_command(command: str, check: str, every: int) -> Report:
    """Kill any program at its writes and syncs, and let another one judge what is left."""
    calls = ",".join(WRITES)
    report = Report(f"kill of {command!r}")
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "trace"
        line = ["strace", "-f", "-o", str(trace), "-e", f"trace={calls}", *shlex.split(command)]
        subprocess.run([part.replace("{store}", f"{folder}/store") for part in line], check=True)
        counts: dict[tuple[str, str], int] = {}
        for text in trace.read_text(errors="replace").splitlines():
            thread, _, rest = text.partition(" ")
            call = rest.strip().partition("(")[0]
            if call in WRITES:
                counts[thread, call] = counts.get((thread, call), 0) + 1
    largest = {call: max(n for (_, c), n in counts.items() if c == call) for _, call in counts}
    for call, most in largest.items():
        for n in range(1, most + 1, every):
            with tempfile.TemporaryDirectory() as folder:
                parts = [part.replace("{store}", f"{folder}/store") for part in shlex.split(command)]
                inject = f"inject={call}:signal=SIGKILL:when={n}"
                done = subprocess.run(
                    ["strace", "-f", "-o", os.devnull, "-e", f"trace={call}", "-e", inject, *parts],
                    capture_output=True, check=False,
                )  # fmt: skip
                verdict = subprocess.run(
                    [part.replace("{store}", f"{folder}/store") for part in shlex.split(check)],
                    capture_output=True, text=True, check=False,
                )  # fmt: skip
                wrong = [verdict.stdout[-2000:] + verdict.stderr[-2000:]] if verdict.returncode else []
                report.add(Outcome(f"{call} #{n}", done.returncode in (-9, 137), wrong))
    print(report, flush=True)
    return report


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.wal.crash", description=__doc__.split("\n")[0])
    parser.add_argument("kinds", nargs="*", default=["kill", "errors", "power", "gc"])
    parser.add_argument("--steps", type=int, default=12, help="iterations of each of the workload's two runs")
    parser.add_argument("--every", type=int, default=1, help="try every K-th point only")
    parser.add_argument("--cuts", type=int, default=8, help="power cuts tried after each event")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--progress", metavar="FILE", help="note what is done in FILE, and go on from it")
    parser.add_argument("--command", help="kill this program instead")
    parser.add_argument("--check", help="the program that judges what --command left")
    options = parser.parse_args()
    reason = injection.why_not()
    if reason is not None:
        print(f"cannot run: {reason}", file=sys.stderr)
        return 2
    if options.command:
        return int(kill_command(options.command, options.check or "true", options.every).wrong > 0)
    progress, each = Progress(options.progress), options.every
    seed = progress.seed(options.seed)
    print(f"seed {seed}, {options.steps} iterations in each of two runs")
    with ProcessPoolExecutor(options.jobs) as pool:
        runner = Runner(pool, progress)
        for durability in ("group", "sync"):
            if "kill" in options.kinds:
                work = partial(kill_at, steps=options.steps, durability=durability)
                runner.run(f"kill, {durability}", work, kill_points(options.steps, durability)[::each])
            if "power" in options.kinds:
                events = power.trace(options.steps, durability)
                cutter = partial(cut_at, events, steps=options.steps, durability=durability)
                runner.run(
                    f"power cut, {durability}", cutter, _cuts(1, len(events), seed, options.cuts)[::each]
                )
        if "gc" in options.kinds:
            with tempfile.TemporaryDirectory() as folder:
                template = Path(folder) / "store"
                make_gc_run(template)
                runner.run("kill in gc", partial(kill_gc_at, template=template), gc_points(template)[::each])
                events, standing = gc_trace(template.parent)
                cuts = _cuts(standing, len(events), seed, options.cuts)[::each]
                runner.run("power cut in gc", partial(cut_gc_at, events), cuts)
        if "errors" in options.kinds:
            runner.run("error", partial(_fail, options.steps), list(error_points(options.steps))[::each])
    total = Report("all")
    for report in runner.reports:
        total.take(report.counts())
    print(total)
    return int(total.lost + total.wrong > 0)


def _cuts(first: int, last: int, seed: int, cuts: int) -> list[tuple[int, int]]:
    """So many cuts after each event."""
    return [(end, seed + number) for end in range(first, last + 1) for number in range(cuts)]


def _fail(steps: int, fault: tuple[Point, str, bool]) -> Outcome:
    return fail_at(*fault, steps)


if __name__ == "__main__":
    sys.exit(main())
