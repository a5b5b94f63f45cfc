"""Hindsight: from a changed script to the request that its added statements make of a recorded run.

`Question` compares the script with the recorded source, finds the log statements that were added, and asks
source analysis in which segments of which iterations they may run; that is the request for the planner.
`florlog.redo.answer` executes the plan.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np
from florlog_recovery import (
    Atoms,
    Condition,
    CostModel,
    Loop,
    Node,
    Plan,
    RunTree,
    WhereError,
    plan_redo,
)
from florlog_wal import Path as IterationPath
from florlog_wal import StackFrame, Store

from florlog.errors import FlorlogError, RanksError, SourceChangedError
from florlog.following.trust import FoundValue
from florlog.hindsight.changed_code import ChangedCode
from florlog.hindsight.compared_files import compared, read_in
from florlog.hindsight.known_answers import Known, known, statement_keys
from florlog.hindsight.select import Chosen, IterationSelection, Mask, outermost
from florlog.program.measured_costs import costs_of
from florlog.program.recorded_sources import StatementPlace
from florlog.source.carry.exposure import exposed_names
from florlog.source.diff.observation import changing
from florlog.source.diff.source_diff import SourceDiff
from florlog.source.edit.loop_choice import choose
from florlog.source.edit.rewrite import Rewrite, reading
from florlog.source.names.calls import LogCall
from florlog.source.reach.regions import Exit, Location, ProgramAnalysis
from florlog.source.skip.pieces import Piece
from florlog.source.skip.skipping import Skipped, Skipping
from florlog.state.same_data import WORKER_STATE

WORTH = 0.02
"""Seconds of a segment in which code is passed over: of what takes less the values' labels have more."""


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
    places: dict[str, str]  # module -> present file
    request: Atoms = field(default_factory=Atoms)
    chosen: Chosen | None = None  # the iterations asked for; None: all
    exits: dict[Loop | tuple[Node, int], Exit] = field(default_factory=dict)  # where they can be left early
    unusable: set[tuple[Loop, int]] = field(default_factory=set)  # images that lack a variable now needed
    skippable: dict[Loop, Skipped] = field(default_factory=dict)  # loops on which nothing asked for depends
    pieces: list[Piece] = field(default_factory=list)  # code on which nothing asked for depends
    passing: dict[Loop | tuple[Node, int], list[int]] = field(default_factory=dict)  # which of it runs there
    keys: dict[StatementPlace, bytes] = field(default_factory=dict)  # identities of the added statements
    answered: list[FoundValue] = field(default_factory=list)  # what earlier replays found
    reasons: dict[Loop | tuple[Node, int], list[str]] = field(default_factory=dict)  # names asked for there
    costs: CostModel = field(default_factory=CostModel)
    unsteady: set[tuple[StackFrame | None, str, int]] = field(
        default_factory=set
    )  # loop, file, line of a statement
    notes: list[str] = field(default_factory=list)
    shown: dict[str, str] = field(default_factory=dict)  # present file -> what to call it, where that differs
    altering: tuple[str, ...] = ()  # added code that does more than observe, as far as its form tells
    changes: tuple[str, ...] = ()  # what else differs, and what that may invalidate
    changed: ChangedCode | None = None  # the same, where the question is put nonetheless
    reading: Rewrite | None = None  # how a script that was recorded hands-free is read

    @property
    def lines(self) -> dict[str, tuple[str, dict[int, int]]]:
        """Present file -> recorded file, and present line -> recorded line."""
        return {file: (self.recorded_files[file], diff.line_map) for file, diff in self.diffs.items()}

    @property
    def apart(self) -> dict[str, frozenset[tuple[int, int]]]:
        """Present file -> line and column of the statements all of which is new."""
        return {
            file: frozenset(new.place for new in diff.added if new.alone) for file, diff in self.diffs.items()
        }

    def wants(self, path: IterationPath) -> bool:
        """Whether an iteration was asked for."""
        return self.chosen is None or self.chosen.holds(self.tree, path)


