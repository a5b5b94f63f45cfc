"""Hindsight: from a changed script to the values that its added statements have in a recorded run.

`Question` compares the script with the recorded source, finds the log statements that were added, and asks
source analysis in which segments of which iterations they may run; that is the request for the planner.
`answer` executes the plan and stores what it finds beside the recording, never in it.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
from florlog_recovery import Condition, Loop, Node, Plan, Request, RunTree, WhereError, plan_redo
from florlog_wal import Frame, Hindsight, RunBegin, Store, WalError
from florlog_wal import Path as IterationPath

from . import _session
from ._environment import environment
from ._guide import Found, Guide
from ._journal import Journal, report
from ._session import Replay
from ._skip import SkipRest
from .errors import FlorlogError, ImageError, SourceChangedError
from .source.calls import LogCall
from .source.diff import SourceDiff, compare
from .source.execution import LocalModuleFinder, run_as_main
from .source.exposure import exposed_names
from .source.regions import Location, Program


@dataclass(frozen=True, slots=True)
class Added:
    """A log statement that the recording does not have."""

    file: str
    call: LogCall

    def __str__(self) -> str:
        return f"{', '.join(self.call.names)} ({Path(self.file).name}:{self.call.line}, {self.call.qualname})"


@dataclass(slots=True)
class Question:
    """What was added to a script since a run was recorded, and which iterations are asked for."""

    tree: RunTree
    script: str
    added: list[Added]
    diffs: dict[str, SourceDiff]  # by present file
    recorded_files: dict[str, str]  # present file -> file when recorded
    condition: Condition | None
    request: Request = field(default_factory=Request)
    unusable: set[tuple[Loop, int]] = field(default_factory=set)  # images that lack a variable now needed
    notes: list[str] = field(default_factory=list)

    @property
    def lines(self) -> dict[str, tuple[str, dict[int, int]]]:
        """Present file -> recorded file, and present line -> recorded line."""
        return {file: (self.recorded_files[file], diff.line_map) for file, diff in self.diffs.items()}

    def wants(self, path: IterationPath) -> bool:
        """Whether an iteration was asked for."""
        try:
            return self.condition is None or self.condition(dict(path))
        except WhereError as error:
            raise FlorlogError(str(error)) from None


def ask(store: Store, tree: RunTree, script: str, where: str | None) -> Question:
    """The question that ``script`` puts to a recorded run.

    Raises `SourceChangedError` when the script differs in more than added statements, and `FlorlogError`
    when nothing was added, or nothing of it runs in the iterations asked for.
    """
    old_texts, texts, recorded, diffs = _compare(store, tree, script)
    changes = [f"{Path(file).name}, {change}" for file, diff in diffs.items() for change in diff.changed]
    if changes:
        more = f" (and {len(changes) - 1} more)" if len(changes) > 1 else ""
        raise SourceChangedError(
            f"the script differs from the recording of {tree.run} in more than added statements: "
            f"{changes[0]}{more}; undo that, or record the new script"
        )
    added = [
        Added(file, call) for file, diff in diffs.items() for new in diff.added for call in new.log_calls
    ]
    if not added:
        raise FlorlogError(
            f"no log statement was added to {Path(script).name} since {tree.run} was recorded: "
            "add one, such as run.log(norm=...), where the value exists"
        )
    question = Question(tree, script, added, diffs, recorded, _condition(tree, where))
    _Requester(question, Program(texts, script)).collect()
    if not question.request:
        listed = "; ".join(str(item) for item in added)
        raise FlorlogError(f"no recorded iteration that was asked for reaches the added statement: {listed}")
    _exclude_images(question, old_texts, texts)
    return question


def plan_for(question: Question) -> Plan:
    """The cheapest plan that answers a question."""
    return plan_redo(question.tree, question.request, unusable=question.unusable)


def _exclude_images(question: Question, old_texts: dict[str, str], texts: dict[str, str]) -> None:
    """Find the images that lack variables which the added code needs."""
    loops: dict[Frame, list[Loop]] = {}
    for loop in question.tree.loops():
        loops.setdefault(loop.site, []).append(loop)
    present = {old: new for new, old in question.recorded_files.items()}
    for (file, qualname, line), executions in loops.items():
        if (new_file := present.get(file)) is None:
            continue
        lines = question.diffs[new_file].old_to_new
        running = [
            lines[other[2]]
            for other, ran in loops.items()
            if other[0] == file and other[2] in lines and all(loop.count for loop in ran)
        ]
        if line not in lines:
            continue
        lacking = exposed_names(old_texts[new_file], texts[new_file], qualname, (line, lines[line]), running)
        for loop in executions:
            for index in loop.images:
                at_end = loop.ended and index == loop.count
                # At boundary 0 the frames come fresh from the code before the loop and lack nothing.
                if lacking.end if at_end else (lacking.inside and index > 0):
                    question.unusable.add((loop, index))
        names = ", ".join(sorted(lacking.inside | lacking.end))
        if names:
            place = "" if lacking.inside else "at the end "
            question.notes.append(
                f"images {place}of loop {executions[0].name!r} lack {names}, which the added code reads: "
                "they are not used"
            )


def _condition(tree: RunTree, where: str | None) -> Condition | None:
    if where is None:
        return None
    try:
        return Condition(where, {loop.name for loop in tree.loops()})
    except WhereError as error:
        raise FlorlogError(str(error)) from None


def _compare(
    store: Store, tree: RunTree, script: str
) -> tuple[dict[str, str], dict[str, str], dict[str, str], dict[str, SourceDiff]]:
    old_texts: dict[str, str] = {}
    texts: dict[str, str] = {}
    recorded: dict[str, str] = {}
    diffs: dict[str, SourceDiff] = {}
    for old_path, module, digest in tree.begin.sources:
        path = _present(old_path, tree.begin.script, script, module)
        try:
            new = Path(path).read_text(encoding="utf-8")
        except OSError as error:
            raise SourceChangedError(
                f"{path} was part of the recording and cannot be read: {error}"
            ) from None
        old = store.get_page(digest).decode()
        old_texts[path], texts[path] = old, new
        recorded[path] = old_path
        diffs[path] = compare(old, new, filename=path)
    return old_texts, texts, recorded, diffs


def _present(recorded: str, recorded_script: str, script: str, module: str) -> str:
    """Where a recorded file is now, when the script may be a copy in another place."""
    if module == "__main__":
        return script
    relative = os.path.relpath(recorded, Path(recorded_script).parent)
    beside = Path(os.path.normpath(Path(script).parent / relative))
    return str(beside) if beside.exists() else recorded


class _Requester:
    """Turns added statements into atoms, by asking source analysis once per loop and pattern of loops."""

    def __init__(self, question: Question, program: Program) -> None:
        self.question = question
        self.program = program
        self.sites = [Location(a.file, a.call.line, a.call.qualname) for a in question.added]
        self.present = {old: new for new, old in question.recorded_files.items()}

    def collect(self) -> None:
        """Fill in the question's request."""
        tree, request = self.question.tree, self.question.request
        self._node(tree.root, None)
        for loop in tree.loops():
            frame = self._frame(loop.site)
            if self._segments(frame, ()):
                leaves = (index for index in range(loop.count) if index not in loop.nodes)
                wanted = [index for index in leaves if self.question.wants(loop.path(index))]
                if wanted:
                    request.add_leaves(loop, wanted)
            for node in loop.nodes.values():
                if node.committed:
                    self._node(node, frame)

    def _node(self, node: Node, frame: Frame | None) -> None:
        if not self.question.wants(node.path):
            return
        stacks = tuple(tuple(self._frame(place) for place in loop.stack) for loop in node.loops)
        for segment in sorted(self._segments(frame, stacks)):
            if segment <= len(node.loops):
                self.question.request.add_segment(node, segment)

    def _segments(self, frame: Frame | None, stacks: tuple[tuple[Frame, ...], ...]) -> set[int]:
        found: set[int] = set()
        for site in self.sites:
            found |= self.program.may_run(site, frame, stacks)
        return found

    def _frame(self, frame: Frame) -> Frame:
        """A recorded source position in the present source."""
        file, qualname, line = frame
        present = self.present.get(file)
        if present is None:
            return frame
        return (present, qualname, self.question.diffs[present].old_to_new.get(line, line))


