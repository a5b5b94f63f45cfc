"""How a request is made: the script is compared with the recorded source, and source analysis is asked.

The log statements that were added are found, and then in which segments of which iterations they may run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from florlog_recovery import Condition, Loop, RunTree, WhereError
from florlog_wal import RunLog

from florlog.errors import FlorlogError, SourceChangedError
from florlog.following.executable import check_executable
from florlog.hindsight.added_code import AddedCode
from florlog.hindsight.changed_code import ChangedCode
from florlog.hindsight.compared_files import Compared, compared, read_in
from florlog.hindsight.known_answers import known_values, statement_keys
from florlog.hindsight.left_out import added_lines, enterable, skippable_code
from florlog.hindsight.request import (
    AddedLog,
    Earlier,
    PresentFile,
    PresentProgram,
    Remarks,
    Request,
    Skippable,
)
from florlog.hindsight.runs_before import runs_before
from florlog.hindsight.select import IterationSelection
from florlog.hindsight.usable_images import Usable, usable_images
from florlog.hindsight.wanted_atoms import answered, chosen_iterations, unasked_statements, wanted
from florlog.program.environment import is_hands_free
from florlog.program.measured_costs import costs_of
from florlog.source.diff.observation import changing
from florlog.source.edit.recorded_reading import recorded_loops
from florlog.source.edit.without import without_statements
from florlog.source.reach.regions import Location, ProgramAnalysis


def request_of(
    log: RunLog,
    tree: RunTree,
    script: str,
    where: str | None = None,
    first: int | None = None,
    last: int | None = None,
    *,
    force: bool = False,
    shown: Mapping[str, str] | None = None,
) -> Request:
    """The request that ``script`` makes of a recorded run.

    ``where`` is a condition on iterations; ``first`` and ``last`` leave only so many of those for which it
    holds and in which an added statement may run.  ``shown``: what to call files that lie elsewhere.

    Raises `SourceChangedError` when the script differs in more than added statements and that is not forced,
    what `check_executable` raises for a run that can only be read, and `FlorlogError` when nothing was added, or
    nothing of it runs in the iterations asked for.
    """
    check_executable(tree)
    shown = shown or {}
    files = compared(log, tree, script, {recorded: present for present, recorded in shown.items()})
    added = tuple(
        AddedLog(file.present, call.line, call.qualname, call.names)
        for file in files
        for new in file.diff.added
        for call in new.log_calls
    )
    if not added and not any(file.diff.changed for file in files):
        raise FlorlogError(
            f"no log statement was added to {Path(script).name} since {tree.run} was recorded: "
            "add one, such as run.log(norm=...), where the value exists"
        )
    hands_free = is_hands_free(tree.begin.environment)
    program = _present_program(files, script, shown, hands_free=hands_free)
    analysis = _analysis(files, program)
    changed = ChangedCode(tree, files, script, analysis, hands_free=hands_free)
    changes = tuple(changed.described())
    if changed and not force:
        raise _refused(tree, changes)
    if not added:
        raise FlorlogError(
            f"no log statement was added to {Path(script).name}: what was changed asks for nothing"
        )
    diffs = {file.present: file.diff for file in files}
    recorded = {file.present: file.recorded for file in files}
    keys = statement_keys(diffs, recorded)
    code = AddedCode(analysis, added, diffs, recorded)
    found = known_values(log, tree, keys)
    known = {site: found[site.file, site.line] for site in code.names}
    try:
        selection = IterationSelection(log, tree, _condition(tree, where))
        chosen = chosen_iterations(tree, code, selection, first, last)
    except WhereError as error:
        raise FlorlogError(str(error)) from None
    asked = wanted(tree, code, chosen, known)
    values = tuple(answered(tree, chosen, known))
    if not asked.atoms and not values:
        listed = "; ".join(str(item) for item in added)
        raise FlorlogError(f"no recorded iteration that was asked for reaches the added statement: {listed}")
    plain = program.reading is None and not changed
    skipping = analysis.skipping(added_lines(diffs))
    entered = frozenset() if changed else enterable(tree, analysis, code, skipping)
    usable, unasked, executed = _usable(log, tree, files, entered, unasked_statements(code, chosen, known))
    return Request(
        tree,
        program,
        added,
        asked,
        skippable_code(tree, analysis, code, skipping) if plain else Skippable(),
        usable.unusable.images,
        usable.enterable,
        Earlier(keys, values),
        costs_of(log, tree),
        Remarks(usable.unusable.reasons, tuple(_altering(files)), changes),
        changed.doubts() if changed else None,
        unasked,
        runs_before(log, tree, executed, analysis, code, skipping, changed=bool(changed)),
    )


def _usable(
    log: RunLog,
    tree: RunTree,
    files: Sequence[Compared],
    entered: frozenset[Loop],
    unasked: frozenset[Location],
) -> tuple[Usable, frozenset[tuple[str, int, int]], Sequence[Compared]]:
    """The images that can be used, the statements that are left out so that more can be, and the files without them."""
    usable = usable_images(log, tree, files, entered)
    places = frozenset(
        (file.present, call.line, call.col)
        for file in files
        for new in file.diff.added
        for call in new.log_calls
        if Location(file.present, call.line, call.qualname) in unasked
    )
    if not usable.unusable.images or not places:
        return usable, frozenset(), files
    less = [
        replace(
            file,
            new=without_statements(
                file.new, {(line, column) for name, line, column in places if name == file.present}
            ),
        )
        for file in files
    ]
    without = usable_images(log, tree, less, entered)
    more = without.unusable.images < usable.unusable.images
    return (without, places, less) if more else (usable, frozenset(), files)


@lru_cache(maxsize=4)
def program_of(texts: tuple[tuple[str, str], ...], script: str) -> ProgramAnalysis:
    """The analysis of a program, kept by its content: the next request in this process has it."""
    return ProgramAnalysis(dict(texts), script)


def _present_program(
    files: Sequence[Compared], script: str, shown: Mapping[str, str], *, hands_free: bool
) -> PresentProgram:
    present = {
        file.present: PresentFile(
            file.recorded,
            file.module,
            file.diff.line_map,
            frozenset(new.place for new in file.diff.added if new.alone),
        )
        for file in files
    }
    loops = _recorded_loops(files, hands_free=hands_free)
    return PresentProgram(script, present, loops, hands_free, shown)


def _recorded_loops(files: Sequence[Compared], *, hands_free: bool) -> dict[str, dict[int, str]] | None:
    """The recorded choice of loops, in the present text."""
    new_lines = {file.present: file.diff.old_to_new for file in files}
    chosen = recorded_loops({file.present: file.old for file in files}, hands_free=hands_free)
    if chosen is None:
        return None
    return {
        file: {new_lines[file].get(line, line): name for line, name in lines.items()}
        for file, lines in chosen.items()
    }


def _analysis(files: Sequence[Compared], program: PresentProgram) -> ProgramAnalysis:
    texts = {file.present: file.new for file in files}
    reading = program.reading
    if reading is None:
        return program_of(tuple(texts.items()), program.script)
    with read_in(reading):
        return ProgramAnalysis(texts, program.script)


def _altering(files: Sequence[Compared]) -> list[str]:
    return [
        f"{Path(file.present).name}, line {line}: {what}"
        for file in files
        for line, what in changing(file.old, file.diff, file.present)
    ]


def _refused(tree: RunTree, changes: tuple[str, ...]) -> SourceChangedError:
    more = f" (and {len(changes) - 1} more)" if len(changes) > 1 else ""
    return SourceChangedError(
        f"the script differs from the recording of {tree.run} in more than added statements: "
        f"{changes[0]}{more}. Undo that, record the new script, or take --force, with which no value is PROVEN",
        changes,
    )


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