def ask(
    store: Store,
    tree: RunTree,
    script: str,
    where: str | None = None,
    first: int | None = None,
    last: int | None = None,
    *,
    force: bool = False,
) -> Question:
    """The question that ``script`` puts to a recorded run.

    ``where`` is a condition on iterations; ``first`` and ``last`` leave only so many of those for which it
    holds and in which an added statement may run.

    Raises `SourceChangedError` when the script differs in more than added statements and that is not forced,
    `RanksError` for a run of several ranks, and `FlorlogError` when nothing was added, or nothing of it runs in the
    iterations asked for.
    """
    if tree.begin.world_size > 1:
        raise RanksError(tree.begin.world_size)
    files = compared(store, tree, script)
    diffs = {file.present: file.diff for file in files}
    old_texts = {file.present: file.old for file in files}
    texts = {file.present: file.new for file in files}
    recorded = {file.present: file.recorded for file in files}
    added = [
        Added(file, call) for file, diff in diffs.items() for new in diff.added for call in new.log_calls
    ]
    if not added and not any(diff.changed for diff in diffs.values()):
        raise FlorlogError(
            f"no log statement was added to {Path(script).name} since {tree.run} was recorded: "
            "add one, such as run.log(norm=...), where the value exists"
        )
    places = {file.module: file.present for file in files if file.module != "__main__"}
    question = Question(tree, script, added, diffs, recorded, places)
    if tree.begin.environment.get("hands_free"):
        question.reading = _reading(old_texts, diffs)
    question.altering = tuple(
        f"{Path(file.present).name}, line {line}: {what}"
        for file in files
        for line, what in changing(file.old, file.diff, file.present)
    )
    with read_in(question.reading):
        program = (
            ProgramAnalysis(texts, script) if question.reading else program_of(tuple(texts.items()), script)
        )
    changed = ChangedCode(tree, files, script, program, question.reading)
    if changed:
        question.changes = tuple(changed.described())
        if not force:
            raise _refused(question)
        question.changed = changed
    if not added:
        raise FlorlogError(
            f"no log statement was added to {Path(script).name}: what was changed asks for nothing"
        )
    try:
        selection = IterationSelection(store, tree, _condition(tree, where))
        question.keys = statement_keys(diffs, recorded)
        found = known(store, tree, question.keys)
        requester = _Requester(question, program, selection, found)
        requester.collect(first, last)
        if question.reading is None and question.changed is None:
            requester.skippable()
    except WhereError as error:
        raise FlorlogError(str(error)) from None
    question.costs = costs_of(store, tree)
    if not question.request and not question.answered:
        listed = "; ".join(str(item) for item in added)
        raise FlorlogError(f"no recorded iteration that was asked for reaches the added statement: {listed}")
    _exclude_images(question, old_texts, texts)
    _exclude_behind_workers(question)
    return question


@lru_cache(maxsize=4)
def program_of(texts: tuple[tuple[str, str], ...], script: str) -> ProgramAnalysis:
    """The analysis of a program, kept by its content: the next question in this process has it."""
    return ProgramAnalysis(dict(texts), script)


def _refused(question: Question) -> SourceChangedError:
    changes = question.changes
    more = f" (and {len(changes) - 1} more)" if len(changes) > 1 else ""
    return SourceChangedError(
        f"the script differs from the recording of {question.tree.run} in more than added statements: "
        f"{changes[0]}{more}. Undo that, record the new script, or take --force, with which no value is PROVEN",
        changes,
    )


def plan_for(question: Question) -> Plan:
    """The cheapest plan that answers a question."""
    return plan_redo(
        question.tree, question.request, question.costs, question.unusable, question.skippable.keys()
    )


def _exclude_images(question: Question, old_texts: dict[str, str], texts: dict[str, str]) -> None:
    """Find the images that lack variables which the added code needs."""
    loops: dict[StackFrame, list[Loop]] = {}
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