@dataclass(slots=True)
class Answer:
    """What a replay found."""

    values: list[Found]
    differences: list[str]
    seconds: float  # of the script's run, set-up included
    stored: bool


def answer(
    store: Store, question: Question, plan: Plan, *, progress: Callable[[int], None] | None = None
) -> Answer:
    """Execute ``plan`` by running the question's script, and store the values found.

    Raises `FlorlogError` when the script itself fails.
    """
    started = time.perf_counter()
    guide = Guide(store, question.tree, plan, question.lines)
    try:
        _follow(question, guide, progress)
    except ImageError as error:
        report(f"the images cannot be used, all is redone from the run's start: {error}")
        for loop in question.tree.loops():
            question.unusable.update((loop, index) for index in loop.images if index or loop.depth > 1)
        guide = Guide(store, question.tree, plan_for(question), question.lines)
        _follow(question, guide, progress)
    seconds = time.perf_counter() - started
    sites = {(added.file, added.call.line) for added in question.added}
    values = [f for f in guide.found if (f.file, f.line) in sites and question.wants(f.path)]
    return Answer(values, guide.differences, seconds, _save(store, question, values))


def _follow(question: Question, guide: Guide, progress: Callable[[int], None] | None) -> None:
    if progress is not None:
        guide.progress = progress
    before = set(sys.modules)
    try:
        _execute(question, guide)
    finally:
        for name in set(sys.modules) - before:  # a second run of the script makes its modules anew
            if str(getattr(sys.modules[name], "__file__", None)) in question.diffs:
                del sys.modules[name]


