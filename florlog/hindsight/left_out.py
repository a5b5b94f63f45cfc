"""Which recorded code a replay may leave out, because nothing that is asked for depends on it."""

from __future__ import annotations

from collections.abc import Mapping

from florlog_recovery import Loop, RunTree
from florlog_wal import StackFrame

from florlog.following.blind_entries import enterable_loops
from florlog.hindsight.added_code import AddedCode
from florlog.hindsight.request import AtomGroup, Skippable
from florlog.source.diff.source_diff import SourceDiff
from florlog.source.reach.regions import Location, ProgramAnalysis
from florlog.source.skip.pieces import Piece
from florlog.source.skip.skipping import Skipped, Skipping

MIN_SKIP_SECONDS = 0.02
"""Seconds of a segment, at least, for code in it to be passed over: in shorter ones that costs the values' labels more
than it saves."""


def skippable_code(tree: RunTree, program: ProgramAnalysis, code: AddedCode, skipping: Skipping) -> Skippable:
    """The loops, and the code within iterations, that need not be run."""
    pieces = tuple(program.pieces(skipping))
    loops: dict[Loop, Skipped] = {}
    answers: dict[StackFrame, Skipped | None] = {}
    for loop in tree.loops():
        if loop.form != "for" or not loop.ended or not loop.count:
            continue
        frame = code.present(loop.site)
        if frame not in answers:
            found = program.loop(frame)
            answers[frame] = None if found is None else skipping.skipped(found)
        if (skipped := answers[frame]) is not None:
            loops[loop] = skipped
    return Skippable(loops, pieces, _passing(tree, program, code, pieces))


def enterable(
    tree: RunTree, program: ProgramAnalysis, code: AddedCode, skipping: Skipping
) -> frozenset[Loop]:
    """The loops that may be entered blindly, as no added statement reads what is stale then."""
    return enterable_loops(tree, lambda: program, skipping.asked, code.present)


def added_lines(diffs: Mapping[str, SourceDiff]) -> dict[str, frozenset[int]]:
    """The lines of added statements, by present file."""
    return {
        file: frozenset(line for new in diff.added for line in range(new.line, new.end_line + 1))
        for file, diff in diffs.items()
    }


def _passing(
    tree: RunTree, program: ProgramAnalysis, code: AddedCode, pieces: tuple[Piece, ...]
) -> dict[AtomGroup, tuple[int, ...]]:
    """Which pieces may run in a loop's innermost iterations, or in a segment of another, and are worth skipping."""
    sites = [Location(piece.file, piece.line, piece.qualname) for piece in pieces]
    passing: dict[AtomGroup, tuple[int, ...]] = {}
    for loop in tree.loops():
        frame = code.present(loop.site)
        leaves = loop.count - len(loop.nodes)
        if leaves and sum(loop.seconds) >= MIN_SKIP_SECONDS * loop.count:
            passing[loop] = tuple(
                number for number, site in enumerate(sites) if program.may_run(site, frame, ())
            )
        for node in loop.nodes.values():
            stacks = tuple(tuple(map(code.present, inner.stack)) for inner in node.loops)
            for number, site in enumerate(sites):
                for segment in program.may_run(site, frame, stacks):
                    last = segment >= len(node.loops)
                    if (node.after if last else node.loops[segment].before) >= MIN_SKIP_SECONDS:
                        passing[node, segment] = (*passing.get((node, segment), ()), number)
    return passing
