"""Raise KeyboardInterrupt wherever a signal's handler can raise while florlog is at work in a small training.

CPython calls a handler after a call of a C function, where a function or generator begins or goes on, and at the end
of a loop's body.  A *point* is one such place in the code of the recorder, with what called it.  ``python -m
tests.recording.interruptions`` goes through all of them: the training is interrupted there, its log must be one that
analysis has nothing to say against, and a resume must make it the uninterrupted run.
"""

from __future__ import annotations

import argparse
import ctypes
import dis
import functools
import inspect
import random
import shutil
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, NamedTuple

from florlog_wal import encode_value, verify

import florlog
from florlog.reading.columns import RECORDED
from tests.run_directories import run_directory

_WATCHED = (
    "florlog/recording/",
    "florlog_wal/run_log.py",
    "florlog_wal/writer.py",
)
_CONTEXT = 4
"""How many callers tell points apart."""

Point = tuple[tuple[str, int], ...]
Trace = Callable[[FrameType, str, Any], Any]


class Counting:
    """Something whose state a training changes."""

    def __init__(self) -> None:
        self.number = 1

    def state_dict(self) -> dict[str, int]:
        """The state."""
        return {"number": self.number}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go back to a state."""
        self.number = state["number"]

    def step(self) -> int:
        """Change it."""
        self.number = self.number * 3 % 1009
        return self.number


class Kind(NamedTuple):
    """How a training meets an interruption."""

    name: str
    train: Callable[[Any, Counting], None]


def _train(run: Any, counting: Counting) -> None:
    for epoch in run.loop("epoch", range(3)):
        for _ in run.loop("step", range(2)):
            run.log(number=counting.step())
        run.log(between=counting.number)
        for held in run.loop("check", range(4)):
            run.log(held=held + counting.number)
            if held == 1:
                break
        run.log(epoch=epoch)


def _caught_around(run: Any, counting: Counting) -> None:
    with suppress(KeyboardInterrupt):
        _train(run, counting)


def _logs_finally(run: Any, counting: Counting) -> None:
    try:
        _train(run, counting)
    finally:
        run.log(saved=1)


KINDS = (
    Kind("plain", _train),
    Kind("caught", _caught_around),
    Kind("finally", _logs_finally),
)


class Interrupter:
    """Traces a call; raises at the ``at``-th time that execution is at a point, or notes all points.

    What it raises is what the handler of the signal ``sent`` does.
    """

    def __init__(self, point: Point | None = None, time: int = 0, sent: int = signal.SIGINT) -> None:
        self.points: Counter[Point] = Counter()
        self._point, self._time, self._sent = point, time, sent
        self._callers: dict[FrameType, int] = {}
        """Frames that have called a Python function, and the instruction: when that returns no handler is called."""
        self.raised = False

    def __call__(self, frame: FrameType, event: str, _: Any) -> Trace | None:
        """The trace function of a new frame."""
        if frame.f_back is not None and _is_plain(frame.f_code):
            self._callers[frame.f_back] = frame.f_back.f_lasti
        if self.raised or not _is_watched(frame.f_code):
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        before = -1

        def at(frame: FrameType, event: str, _: Any) -> Trace | None:
            nonlocal before
            if self.raised:
                return None
            if event == "opcode":
                now, last, before = frame.f_lasti, before, frame.f_lasti
                if _can_raise(frame.f_code, last, now, called=last <= self._callers.pop(frame, -2) < now):
                    self._reach(frame)
            return at

        return at

    def _reach(self, frame: FrameType) -> None:
        place: list[tuple[str, int]] = []
        around: FrameType | None = frame
        while around is not None and len(place) < _CONTEXT:
            place.append((around.f_code.co_qualname, around.f_lasti))
            around = around.f_back
        point = tuple(place)
        self.points[point] += 1
        if point == self._point and self.points[point] == self._time:
            self.raised = True
            signal.raise_signal(self._sent)


@functools.cache
def _is_watched(code: CodeType) -> bool:
    return any(part in code.co_filename for part in _WATCHED)


@functools.cache
def _operations(code: CodeType) -> tuple[str, ...]:
    """The name of the instruction at each offset, "" between them; a tuple, as mutable state would be in no image."""
    names = {instruction.offset: instruction.opname for instruction in dis.get_instructions(code)}
    return tuple(names.get(offset, "") for offset in range(max(names) + 1))


def _is_plain(code: CodeType) -> bool:
    """Whether a call of this code goes through no C function, as that of a class or of a generator does."""
    return not code.co_name.startswith("__") and not code.co_flags & inspect.CO_GENERATOR


def _can_raise(code: CodeType, before: int, now: int, *, called: bool) -> bool:
    operations = _operations(code)
    if operations[now] in ("RESUME", "JUMP_BACKWARD"):
        return True
    return not called and before >= 0 and operations[before].startswith(("CALL", "WITH_EXCEPT_START"))


def logged(store: Path) -> list[tuple[str, Any, bytes]]:
    """The values of the newest run: name, place and encoding."""
    with florlog.open(store) as log:
        return [
            (value.name, value.path, encode_value(value.value))
            for value in log.run().logged()
            if value.trust == RECORDED
        ]


def execute(
    store: Path, kind: Kind, *, resume: str = "never", interrupter: Interrupter | None = None
) -> bool:
    """Run a training, or resume one by its id; whether it came to its end."""
    tracing = ctypes.py_object(interrupter)  # what traces the program is no state of it
    del interrupter
    try:
        with florlog.run("interrupted", store=store, overhead=float("inf"), resume=resume) as run:
            counting = Counting()
            run.track(counting=counting)
            sys.settrace(tracing.value)
            kind.train(run, counting)
            run.log(final=counting.number)
    except KeyboardInterrupt:
        return False
    finally:
        sys.settrace(None)
    return True


def problem(store: Path, kind: Kind, expected: list[Any], point: Point, time: int) -> str:
    """Interrupt a training at a point, resume it; what is wrong then, "" if nothing is."""
    interrupter = Interrupter(point, time)
    execute(store, kind, interrupter=interrupter)
    if not interrupter.raised:
        return ""
    for _ in range(3):
        with florlog.open(store) as log:
            if not log.runs:
                return ""
            tree = log.run().tree()
        if tree.problems:
            return f"analysis: {tree.problems[0]}"
        if tree.status == "complete" and not any(loop.left for loop in tree.root.loops):
            break
        execute(store, kind, resume=tree.run)
    else:
        return "it did not come to its end"
    if not tree.root.loops:  # the interruption came before there was a loop, and the training caught it
        return ""
    found = logged(store)
    if sorted(found) != sorted(expected):
        lost, more = Counter(expected) - Counter(found), Counter(found) - Counter(expected)
        return f"lost {list(lost.elements())[:3]}, wrong {list(more.elements())[:3]}"
    return "" if verify(run_directory(store)).ok else str(verify(run_directory(store)))


def points(directory: Path, kind: Kind) -> tuple[list[Any], list[tuple[Point, int]]]:
    """What the uninterrupted training logs, and all points: the first, a middle and the last time at each place."""
    execute(directory / "whole", kind)
    expected = logged(directory / "whole")
    noted = Interrupter()
    execute(directory / "noted", kind, interrupter=noted)
    found = [(point, time) for point, n in noted.points.items() for time in sorted({1, (n + 1) // 2, n})]
    return expected, found


def main() -> int:
    """Go through points; 1 if any has a problem."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--every", type=int, default=1, help="only one in so many points")
    parser.add_argument("--seed", type=int, default=0, help="which of them")
    parser.add_argument("--kinds", nargs="*", default=[kind.name for kind in KINDS])
    options = parser.parse_args()
    chance, bad, tried = random.Random(options.seed), 0, 0
    for kind in KINDS:
        if kind.name not in options.kinds:
            continue
        with tempfile.TemporaryDirectory() as held:
            expected, found = points(Path(held), kind)
            for point, time in chance.sample(found, len(found) // options.every):
                tried += 1
                store = Path(held, f"store{tried}")  # one that was not closed stays open in this process
                try:
                    what = problem(store, kind, expected, point, time)
                except Exception as error:  # every point is to be reported
                    what = f"{type(error).__name__}: {error}"
                if what:
                    bad += 1
                    print(f"{kind.name} {(point, time)}: {what}", flush=True)
                shutil.rmtree(store, ignore_errors=True)
    print(f"{tried} points, {bad} with a problem")
    return bool(bad)


if __name__ == "__main__":
    sys.exit(main())