def _execute(question: Question, guide: Guide) -> None:
    begin = question.tree.begin
    threads = begin.environment.get("threads")
    if isinstance(threads, int) and threads != torch.get_num_threads():
        torch.set_num_threads(threads)  # sums are split by threads: their number changes the bits
    _session.command = replay = Replay(begin.name, guide)
    files = set(question.diffs)
    finder = LocalModuleFinder.install(lambda file: str(Path(file).absolute()) in files)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            run_as_main(question.script, begin.argv, instrumented=True)
    except SkipRest:
        pass
    except SystemExit as leaving:
        if leaving.code not in (None, 0):
            raise FlorlogError(f"the replayed script exited with {leaving.code!r}") from None
    except FlorlogError:
        raise
    except Exception as error:
        raise FlorlogError(f"the replayed script raised {_located(error, files)}") from error
    finally:
        finder.uninstall()
        _session.command = None
    if not replay.taken:
        raise FlorlogError(
            f"{question.script} opened no run named {begin.name!r}: is it the script of this run?"
        )


def _located(error: Exception, files: set[str]) -> str:
    place = ""
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename in files:
            place = f" at {Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}"
        trace = trace.tb_next
    return f"{type(error).__name__}{place}: {error}"


def _save(store: Store, question: Question, values: list[Found]) -> bool:
    """Write a replay session; False when the store cannot be written now."""
    tree = question.tree
    try:
        writer = Store.open(store.path, mode="w")
    except WalError as error:
        report(f"the values were not stored: {error}")
        return False
    began = time.perf_counter()
    with writer:
        begin = RunBegin(
            run=tree.run,
            name=tree.begin.name,
            kind="replay",
            script=question.script,
            argv=tree.begin.argv,
            cwd=str(Path.cwd()),
            params=tree.begin.params,
            environment=environment(),
            sources=(),
            started=time.time(),
            rank=0,
            world_size=1,
            resumed_from=0,
        )
        journal = Journal(writer, begin)
        for path, group in _by_iteration(values):
            held = tuple(
                (
                    journal.place(f.file, f.line, f.qualname, tuple(n for n, _ in path), (f.name,)),
                    f.name,
                    f.value,
                )
                for f in group
            )
            journal.append(Hindsight(path, held, group[0].trust, group[0].detail), journal.session)
        journal.end("", began, "complete", None)
        return not journal.stopped


def _by_iteration(values: list[Found]) -> Iterator[tuple[IterationPath, list[Found]]]:
    """Values of one iteration and one trust, in order."""
    group: list[Found] = []
    for found in values:
        if group and (found.path, found.trust, found.detail) != (
            group[0].path,
            group[0].trust,
            group[0].detail,
        ):
            yield group[0].path, group
            group = []
        group.append(found)
    if group:
        yield group[0].path, group