def _exclude_behind_workers(question: Question) -> None:
    """Leave out the images that lack the random generators of a loader's persistent workers."""
    first = next((loop for loop in question.tree.loops() if loop.data.get(WORKER_STATE)), None)
    if first is None:
        return
    for loop in question.tree.loops():
        question.unusable.update(
            (loop, index) for index, image in loop.images.items() if image.lsn > first.lsn
        )
    question.notes.append(
        f"images behind the start of loop {first.name!r} lack the random generators of its loader's "
        "workers, which are persistent: they are not used"
    )


def _reading(old_texts: dict[str, str], diffs: dict[str, SourceDiff]) -> Rewrite:
    """The recorded choice of loops, in the present text."""
    chosen = choose(old_texts).loops
    return reading({
        file: {diffs[file].old_to_new.get(line, line): name for line, name in lines.items()}
        for file, lines in chosen.items()
    })  # fmt: skip


def _condition(tree: RunTree, where: str | None) -> Condition | None:
    if where is None:
        return None
    logged = {
        name
        for table in tree.statements.values()
        for statement in table.values()
        if statement.kind == "log"
        for name in statement.names
    }
    return Condition(where, {loop.name for loop in tree.loops()}, logged)


class _Requester:
    """Turns added statements into atoms, by asking source analysis once per loop and pattern of loops."""

    def __init__(
        self,
        question: Question,
        program: ProgramAnalysis,
        selection: IterationSelection,
        found: Mapping[StatementPlace, Known],
    ) -> None:
        self.question = question
        self.program = program
        self.selection = selection
        sites = [Location(a.file, a.call.line, a.call.qualname) for a in question.added]
        self.names: dict[Location, list[str]] = {}
        for site, added in zip(sites, question.added, strict=True):
            self.names.setdefault(site, []).extend(added.call.names)
        self.sites = {site: found[site.file, site.line] for site in dict.fromkeys(sites)}
        self.present = {old: new for new, old in question.recorded_files.items()}

    def collect(self, first: int | None, last: int | None) -> None:
        """Fill in the question's request and the iterations that it asks for."""
        tree = self.question.tree
        segments: dict[Node, list[int]] = {}
        leaves: dict[Loop, Mask] = {}
        self._node(tree.root, None, segments)
        for loop in tree.loops():
            frame = self._frame(loop.site)
            if self._segments(frame, ()) and (mask := self.selection.leaves(loop)).any():
                leaves[loop] = mask
            for node in loop.nodes.values():
                if node.committed:
                    self._node(node, frame, segments)
        nodes, leaves = outermost(tree, set(segments), leaves, first, last)
        self.question.chosen = Chosen(nodes, leaves)
        self._request(nodes, leaves)
        self._answered()

    def skippable(self) -> None:
        """Find the loops, and the code within iterations, on which nothing that is asked for depends."""
        added: dict[str, set[int]] = {}
        for file, diff in self.question.diffs.items():
            for new in diff.added:
                added.setdefault(file, set()).update(range(new.line, new.end_line + 1))
        skipping = self.program.skipping({file: frozenset(lines) for file, lines in added.items()})
        self._pieces(skipping)
        answers: dict[StackFrame, Skipped | None] = {}
        for loop in self.question.tree.loops():
            if loop.form != "for" or not loop.ended or not loop.count:
                continue
            frame = self._frame(loop.site)
            if frame not in answers:
                found = self.program.loop(frame)
                answers[frame] = None if found is None else skipping.skipped(found)
            if (skipped := answers[frame]) is not None:
                self.question.skippable[loop] = skipped

    def _pieces(self, skipping: Skipping) -> None:
        question = self.question
        question.pieces = self.program.pieces(skipping)
        sites = [Location(piece.file, piece.line, piece.qualname) for piece in question.pieces]
        for loop in question.tree.loops():
            frame = self._frame(loop.site)
            leaves = loop.count - len(loop.nodes)
            if leaves and sum(loop.seconds) >= WORTH * loop.count:
                question.passing[loop] = [
                    number for number, site in enumerate(sites) if self.program.may_run(site, frame, ())
                ]
            for node in loop.nodes.values():
                stacks = self._stacks(node)
                for number, site in enumerate(sites):
                    for segment in self.program.may_run(site, frame, stacks):
                        last = segment >= len(node.loops)
                        if (node.after if last else node.loops[segment].before) >= WORTH:
                            question.passing.setdefault((node, segment), []).append(number)

    def _answered(self) -> None:
        tree = self.question.tree
        for site, found in self.sites.items():
            for path, values in found.values.items():
                if self.question.wants(path) and found.holds(tree, path):
                    self.question.answered.extend(
                        FoundValue(site.file, site.line, site.qualname, name, path, value, trust)
                        for name, value, trust in values
                    )

    def _request(self, nodes: set[Node], leaves: dict[Loop, Mask]) -> None:
        """Ask for what is not known yet."""
        question = self.question
        segments: dict[Node, list[int]] = {}
        for node in nodes:
            frame = None if node.loop is None else self._frame(node.loop.site)
            wanted = [site for site, found in self.sites.items() if node not in found.nodes]
            running = self._segments(frame, self._stacks(node), wanted)
            segments[node] = [segment for segment in sorted(running) if segment <= len(node.loops)]
            for site in wanted:
                for segment in self._segments(frame, self._stacks(node), [site]):
                    question.reasons.setdefault((node, segment), []).extend(self.names[site])
        for node, numbers in segments.items():
            for segment in numbers:
                found = None if node.loop is None else self._exit(node.loop, self._stacks(node), segment)
                question.request.add_segment(node, segment, 1.0 if found is None else found.share)
                if found is not None:
                    question.exits[node, segment] = found
        for loop, mask in leaves.items():
            wanted = [site for site in self.sites if self._segments(self._frame(loop.site), (), [site])]
            mask = mask & ~np.logical_and.reduce([self.sites[site].mask(loop) for site in wanted])
            if not mask.any():
                continue
            question.reasons[loop] = [name for site in wanted for name in self.names[site]]
            found = self._exit(loop, (), 0)
            question.request.add_leaves(loop, mask, 1.0 if found is None else found.share)
            if found is not None:
                question.exits[loop] = found

    def _node(self, node: Node, frame: StackFrame | None, segments: dict[Node, list[int]]) -> None:
        found = [s for s in sorted(self._segments(frame, self._stacks(node))) if s <= len(node.loops)]
        if found and self.selection.node(node):
            segments[node] = found

    def _stacks(self, node: Node) -> tuple[tuple[StackFrame, ...], ...]:
        return tuple(tuple(self._frame(place) for place in loop.stack) for loop in node.loops)

    def _segments(
        self,
        frame: StackFrame | None,
        stacks: tuple[tuple[StackFrame, ...], ...],
        sites: Iterable[Location] | None = None,
    ) -> set[int]:
        found: set[int] = set()
        for site in self.sites if sites is None else sites:
            if segments := self.program.may_run(site, frame, stacks):
                found |= segments
                if not self.program.steady(site, frame):
                    self.question.unsteady.add((frame, site.file, site.line))
        return found

    def _exit(self, loop: Loop, stacks: tuple[tuple[StackFrame, ...], ...], segment: int) -> Exit | None:
        return self.program.exit(tuple(self.sites), self._frame(loop.site), stacks, segment)

    def _frame(self, frame: StackFrame) -> StackFrame:
        """A recorded source position in the present source."""
        file, qualname, line = frame
        present = self.present.get(file)
        if present is None:
            return frame
        return (present, qualname, self.question.diffs[present].old_to_new.get(line, line))
